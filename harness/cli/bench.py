# SPDX-License-Identifier: MIT
"""`samepage bench`: what each merger costs, counted in instructions under QEMU icount."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import get_args

import click
from rich.console import Console

from harness.cli.options import FiniteRange, run_name
from harness.config import load_config
from harness.errors import SamepageError
from harness.ksm.bench import result as results
from harness.ksm.bench.cases import Case
from harness.ksm.bench.collect import collect
from harness.ksm.bench.machine import prepare
from harness.ksm.bench.result import BenchResult
from harness.ksm.bench.run import Job, run_all
from harness.ksm.bench.sets import ALL_CONTENTS, MIB, SETS, content_cases
from harness.ksm.bench.tables import tables
from harness.ksm.result import Merger

_stdout = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


@click.command(
    epilog="Examples: `samepage bench --against monday`, `samepage bench --case unique --case same --mib 64`"
)
@click.option("--set", "set_", type=click.Choice(list(SETS)), default="short", show_default=True, help="Cases.")
@click.option("--case", "contents", multiple=True, type=click.Choice(ALL_CONTENTS), help="Only passes over this class.")
@click.option("--merger", default="samepage,in-tree", show_default=True, help="Mergers, separated by commas.")
@click.option("--kernel", help="The recipe to boot; the configured one when not given.")
@click.option("--seeds", type=click.IntRange(1, 64), default=1, show_default=True, help="With --case: how many.")
@click.option("--mib", type=click.IntRange(1, 4096), default=16, show_default=True, help="With --case: per process.")
@click.option("--processes", type=click.IntRange(1, 512), default=4, show_default=True, help="With --case.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Guests at once (default: one for each CPU).")
@click.option("--fresh", is_flag=True, help="Measure again what was measured with the same inputs.")
@click.option("--name", help="Of the folder under runs/ and in the history; the time when not given.")
@click.option("--against", metavar="REF", help="A result.json, or a name in the history: fail when a figure is worse.")
@click.option("--worse-by", type=FiniteRange(0), default=1, show_default=True, metavar="PERCENT")
def bench(
    set_: str,
    contents: tuple[str, ...],
    merger: str,
    kernel: str | None,
    seeds: int,
    mib: int,
    processes: int,
    jobs: int | None,
    fresh: bool,
    name: str | None,
    against: str | None,
    worse_by: float,
) -> int:
    """Count the instructions of merging, both mergers side by side; the figures repeat to the last digit.

    Leaves result.json and report.html in runs/NAME and a line in runs/bench-history.jsonl. A run that was interrupted
    goes on where it was. Instructions are not time: cache misses and memory bandwidth do not show in them.
    """
    config = load_config()
    mergers = _mergers(merger)
    name = run_name(name, "bench-")
    reference = None if against is None else results.recall(against, config.runs)
    cases = list(content_cases(contents, processes, mib * MIB, seeds)) if contents else SETS[set_]()
    material = prepare(config, kernel or config.kernel, module="samepage" in mergers)
    folder = config.runs / name
    folder.mkdir(parents=True, exist_ok=True)
    done = run_all(
        config, material, _jobs(cases, mergers), folder, at_once=jobs or len(os.sched_getaffinity(0)), fresh=fresh
    )
    outcome = collect("cases" if contents else set_, material, done)
    results.write(outcome, folder)
    results.remember(outcome, name, config.runs)
    for table in tables(outcome):
        _stdout.print(table)
    for missing in outcome.unsupported:
        click.echo(f"not measured, as this merger does not offer it: {missing.case.name}, {missing.merger}")
    # Imported when needed: the plots take a while to load.
    from harness.ksm.bench.report import write_report

    click.echo("All costs count instructions, not time.")
    click.echo(f"report: {write_report(outcome, folder)}")
    return _compare(outcome, reference, worse_by) if reference else 0


def _jobs(cases: Sequence[Case], mergers: Sequence[Merger]) -> list[Job]:
    return [Job(case, merger) for case in dict.fromkeys(cases) for merger in mergers if case.suits(merger)]


def _compare(now: BenchResult, before: BenchResult, percent: float) -> int:
    count = results.compared(now.figures, before.figures)
    if not count:
        raise SamepageError("the two runs have no figure in common")
    found = results.worse(now.figures, before.figures, percent)
    for item in found:
        figure = item.figure
        click.echo(
            f"worse: {figure.case.name}, {figure.merger}, {figure.metric}: "
            f"{item.before:g} -> {figure.value:g} {figure.unit} ({item.percent:.1f} %)"
        )
    click.echo(f"{count} figures compared, {len(found)} worse by more than {percent:g} %")
    return 1 if found else 0


def _mergers(text: str) -> list[Merger]:
    known: tuple[Merger, ...] = get_args(Merger)
    chosen = [merger for merger in known if merger in text.split(",")]
    if not chosen or set(text.split(",")) - set(known):
        raise SamepageError("is no list of mergers", where=text, hint=f"There are: {', '.join(known)}")
    return chosen
