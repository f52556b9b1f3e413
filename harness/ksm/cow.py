# SPDX-License-Identifier: MIT
"""Breaking copies: writes to merged pages by chosen processes, and whether each writer got a page of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from harness.ksm.chance import Chance
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Place, Process
from harness.ksm.protocol import PAGE_BYTES
from harness.ksm.workload import CowPlan

_Item = TypeVar("_Item")

WAYS = ("while_merging", "single", "all_writers", "after_fork")


@dataclass
class Tally:
    """Writes of one kind."""

    pages_written: int = 0
    """Pages that were written, merged or not."""
    writes: int = 0
    """Those of them that were merged at that moment."""
    broken: int = 0
    """Those of the merged ones that the writer had for itself afterwards."""


@dataclass
class CowTable:
    """All writes of a run."""

    ways: dict[str, Tally] = field(default_factory=lambda: {way: Tally() for way in WAYS})

    @property
    def writes(self) -> int:
        """Writes to merged pages."""
        return sum(tally.writes for tally in self.ways.values())

    @property
    def broken(self) -> int:
        """Copies that were broken."""
        return sum(tally.broken for tally in self.ways.values())


class CowBreaker:
    """Carries out a plan of writes, all of it chosen by a seed."""

    def __init__(self, work: MemWork, plan: CowPlan, seed: int) -> None:
        self.table = CowTable()
        self._work = work
        self._plan = plan
        self._seed = seed

    def while_merging(self, rounds: int) -> Iterator[None]:
        """Write some pages each time that the caller asks for more, all of them in about `rounds` rounds."""
        chance = Chance(self._seed, "cow while merging")
        # Chosen beforehand: which of them are merged by the time they are written is what the merger makes of it.
        places = _picked(_flat(self._work.duplicates()), self._plan.while_merging, chance)
        size = max(1, -(-len(places) // rounds))
        for start in range(0, len(places), size):
            self._write("while_merging", places[start : start + size], chance)
            yield

    def single(self) -> None:
        """Let one of those who share a page write, for pages of as many contents as there are.

        Where there are fewer contents than pages to write, another sharer of the same content writes too.
        """
        chance = Chance(self._seed, "cow single")
        groups = _picked(list(self._work.duplicates().values()), self._plan.single, chance)
        shuffled = [[group[index] for index in chance.order(len(group))] for group in groups]
        # The first of each group, then the second of each; the last of a group never writes.
        rounds = itertools.zip_longest(*(group[:-1] for group in shuffled))
        places = [place for taken in rounds for place in taken if place is not None]
        self._write("single", places[: self._plan.single], chance)

    def all_writers(self) -> None:
        """Let all who share a page write, one after the other, each something else."""
        chance = Chance(self._seed, "cow all writers")
        groups = _picked(list(self._work.duplicates().values()), self._plan.all_writers, chance)
        self._write("all_writers", _flat(dict(enumerate(groups))), chance)

    def after_fork(self) -> Process | None:
        """Fork a process and let parent and child each write merged pages that they share; return the child."""
        if not self._plan.after_fork:
            return None
        chance = Chance(self._seed, "cow after fork")
        # The process with the most to write to; the first of several.
        groups = self._work.duplicates()
        counts = dict.fromkeys(self._work.processes, 0)
        for place in _flat(groups):
            counts[place.area.process] += 1
        parent = max(counts, key=lambda process: counts[process])
        child = parent.fork()
        mine = [place for place in _flat(groups) if place.area.process is parent]
        picked = _picked(mine, 2 * self._plan.after_fork, chance)
        for_parent, for_child = picked[::2], picked[1::2]
        twins = dict(zip(map(id, parent.areas), child.areas, strict=True))
        self._write("after_fork", for_parent, chance)
        self._write("after_fork", [Place(twins[id(place.area)], place.page) for place in for_child], chance)
        return child

    def _write(self, way: str, places: Sequence[Place], chance: Chance) -> None:
        """Write eight bytes somewhere in each page, and count."""
        before = self._work.merged(places)
        by_area: dict[int, list[Place]] = {}
        for place in places:
            by_area.setdefault(id(place.area), []).append(place)
        with self._work.together():
            for group in by_area.values():
                group[0].area.poke_each([(place.page, chance.below(PAGE_BYTES - 7), chance.word()) for place in group])
        after = self._work.merged(places)
        tally = self.table.ways[way]
        tally.pages_written += len(places)
        tally.writes += sum(before)
        tally.broken += sum(was and not still for was, still in zip(before, after, strict=True))


def _flat(groups: dict[int, list[Place]]) -> list[Place]:
    return [place for group in groups.values() for place in group]


def _picked(items: list[_Item], count: int, chance: Chance) -> list[_Item]:
    """Pick at most `count` of them, in the order in which they were given."""
    return [items[index] for index in sorted(chance.order(len(items))[:count].tolist())]
