# SPDX-License-Identifier: MIT
"""What each page of each process is to hold: from a workload and a seed alone, the same anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.ksm.chance import Chance
from harness.ksm.content import Kind, Words
from harness.ksm.workload import Content, Forked, Groups, Prefix, Rewritten, Same, Synthetic, Unique, Zero


@dataclass(frozen=True)
class Filling:
    """Contents for consecutive pages."""

    kinds: NDArray[np.uint8]
    keys: Words


@dataclass(frozen=True)
class AreaPlan:
    """One area of a process."""

    filling: Filling
    thp: bool
    rewrite_key: int = 0
    rewrite_per_second: float = 0


@dataclass(frozen=True)
class ForkPlan:
    """An area that is filled before the process forks, and what its children write into it then."""

    area: AreaPlan
    children: int
    written: Filling


@dataclass(frozen=True)
class ProcessPlan:
    """All that one process does before merging begins: fork, then fill its areas."""

    fork: ForkPlan | None
    areas: tuple[AreaPlan, ...]


def plan(workload: Synthetic, seed: int) -> list[ProcessPlan]:
    """Plan every process."""
    forks: Sequence[ForkPlan | None] = [None] * workload.processes
    columns: list[list[AreaPlan]] = []
    for index, content in enumerate(workload.content):
        # The index keeps two classes of the same kind apart.
        chance = Chance(seed, "content", index)
        areas = _areas(content, workload.processes, chance)
        if isinstance(content, Forked):
            written = _filled(np.uint64(chance.word()) + np.arange(content.written, dtype=np.uint64))
            forks = [ForkPlan(area, content.children, written) for area in areas]
        else:
            columns.append(areas)
    return [
        ProcessPlan(forks[process], tuple(column[process] for column in columns))
        for process in range(workload.processes)
    ]


def _areas(content: Content, processes: int, chance: Chance) -> list[AreaPlan]:
    """Plan one class of content: an area for each process."""
    base = np.uint64(chance.word())
    if isinstance(content, Groups):
        fillings = _dealt(content, base, processes, chance)
    else:
        fillings = [_filling(content, base, process) for process in range(processes)]
    if not isinstance(content, Rewritten):
        return [AreaPlan(filling, content.thp) for filling in fillings]
    keys = chance.words(processes).tolist()
    return [
        AreaPlan(filling, content.thp, key, content.per_second) for filling, key in zip(fillings, keys, strict=True)
    ]


def _filling(content: Zero | Same | Forked | Unique | Rewritten | Prefix, base: np.uint64, process: int) -> Filling:
    count = np.arange(content.pages, dtype=np.uint64)
    own = count + np.uint64(process * content.pages)
    match content:
        case Zero():
            return Filling(np.full(content.pages, Kind.ZERO, np.uint8), np.zeros(content.pages, np.uint64))
        case Same():
            return _filled(base + count)
        case Forked():
            return _filled(base + (count if content.content == "same" else own))
        case Unique() | Rewritten():
            return _filled(base + own)
        case Prefix():
            family = base & np.uint64(0xFFFF_FFFF_0000_0000)
            return Filling(np.full(content.pages, Kind.PREFIX, np.uint8), family + own)


def _filled(keys: Words) -> Filling:
    return Filling(np.full(len(keys), Kind.FILLED, np.uint8), keys)


def _dealt(content: Groups, base: np.uint64, processes: int, chance: Chance) -> list[Filling]:
    """Deal all pages of all processes to groups."""
    total = content.pages * processes
    group = chance.order(total) // content.group
    keys = base + group.astype(np.uint64)
    return [_filled(part) for part in np.split(keys, processes)]
