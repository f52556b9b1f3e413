# SPDX-License-Identifier: MIT
"""Cases: what is done with which memory, as a script for the measuring guest, and what its records say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from harness.ksm.bench.content import Memory, memory_of
from harness.ksm.bench.records import Record, labelled

STEADY_PASSES = 20
SYSTEM_MIB = 192


@dataclass(frozen=True)
class Case:
    """One guest's work, but for the merger and the kernel."""

    kind: str
    """What is measured: passes."""
    content: str
    processes: int
    pages: int
    """In each process."""
    seed: int
    smart_scan: bool = True
    use_zero_pages: bool = False
    steady_passes: int = STEADY_PASSES

    @property
    def name(self) -> str:
        """A name that says all of it."""
        size = f"{self.processes}x{self.pages}"
        return f"{self.kind}.{self.content}.{self.variant}.{size}.seed{self.seed}"

    @property
    def variant(self) -> str:
        """The settings that it is measured with."""
        return f"smart{int(self.smart_scan)}-zero{int(self.use_zero_pages)}"

    @property
    def memory(self) -> Memory:
        """What the processes hold."""
        return memory_of(self.content, self.processes, self.pages, self.seed)

    @property
    def memory_mib(self) -> int:
        """How much memory the guest needs."""
        return self.memory.pages // 256 * 5 // 4 + SYSTEM_MIB

    def script(self) -> str:
        """Return the lines that the guest carries out."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        memory = self.memory
        yield f"set /sys/kernel/mm/ksm/smart_scan {int(self.smart_scan)}"
        yield f"ksm use_zero_pages {int(self.use_zero_pages)}"
        yield from memory.set_up()
        yield from memory.register()
        yield "start"
        yield "counters ready"
        for number in range(1, self.steady_passes + 3):
            yield f"passes {('first', 'second')[number - 1] if number < 3 else 'steady'} 1"
            yield from memory.rewrite(number)
        yield "end"


@dataclass(frozen=True)
class Passes:
    """Instructions of the merging threads per page and pass."""

    first: float
    second: float
    steady: tuple[float, ...]
    saved: int
    possible: int
    metadata_bytes: int | None

    @property
    def steady_mean(self) -> float:
        """Mean over the passes after the second."""
        return sum(self.steady) / len(self.steady)


def passes_of(case: Case, records: list[Record]) -> Passes:
    """Return what a case of the kind `passes` measured."""
    pages = case.memory.pages
    readings = [
        *labelled(records, "ready"),
        *labelled(records, "first"),
        *labelled(records, "second"),
        *labelled(records, "steady"),
    ]
    costs = [(after["scanner_ns"] - before["scanner_ns"]) / pages for before, after in itertools.pairwise(readings)]
    last = readings[-1]
    return Passes(
        first=costs[0],
        second=costs[1],
        steady=tuple(costs[2:]),
        saved=last.saved,
        possible=case.memory.possible(use_zero_pages=case.use_zero_pages),
        metadata_bytes=last.values.get("samepage.metadata_bytes"),
    )
