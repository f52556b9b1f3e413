# SPDX-License-Identifier: MIT
"""`samepage profile`: where the instructions of the merging thread go."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import get_args

import click
from rich.console import Console

from harness.config import load_config
from harness.errors import SamepageError
from harness.ksm.bench.cases import Case
from harness.ksm.bench.content import CLASSES
from harness.ksm.profile.report import table, write
from harness.ksm.profile.run import TOLERANCE, Job, prepare
from harness.ksm.profile.run import profile as carry_out
from harness.ksm.result import Merger
from harness.progress import step

_PAGES_PER_MIB = 256
_stdout = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


@click.command(epilog="Example: `samepage profile unique --merger in-tree --skip 2 --passes 9`")
@click.argument("workload", type=click.Choice([*CLASSES, "mixed", "sparse"]))
@click.option("--merger", type=click.Choice([*get_args(Merger), "both"]), default="both", show_default=True)
@click.option("--passes", type=click.IntRange(1, 1000), default=3, show_default=True, help="Passes to count.")
@click.option("--skip", type=click.IntRange(0, 1000), default=0, show_default=True, help="Passes before these.")
@click.option("--processes", type=click.IntRange(1, 512), default=4, show_default=True)
@click.option("--mib", type=click.IntRange(1, 4096), default=16, show_default=True, help="Memory of each process.")
@click.option("--smart-scan/--no-smart-scan", default=True, show_default=True)
@click.option("--timing-safe", is_flag=True, help="In the module's mode of that name; only with --merger samepage.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Chooses all contents.")
@click.option("--kernel", help="The recipe to boot; the configured one when not given.")
@click.option("--rows", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Functions in the table.")
def profile(
    workload: str,
    merger: str,
    passes: int,
    skip: int,
    processes: int,
    mib: int,
    smart_scan: bool,
    timing_safe: bool,
    seed: int,
    kernel: str | None,
    rows: int,
) -> None:
    """Count the instructions of every kernel function in the merging thread while it passes over WORKLOAD.

    WORKLOAD is a content class of `samepage bench`, or `sparse`: 1024 pages in each of two large mappings. Every
    instruction is counted, and the figures repeat to the last digit. Leaves profile.json, stacks.folded (for other
    tools) and flame.html in runs/profile-TIME/MERGER.
    """
    config = load_config()
    mergers = [one for one in get_args(Merger) if merger in (one, "both")]
    tools = prepare(config, kernel or config.kernel, module="samepage" in mergers)
    top = config.runs / f"profile-{workload}-{datetime.now().astimezone():%Y-%m-%d_%H.%M.%S}"
    if workload == "sparse":
        case = Case("sparse", "unique", 1, 4 * _PAGES_PER_MIB, seed, smart_scan)
    else:
        pages = mib * _PAGES_PER_MIB
        case = Case("passes", workload, processes, pages, seed, smart_scan, timing_safe=timing_safe)
    if not all(case.suits(one) for one in mergers):
        raise SamepageError("in-tree KSM has no such mode", where="--timing-safe", hint="Add --merger samepage.")
    for one in mergers:
        with step(f"Profiling {workload}, {one}"):
            outcome, stacks = carry_out(config, tools, Job(case, one, skip, passes), top / one)
        write(outcome, stacks, top / one)
        _stdout.print(table(outcome, rows))
        if abs(outcome.difference) > TOLERANCE:
            said = f"the kernel's own account differs by {outcome.difference:+.2f} % (docs/profile.md)"
            click.echo(f"samepage: warning: {said}", err=True)
        click.echo(top / one / "flame.html")
