# SPDX-License-Identifier: MIT
"""The figures of runs in words, side by side where the same workload ran with more than one merger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from harness.ksm.protocol import PAGE_BYTES
from harness.ksm.result import Result, Stage

STATUS_STYLE = {"pass": "bold green", "fail": "bold red", "error": "bold red", "interrupted": "bold yellow"}


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a cell for each run."""

    label: str
    cells: tuple[str, ...]
    hint: str = ""


@dataclass(frozen=True)
class Comparison:
    """All runs of one workload."""

    workload: str
    description: str
    runs: tuple[Result, ...]
    rows: tuple[Row, ...]


def compare(results: Sequence[Result]) -> list[Comparison]:
    """Group runs by workload, in the order in which they ran."""
    comparisons = []
    for workload in dict.fromkeys(result.workload for result in results):
        runs = tuple(result for result in results if result.workload == workload)
        every = (Row(label, tuple(cell(run) for run in runs), hint) for label, cell, hint in _ROWS)
        # Lines of one kind of workload are nothing to say of another.
        rows = tuple(row for row in every if set(row.cells) != {"-"})
        comparisons.append(Comparison(workload, runs[0].description, runs, rows))
    return comparisons


def summary_table(comparison: Comparison) -> Table:
    """Return a comparison for a terminal."""
    title = f"{comparison.workload}: {comparison.description}"
    table = Table(title=title, title_justify="left", title_style="bold", show_lines=False)
    table.add_column("")
    for run in comparison.runs:
        table.add_column(run.merger, justify="right")
    for row in comparison.rows:
        table.add_row(row.label, *(Text(cell, style=STATUS_STYLE.get(cell, "")) for cell in row.cells))
    return table


def megabytes(value: int | None) -> str:
    """Return bytes as MiB."""
    return "-" if value is None else f"{value / 2**20:.1f} MiB"


def of_expected(stage: Stage | None) -> str:
    """Return how much of what is possible was merged."""
    if stage is None:
        return "-"
    if not stage.pages_expected:
        return f"{stage.pages_merged:,}"
    percent = 100 * stage.pages_merged / stage.pages_expected
    return f"{stage.pages_merged:,} of {stage.pages_expected:,} ({percent:.1f}%)"


def scanner_seconds(stage: Stage | None) -> float | None:
    """Return CPU seconds of the merging threads up to a stage."""
    return None if stage is None or stage.scanner_cpu_ns is None else stage.scanner_cpu_ns / 1e9


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _cow(result: Result) -> str:
    return f"{result.cow.broken:,} of {result.cow.writes:,}" if result.cow.writes else "-"


def _scans(result: Result) -> str:
    stage = result.stage("merged")
    return "-" if stage is None else f"{stage.counters.get('full_scans', 0):,}"


def _machines(result: Result) -> str:
    found = result.machines
    return "-" if found is None else f"{found.started} of {found.asked} of {found.memory_mib} MiB"


def _together(result: Result) -> str:
    if result.machines is None:
        return "-"
    host = result.guest["memory_mib"]
    return f"{result.machines.together_mib:,} MiB on {host:,} MiB ({result.machines.together_mib / host:.2f}x)"


def _zeros(result: Result) -> str:
    return "-" if result.machines is None else megabytes(result.machines.zero_pages * PAGE_BYTES)


def _left(result: Result) -> str:
    return "-" if result.machines is None else megabytes(result.machines.available_bytes)


_EMULATED = "In the guest's own time: under an emulated CPU neither real time nor a measure of cost."

_ROWS: tuple[tuple[str, Callable[[Result], str], str], ...] = (
    ("status", lambda run: run.status, ""),
    (
        "merged",
        lambda run: of_expected(run.stage("merged")),
        "Pages that need no frame of their own, of those possible.",
    ),
    (
        "merged at the end",
        lambda run: of_expected(run.stage("final")),
        "Once copies were broken, and what was left was merged again.",
    ),
    ("saved", lambda run: megabytes(stage.saved_bytes if (stage := run.stage("merged")) else None), "By the counters."),
    (
        "more memory free",
        lambda run: megabytes(stage.freed_bytes if (stage := run.stage("merged")) else None),
        "MemFree and the CPUs' free lists, against before merging: whatever else the guest did is in it.",
    ),
    ("95 % merged after", lambda run: _seconds(run.milestones.get("95")), _EMULATED),
    ("scanner CPU time", lambda run: _seconds(scanner_seconds(run.stage("merged"))), _EMULATED),
    ("full scans", _scans, ""),
    ("virtual machines", _machines, "As many as were asked for, or as the guest's memory holds while merging runs."),
    ("their memory together", _together, "Against the memory of the guest that they run in."),
    (
        "zero pages beside",
        _zeros,
        "Of empty parts of huge pages that were split (Linux 6.12 and later), in no counter.",
    ),
    ("memory left", _left, "MemAvailable of the guest with all machines running, merged."),
    ("copies broken", _cow, "Writes to merged pages after which the writer had a page of its own."),
    ("pages compared", lambda run: f"{sum(stage.pages_checked for stage in run.stages):,}", "Over all stages."),
    (
        "wrong pages",
        lambda run: str(max(run.cow.content_errors, sum(stage.content_errors for stage in run.stages))),
        "",
    ),
    ("kernel complaints", lambda run: str(len(run.splats)), "BUG, WARNING, Oops, stalls ... in the kernel's log."),
    ("whole run", lambda run: f"{run.seconds:.0f} s", "On the host, with booting the guest."),
)
