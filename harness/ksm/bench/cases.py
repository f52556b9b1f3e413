# SPDX-License-Identifier: MIT
"""Cases: what is done with which memory, as a script for the measuring guest (images/bench/script.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import msgspec

from harness.ksm.bench.content import MADV_MERGEABLE, MADV_UNMERGEABLE, Memory, memory_of
from harness.ksm.bench.programs import CONTENT as PROGRAMS
from harness.ksm.bench.programs import FILES_MIB, ProgramMemory
from harness.ksm.content import Kind as PageKind
from harness.ksm.result import Merger

Kind = Literal["passes", "curve", "time", "writes", "unmerge", "memory", "latency", "sparse", "rmap", "threads"]
STEADY_PASSES = 20
CURVE_ROUNDS = 64
"""Rounds of a pass in a curve."""
CURVE_PASSES = 12
"""After which a curve ends, whether everything is saved or not."""
LOOK_US, LOOKS = 1000, 30000
"""How often, and how many times at most, one looks how much is saved while the merger never sleeps."""
SYSTEM_MIB = 192
SPARSE_BYTES = 32 << 40
UNMERGED_BYTES = 32 << 30
SPARSE_PAGES = 1024
"""In each of the two."""
WRITTEN = 512
"""Pages that each way of writing is measured with."""
MAPPINGS, CHILDREN = 1000, 4
"""Of a process, one of whose pages is merged, and how often it forks."""
THREADED_PASSES = ("first", "second", "third")
STEPS = "anon_vma_interval_tree_iter_next anon_rmap_tree_iter_next"
"""Kernel functions that go from mapping to mapping: of 6.12, and of 7.3."""


class Case(msgspec.Struct, frozen=True):
    """One guest's work, but for the merger and the kernel."""

    kind: Kind
    content: str
    processes: int
    pages: int
    """In each process."""
    seed: int = 1
    smart_scan: bool = True
    use_zero_pages: bool = False
    huge: bool = False
    """Transparent huge pages."""
    steady_passes: int = STEADY_PASSES
    threads: int = 1
    """That merge, and CPUs of the guest."""
    timing_safe: bool = False
    """The module's mode in which every idle page is a merged one."""
    machines: bool = False
    """Each process has a virtual machine, as QEMU's have: KVM may write to its memory through tables of its own."""

    @property
    def name(self) -> str:
        """A name that says all of it."""
        settings = f"smart{self.smart_scan:d}-zero{self.use_zero_pages:d}-huge{self.huge:d}"
        size = f"{self.processes}x{self.pages}"
        more = f".threads{self.threads}" if self.kind == "threads" else ""
        more += ".timing-safe" if self.timing_safe else ""
        more += ".machines" if self.machines else ""
        return f"{self.kind}.{self.content}.{settings}.{size}.passes{self.steady_passes}.seed{self.seed}{more}"

    @property
    def title(self) -> str:
        """Content and settings, for people."""
        marks = [
            "huge pages" if self.huge else "",
            "use_zero_pages" if self.use_zero_pages else "",
            "" if self.smart_scan else "smart_scan off",
            f"threads: {self.threads}" if self.kind == "threads" else "",
            "timing-safe" if self.timing_safe else "",
            "virtual machines" if self.machines else "",
        ]
        return ", ".join([self.content, *(mark for mark in marks if mark)])

    def suits(self, merger: Merger) -> bool:
        """Whether the merger has what is measured."""
        return merger == "samepage" or not self.timing_safe

    @property
    def has_programs(self) -> bool:
        """Whether the processes are real programs."""
        return self.content == PROGRAMS

    @property
    def memory(self) -> Memory | ProgramMemory:
        """What the processes hold."""
        if self.has_programs:
            return ProgramMemory(self.processes, self.pages // 256, self.seed)
        return memory_of(self.content, self.processes, self.pages, self.seed, huge=self.huge)

    @property
    def memory_mib(self) -> int:
        """How much memory the guest needs."""
        if self.kind == "rmap":
            return 1024
        more = FILES_MIB if self.has_programs else 0
        return self.memory.pages // 256 * 5 // 4 + self.processes // 4 + SYSTEM_MIB + more

    @property
    def cpus(self) -> int:
        """One for each thread that merges."""
        return self.threads

    @property
    def arguments(self) -> tuple[str, ...]:
        """More arguments for the guest's kernel."""
        return _ARGUMENTS.get(self.kind, ())

    @property
    def kernel_modules(self) -> tuple[str, ...]:
        """Of the kernel's own, those that the guest needs."""
        return ("kvm-amd",) if self.machines else ()

    def script(self) -> str:
        """Return the lines that the guest carries out."""
        return "".join(f"{line}\n" for line in self._lines())

    def settings(self) -> Iterator[str]:
        """Yield the lines that set how the merger scans."""
        yield f"set /sys/kernel/mm/ksm/smart_scan {self.smart_scan:d}"
        yield f"ksm use_zero_pages {self.use_zero_pages:d}"
        if self.timing_safe:
            yield "set /sys/kernel/mm/samepage/timing_safe 1"

    def _lines(self) -> Iterator[str]:
        yield from self.settings()
        if self.huge:  # a small guest's kernel switches them off
            yield "set /sys/kernel/mm/transparent_hugepage/enabled madvise"
        yield from SCRIPTS[self.kind](self)
        yield "end"


def filled(case: Case) -> Iterator[str]:
    """Make and register the memory; the scanner is ready to begin."""
    if case.kind == "sparse":
        yield from _scattered(case)
    else:
        yield from case.memory.set_up()
        if case.machines:
            yield from (f"to {process} machine" for process in range(case.processes))
        yield from case.memory.register()
    yield "start"


def _passes(case: Case) -> Iterator[str]:
    memory = case.memory
    yield from filled(case)
    yield "counters ready"
    for number in range(1, case.steady_passes + 3):
        yield f"passes {('first', 'second')[number - 1] if number < 3 else 'steady'} 1"
        yield from memory.rewrite(number)
    yield from memory.verify()


def _target(case: Case) -> int | str:
    """Of programs only the guest knows."""
    memory = case.memory
    return memory.possible(use_zero_pages=case.use_zero_pages) if isinstance(memory, Memory) else "possible"


def _curve(case: Case) -> Iterator[str]:
    yield from filled(case)
    yield f"curve curve {max(case.memory.pages // CURVE_ROUNDS, 1)} {_target(case)} {CURVE_PASSES}"
    yield from case.memory.verify()


def _time(case: Case) -> Iterator[str]:
    yield from filled(case)
    yield f"race race {LOOK_US} {_target(case)} {LOOKS}"


def _writes(case: Case) -> Iterator[str]:
    """Area 0 is merged, area 1 is as ordinary memory, area 2 was never touched."""
    yield from filled(case)
    yield f"to 0 map {WRITTEN} 0"
    yield f"to 0 fill 1 0 {WRITTEN} {PageKind.FILLED:d} {1 << 40} 1"
    yield f"to 0 map {WRITTEN} 0"
    yield "passes merging 4"
    yield f"measure first_touch 0 write 2 0 {WRITTEN}"
    yield f"measure own_page 0 write 1 0 {WRITTEN}"
    yield f"measure fork_copy 0 forkwrite 1 0 {WRITTEN}"
    yield f"measure merged_page 0 write 0 0 {WRITTEN}"
    yield "counters before_advice"
    yield f"measure unmergeable 1 advise 0 {MADV_UNMERGEABLE}"


def _unmerge(case: Case) -> Iterator[str]:
    yield from filled(case)
    yield "passes merging 4"
    yield "counters before"
    yield "timed unmerge_all run 2"
    yield "counters after"


def _memory(case: Case) -> Iterator[str]:
    yield from case.memory.set_up()
    yield "memory before"
    yield from case.memory.register()
    yield "start"
    yield "memory registered"
    yield "passes merging 4"
    yield "memory merged"


def _latency(case: Case) -> Iterator[str]:
    yield from filled(case)
    yield "watch"
    yield "watched idle"
    for label, passes in (("first", 1), ("second", 1), ("third", 1), ("steady", 5)):
        yield "watch"
        yield f"passes {label}_pass {passes}"
        yield f"watched {label}"
    yield "watch"
    yield "timed unmerge_all run 2"
    yield "watched unmerging"


def _scattered(case: Case) -> Iterator[str]:
    """Set up a process with a page here and there in a large mapping, and in a smaller one."""
    yield "spawn 1"
    for area, size in enumerate((SPARSE_BYTES, UNMERGED_BYTES)):
        yield f"to 0 sparse {size}"
        yield f"to 0 scatter {area} {SPARSE_PAGES} {case.seed + area << 40} {size // SPARSE_PAGES}"
        yield f"to 0 advise {area} {MADV_MERGEABLE}"


def _sparse(case: Case) -> Iterator[str]:
    """Pages here and there; in the end the smaller mapping is unmerged.

    In-tree KSM's unmerging looks at every address: for the large one it would take hours here.
    """
    yield from filled(case)
    yield "counters ready"
    for label in ("first", "second", "steady"):
        yield f"passes {label} 1"
    yield f"measure unmergeable 0 advise 1 {MADV_UNMERGEABLE}"


def _threads(case: Case) -> Iterator[str]:
    """Whole passes of several threads; what they have nothing to do with is not told apart."""
    yield f"threads {case.threads}"
    yield from filled(case)
    yield "counters ready"
    for label in THREADED_PASSES:
        yield f"together {label}"


def _rmap(case: Case) -> Iterator[str]:
    """Two processes with one page in common, of which the first has many mappings and children.

    Migration has to find all who map that page. Area 0 of the second is that page; it moves between two NUMA nodes.
    """
    key, page = case.seed << 40, MAPPINGS // 2
    yield "spawn 2"
    yield f"to 0 map {MAPPINGS} 0"
    yield f"to 0 fill 0 0 {MAPPINGS} {PageKind.FILLED:d} {key} 1"
    yield "to 0 protect 0 1 2"
    yield "to 1 map 1 0"
    yield f"to 1 fill 0 0 1 {PageKind.FILLED:d} {key + page} 0"
    for process in (0, 1):
        yield f"to {process} advise 0 {MADV_MERGEABLE}"
    yield "start"
    yield "passes merging 4"
    yield f"to 0 children 0 {CHILDREN}"
    yield "to 1 move 0 0 0"
    yield "measure move 1 move 0 0 1"
    yield f"steps {STEPS}"
    yield "to 1 move 0 0 0"
    yield "stepped steps"


_ARGUMENTS: Mapping[Kind, tuple[str, ...]] = {"latency": ("preempt=full",), "rmap": ("numa=fake=2",)}
SCRIPTS: Mapping[Kind, Callable[[Case], Iterator[str]]] = {
    "passes": _passes,
    "curve": _curve,
    "time": _time,
    "writes": _writes,
    "unmerge": _unmerge,
    "memory": _memory,
    "latency": _latency,
    "sparse": _sparse,
    "rmap": _rmap,
    "threads": _threads,
}
