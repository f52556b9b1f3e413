# SPDX-License-Identifier: MIT
"""`samepage run`: workloads with one merger or both, each in a guest of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from harness.cli.options import configured, no_snapshot, run_name
from harness.config import Config
from harness.errors import SamepageError
from harness.ksm import result
from harness.ksm.compare import STATUS_STYLE, compare, summary_table
from harness.ksm.display import Display
from harness.ksm.result import Collection, Merger, Result
from harness.ksm.runner import Job, prepare
from harness.ksm.runner import run as carry_out
from harness.ksm.workload import Machines, Workload, available, load, with_machines, with_processes
from harness.progress import console

DEFAULT_WORKLOADS = ("mixed", "programs")
EXIT_CODES = {"pass": 0, "fail": 1, "error": 2, "interrupted": 130}


@click.command(epilog=f"Workloads that come with the harness: {', '.join(available())}.")
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]...")
@click.option(
    "--merger", type=click.Choice([*get_args(Merger), "both"]), default="both", show_default=True, help="What merges."
)
@click.option("--kernel", help="The recipe to boot; the configured one when not given.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Chooses all contents.")
@click.option("--name", help="Of the folder under runs/; the time when not given.")
@click.option(
    "--memory", "--host-memory", type=click.IntRange(512, 1 << 20), metavar="MIB", help="Memory of the guest."
)
@click.option("--processes", type=click.IntRange(1, 512), help="Processes, in place of what the workload says.")
@click.option("--vms", type=click.IntRange(1, 1024), help="Virtual machines, in place of what the workload says.")
@click.option("--vm-memory", type=click.IntRange(96, 1 << 16), metavar="MIB", help="Memory of each virtual machine.")
@no_snapshot
def run(
    workloads: tuple[str, ...],
    merger: str,
    kernel: str | None,
    seed: int,
    name: str | None,
    memory: int | None,
    processes: int | None,
    vms: int | None,
    vm_memory: int | None,
    no_snapshot: bool,
) -> int:
    """Run workloads (names, or paths of .toml files) and report; `mixed` and `programs` when none is named.

    Leaves result.json, report.html, counters.csv and console.log in runs/NAME, or in a folder there for each run when
    there are several; runs/latest points at it.
    """
    config = configured(kernel=kernel, no_snapshot=no_snapshot)
    mergers: list[Merger] = list(get_args(Merger)) if merger == "both" else [_merger(merger)]
    chosen = [(_short(word), load(word)) for word in workloads or DEFAULT_WORKLOADS]
    if processes is not None:
        chosen = [(word, with_processes(workload, processes)) for word, workload in chosen]
    if vms is not None or vm_memory is not None:
        chosen = [(word, with_machines(workload, vms, vm_memory)) for word, workload in chosen]
    jobs = _plan_jobs(config, chosen, mergers, config.kernel, seed, run_name(name), memory)
    machines = any(isinstance(workload, Machines) for _, workload in chosen)
    material = prepare(config, config.kernel, mergers, machines=machines)
    results = []
    for job in jobs:
        with Display(f"{job.workload_name}, {job.merger}").shown() as display:
            outcome = carry_out(config, job, material, display)
        results.append(outcome)
        _write_report(outcome, job.folder)
        result.point_latest(config.runs, _top(jobs))
        _say(outcome)
    if len(jobs) > 1:
        _write_collection(config.runs / _top(jobs), results, jobs)
    for comparison in compare(results):
        click.echo()
        console.print(summary_table(comparison))
    click.echo(f"report: {config.runs / _top(jobs) / 'report.html'}")
    return EXIT_CODES[result.worst(results)]


def _merger(text: str) -> Merger:
    return next(merger for merger in get_args(Merger) if merger == text)


def _short(word: str) -> str:
    return Path(word).stem if word.endswith(".toml") else word


def _plan_jobs(
    config: Config,
    chosen: Sequence[tuple[str, Workload]],
    mergers: Sequence[Merger],
    kernel: str,
    seed: int,
    name: str,
    memory: int | None,
) -> list[Job]:
    top = config.runs / name
    if top.exists():
        raise SamepageError("exists already", where=top, hint="Choose another --name, or remove the folder.")
    pairs = [(word, workload, merger) for word, workload in chosen for merger in mergers]
    if len({(word, merger) for word, _, merger in pairs}) < len(pairs):
        raise SamepageError("the same workload is named twice")
    jobs = []
    for word, workload, merger in pairs:
        folder = top if len(pairs) == 1 else top / f"{word}-{merger}"
        own_name = folder.relative_to(config.runs).as_posix()
        jobs.append(Job(own_name, word, workload, merger, seed, kernel, memory, folder))
    return jobs


def _top(jobs: Sequence[Job]) -> str:
    return Path(jobs[0].name).parts[0]


def _say(outcome: Result) -> None:
    status = f"[{STATUS_STYLE[outcome.status]}]{outcome.status}[/]"
    console.print(f"{outcome.workload}, {outcome.merger}: {status}, {outcome.seconds:.0f} s")
    if outcome.error:
        console.print(outcome.error, markup=False)


def _write_report(outcome: Result, folder: Path) -> None:
    # Imported when needed: the plots take a while to load.
    from harness.ksm.report import write_report

    write_report(outcome, folder)


def _write_collection(top: Path, results: list[Result], jobs: Sequence[Job]) -> None:
    from harness.ksm.report import write_comparison

    result.write(Collection(name=top.name, status=result.worst(results), runs=results), top)
    write_comparison(results, [job.folder for job in jobs], top)
