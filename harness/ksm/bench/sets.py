# SPDX-License-Identifier: MIT
"""Which cases a run is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.ksm.bench.cases import MAPPINGS, Case
from harness.ksm.bench.content import CLASSES
from harness.ksm.bench.programs import CONTENT as PROGRAMS

ALL_CONTENTS = (*CLASSES, "mixed")
MIB = 256
"""Pages."""
GROWTH_PASSES = 2


def content_cases(
    contents: tuple[str, ...], processes: int, pages: int, seeds: int, *, smart: tuple[bool, ...] = (True, False)
) -> Iterator[Case]:
    """Yield passes over these contents, `zero` with and without use_zero_pages."""
    for content in contents:
        for zero in (False, True) if content == "zero" else (False,):
            for smart_scan in smart:
                for seed in range(1, seeds + 1):
                    yield Case("passes", content, processes, pages, seed, smart_scan, zero)


def short_set() -> list[Case]:
    """Fits in ten minutes on two cores."""
    pages = 4 * MIB
    return [
        *content_cases(ALL_CONTENTS, 4, pages, 1),
        *_programs(pages, seeds=1, smart=(True,)),
        *_others(pages, seeds=1),
        *_huge(("same", "unique"), pages, seeds=1),
        *_timing_safe(pages),
        *_machines(pages),
        *_threads(8, pages // 2),
        *_growth(("unique",), sizes=(4 * MIB, 16 * MIB, 64 * MIB), processes=(1, 16, 128), at=16 * MIB),
    ]


def long_set() -> list[Case]:
    """Everything, at the size of 4 x 16 MiB, three seeds, and growth to 4 GiB and 512 processes."""
    pages = 16 * MIB
    return [
        *content_cases(ALL_CONTENTS, 4, pages, 3),
        *_huge(("zero", "same", "groups", "unique", "mixed"), pages, seeds=3),
        *_more(pages),
        *_programs(pages, seeds=3),
        *_others(pages, seeds=3),
        *_timing_safe(pages),
        *_machines(pages),
        *_threads(16, pages),
        *_growth(
            ("unique", "mixed"),
            sizes=(64 * MIB, 256 * MIB, 1024 * MIB, 4096 * MIB),
            processes=(1, 4, 16, 64, 256, 512),
            at=64 * MIB,
        ),
    ]


def _huge(contents: tuple[str, ...], pages: int, seeds: int) -> Iterator[Case]:
    for content in contents:
        for seed in range(1, seeds + 1):
            yield Case("passes", content, 4, pages, seed, huge=True)


def _programs(pages: int, seeds: int, *, smart: tuple[bool, ...] = (True, False)) -> Iterator[Case]:
    for seed in range(1, seeds + 1):
        for smart_scan in smart:
            yield Case("passes", PROGRAMS, 4, pages, seed, smart_scan)
    yield Case("curve", PROGRAMS, 4, pages)
    yield Case("memory", PROGRAMS, 4, pages)


def _others(pages: int, seeds: int) -> Iterator[Case]:
    for seed in range(1, seeds + 1):
        yield Case("curve", "mixed", 4, pages, seed)
        yield Case("time", "mixed", 4, pages, seed)
        yield Case("writes", "same", 4, pages, seed)
        yield Case("unmerge", "mixed", 4, pages, seed)
    yield Case("curve", "groups", 4, pages)
    for content in ("unique", "same"):
        yield Case("memory", content, 4, pages)
    yield Case("memory", "unique", 64, 16)
    yield Case("latency", "mixed", 4, pages)
    yield Case("sparse", "unique", 1, 1024)
    yield Case("rmap", "unique", 2, MAPPINGS)


def _more(pages: int) -> Iterator[Case]:
    """Yield what the short set has no time for."""
    yield Case("curve", "same", 4, pages)
    for content in ("same", "groups"):
        yield Case("unmerge", content, 4, pages)
    yield Case("writes", "zero", 4, pages, use_zero_pages=True)
    for content in ("groups", "mixed"):
        yield Case("memory", content, 4, pages)
    yield Case("latency", "unique", 4, pages)


def _threads(processes: int, pages: int) -> Iterator[Case]:
    for content in ("unique", "same", "mixed"):
        for threads in (1, 2, 4):
            yield Case("threads", content, processes, pages, threads=threads)


def _timing_safe(pages: int) -> Iterator[Case]:
    """Yield what the mode in which every idle page is merged is to be compared by with the usual one."""
    for content in ("same", "unique", "mixed"):
        yield Case("passes", content, 4, pages, timing_safe=True)
    yield Case("curve", "mixed", 4, pages, timing_safe=True)
    yield Case("writes", "same", 4, pages, timing_safe=True)
    yield Case("memory", "mixed", 4, pages, timing_safe=True)


def _machines(pages: int) -> Iterator[Case]:
    """Yield passes over memory whose writes no entry of a page table tells of."""
    for content in ("same", "unique", "mixed"):
        for smart_scan in (True, False):
            yield Case("passes", content, 4, pages, smart_scan=smart_scan, machines=True)
    yield Case("passes", "unique", 4, pages, huge=True, machines=True)


def _growth(contents: tuple[str, ...], sizes: tuple[int, ...], processes: tuple[int, ...], at: int) -> Iterator[Case]:
    """Yield a few passes over `sizes` pages in 4 processes, and over `at` pages in so many processes."""
    for content in contents:
        for size in sizes:
            yield Case("passes", content, 4, size // 4, smart_scan=False, steady_passes=GROWTH_PASSES)
        for count in processes:
            yield Case("passes", content, count, at // count, smart_scan=False, steady_passes=GROWTH_PASSES)


SETS: dict[str, Callable[[], list[Case]]] = {"short": short_set, "long": long_set}
