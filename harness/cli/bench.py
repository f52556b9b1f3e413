# SPDX-License-Identifier: MIT
"""`samepage bench`: what each merger costs, counted in instructions under QEMU icount."""

from __future__ import annotations

import os
from datetime import datetime
from typing import get_args

import click
from rich.table import Table

from harness.config import load_config
from harness.errors import SamepageError
from harness.ksm.bench.cases import Case, passes_of
from harness.ksm.bench.content import CLASSES
from harness.ksm.bench.machine import prepare
from harness.ksm.bench.run import Job, run_all
from harness.ksm.result import Merger
from harness.progress import console


@click.command(epilog="Example: samepage bench --case unique --case same --mib 64")
@click.option("--case", "names", multiple=True, type=click.Choice([*CLASSES, "mixed"]), help="Content class.")
@click.option("--merger", default="samepage,in-tree", show_default=True, help="Mergers, separated by commas.")
@click.option("--kernel", help="The recipe to boot; the configured one when not given.")
@click.option("--seeds", type=click.IntRange(1, 64), default=1, show_default=True, help="How many seeds.")
@click.option("--mib", type=click.IntRange(1, 4096), default=16, show_default=True, help="Memory of each process.")
@click.option("--processes", type=click.IntRange(1, 512), default=4, show_default=True)
@click.option("--jobs", type=click.IntRange(1), help="Guests at once (default: one for each CPU).")
@click.option("--fresh", is_flag=True, help="Measure again what the cache has.")
def bench(
    names: tuple[str, ...],
    merger: str,
    kernel: str | None,
    seeds: int,
    mib: int,
    processes: int,
    jobs: int | None,
    fresh: bool,
) -> int:
    """Count the instructions of merging; the figures repeat to the last digit.

    Instructions are not time: cache misses and memory bandwidth do not show in them.
    """
    config = load_config()
    mergers = _mergers(merger)
    cases = [
        Case("passes", name, processes, mib * 256, seed, smart, zero)
        for name in names or (*CLASSES, "mixed")
        for zero in ([False, True] if name == "zero" else [False])
        for smart in (True, False)
        for seed in range(1, seeds + 1)
    ]
    material = prepare(config, kernel or config.kernel, module="samepage" in mergers)
    todo = [Job(case, one) for case in cases for one in mergers]
    folder = config.runs / f"bench-{datetime.now().astimezone():%Y-%m-%d_%H.%M.%S}"
    done = run_all(config, material, todo, folder, at_once=jobs or len(os.sched_getaffinity(0)), fresh=fresh)
    table = Table(
        "content", "smart", "merger", "first", "second", "steady", "to", "mean", "saved", "of", "records", box=None
    )
    for job, records in done.items():
        figures = passes_of(job.case, records)
        table.add_row(
            job.case.content + (" zero pages" if job.case.use_zero_pages else ""),
            "on" if job.case.smart_scan else "off",
            job.merger,
            *(f"{x:.0f}" for x in (figures.first, figures.second)),
            *(f"{x:.1f}" for x in (min(figures.steady), max(figures.steady), figures.steady_mean)),
            *(str(x) for x in (figures.saved, figures.possible, figures.metadata_bytes)),
        )
    console.print(table)
    console.print("Instructions of the merging threads per page and pass; instructions are not time.")
    return 0


def _mergers(text: str) -> list[Merger]:
    known: tuple[Merger, ...] = get_args(Merger)
    chosen = [merger for merger in known if merger in text.split(",")]
    if not chosen or set(text.split(",")) - set(known):
        raise SamepageError("is no list of mergers", where=text, hint=f"There are: {', '.join(known)}")
    return chosen
