# SPDX-License-Identifier: MIT
"""Content classes: which lines fill the memory of the processes, and how many pages of it merging can save."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.ksm.chance import Chance
from harness.ksm.content import Kind

MADV_MERGEABLE, MADV_UNMERGEABLE = 12, 13
MAX_PAGE_SHARING = 256
GROUP = 4
CLASSES = ("zero", "same", "groups", "unique", "prefix", "colliding", "rewritten")
MIXED = {"zero": 8, "same": 8, "groups": 4, "unique": 4, "prefix": 8, "rewritten": 8}
"""Each class's share of the mixed case: one page in so many."""


@dataclass(frozen=True)
class Memory:
    """Processes, and what the areas of each hold: (class, pages) in order."""

    processes: int
    areas: tuple[tuple[str, int], ...]
    seed: int
    huge: bool = False

    @property
    def pages(self) -> int:
        """All pages of all processes."""
        return self.processes * sum(pages for _, pages in self.areas)

    def set_up(self) -> Iterator[str]:
        """Yield the lines that make the processes and fill their memory; nothing is registered yet."""
        yield f"spawn {self.processes}"
        for process in range(self.processes):
            for area, (name, pages) in enumerate(self.areas):
                yield f"to {process} map {pages} {int(self.huge)}"
                yield f"to {process} {self._filling(process, area, name, pages)}"

    def register(self, advice: int = MADV_MERGEABLE) -> Iterator[str]:
        """Yield the lines that say MADV_MERGEABLE for everything."""
        for process in range(self.processes):
            for area in range(len(self.areas)):
                yield f"to {process} advise {area} {advice}"

    def rewrite(self, round_: int) -> Iterator[str]:
        """Yield the lines that overwrite every page of the class `rewritten` with what was never there."""
        for process in range(self.processes):
            for area, (name, pages) in enumerate(self.areas):
                if name == "rewritten":
                    yield f"to {process} {self._filling(process, area, name, pages, round_)}"

    def verify(self) -> Iterator[str]:
        """Yield nothing: nobody looks at these processes' memory in the end."""
        yield from ()

    def possible(self, *, use_zero_pages: bool) -> int:
        """Return how many pages merging can save (max_page_sharing is the kernel's default)."""
        saved = 0
        for name, pages in self.areas:
            total = pages * self.processes
            if name == "zero":
                saved += total if use_zero_pages else _saved(total)
            elif name == "same":
                saved += pages * _saved(self.processes)
            elif name == "groups":
                saved += total // GROUP * _saved(GROUP)
        return saved

    def _filling(self, process: int, area: int, name: str, pages: int, round_: int = 0) -> str:
        chance = Chance(self.seed, "bench", name)
        base, total = chance.word() >> 1, pages * self.processes
        own = base + process * pages
        match name:
            case "zero":
                return f"fill {area} 0 {pages} {Kind.ZERO:d} 0 0"
            case "same":
                return f"fill {area} 0 {pages} {Kind.FILLED:d} {base} 1"
            case "groups":
                factor = _coprime(chance.below(total), total)
                return f"deal {area} 0 {pages} {base} {process * pages} {factor} {total} {GROUP}"
            case "prefix" | "colliding":
                family = base & 0x7FFF_FFFF_0000_0000
                kind = Kind.PREFIX if name == "prefix" else Kind.WORD
                return f"fill {area} 0 {pages} {kind:d} {family + process * pages} 1"
            case _:
                return f"fill {area} 0 {pages} {Kind.FILLED:d} {own + round_ * total} 1"


def memory_of(name: str, processes: int, pages: int, seed: int, *, huge: bool = False) -> Memory:
    """Return the memory of a class with so many pages in each process; `mixed` is all of them."""
    areas = tuple((part, pages // share) for part, share in MIXED.items()) if name == "mixed" else ((name, pages),)
    return Memory(processes, areas, seed, huge)


def _saved(count: int) -> int:
    """Of `count` equal pages: one frame for each max_page_sharing of them stays."""
    full, rest = divmod(count, MAX_PAGE_SHARING)
    return count - full - (rest > 0)


def _coprime(start: int, total: int) -> int:
    """Return a factor with which i -> i * factor % total visits every number once."""
    import math

    factor = max(start, total // 3) | 1
    while math.gcd(factor, total) != 1:
        factor += 2
    return factor
