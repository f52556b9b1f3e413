# SPDX-License-Identifier: MIT
"""Figures side by side: a row for each metric of a case, mean over its seeds, and the ratio of the mergers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

import msgspec
from rich.table import Table

from harness.ksm.bench.cases import Case
from harness.ksm.bench.result import BenchResult, Figure
from harness.ksm.result import Merger

KINDS = {
    "passes": "Scanning: instructions of the merging threads",
    "curve": "How soon savings come, in instructions of the merging threads",
    "time": "How soon savings come, in virtual time (ns, which are instructions) of a merger that never sleeps",
    "writes": "Writes, and unmerging by madvise",
    "unmerge": "Unmerging everything",
    "memory": "Kernel memory",
    "latency": "Longest time that a real-time task waits (interrupts or preemption off, preempt=full)",
    "rmap": "Migration of a merged page that a process with 1000 mappings, its 4 children and another process share",
    "threads": "Several merging threads, and as many CPUs: instructions of all CPUs until a pass is over",
    "sparse": "A mapping of 32 TiB and one of 32 GiB, 1024 pages in each",
}
MERGERS: tuple[Merger, ...] = get_args(Merger)


@dataclass(frozen=True)
class Row:
    """A metric of a case: its mean over the seeds for each merger, None where it was not measured."""

    case: Case
    metric: str
    unit: str
    values: dict[Merger, float]
    spread: float
    """Largest difference of a seed's from the mean, as a part of it."""

    @property
    def ratio(self) -> float | None:
        """Samepage's over in-tree's."""
        ours, theirs = self.values.get("samepage"), self.values.get("in-tree")
        return None if ours is None or not theirs else ours / theirs

    @property
    def size(self) -> str:
        """Processes and memory of each."""
        return f"{self.case.processes} x {self.case.pages / 256:g} MiB"


def rows(figures: Iterable[Figure]) -> list[Row]:
    """Return a row for each metric of each case, seeds taken together."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        case = msgspec.structs.replace(figure.case, seed=0)
        groups.setdefault((case.name, figure.metric), []).append(figure)
    return [_row(group) for group in groups.values()]


def _row(group: list[Figure]) -> Row:
    values: dict[Merger, float] = {}
    spread = 0.0
    for merger in MERGERS:
        own = [figure.value for figure in group if figure.merger == merger]
        if own:
            mean = fmean(own)
            values[merger] = mean
            spread = max(spread, max(abs(value - mean) for value in own) / abs(mean) if mean else 0)
    return Row(group[0].case, group[0].metric, group[0].unit, values, spread)


def number(value: float | None) -> str:
    """Return a figure with as many digits as say something."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.1f}"


def ratio(value: float | None) -> str:
    """Return a ratio with two digits that say something."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def tables(result: BenchResult) -> list[Table]:
    """Return a table for each kind of case."""
    shown = []
    everything = rows(result.figures)
    for kind, title in KINDS.items():
        chosen = [row for row in everything if row.case.kind == kind]
        if not chosen:
            continue
        table = Table(title=title, box=None, title_justify="left", title_style="bold")
        for name in ("content", "size", "metric"):
            table.add_column(name)
        for name in (*MERGERS, "ratio", "unit"):
            table.add_column(name, justify="right" if name != "unit" else "left")
        for row in chosen:
            cells = [number(row.values.get(merger)) for merger in MERGERS]
            table.add_row(row.case.title, row.size, row.metric, *cells, ratio(row.ratio), row.unit)
        shown.append(table)
    return shown
