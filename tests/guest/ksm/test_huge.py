# SPDX-License-Identifier: MIT
"""Huge pages: duplicates in them are found without splitting, and one is split only where that pays."""

from __future__ import annotations

import mmap

import pytest

from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Area
from harness.ksm.protocol import PAGE_BYTES
from tests.guest.ksm.control import RUN, Merger

HUGE = 512  # pages
KEY = 1 << 40
UNIQUE = 1 << 41


@pytest.fixture(autouse=True)
def default_threshold(merger: Merger) -> None:
    merger.set_samepage("huge_min_twins", 64)


def alike(work: MemWork, processes: int, twins: int, *, thp: bool = True) -> list[Area]:
    """Map a huge page in each process, with so many parts the same in all."""
    areas = [work.process().map(pages=HUGE, thp=thp) for _ in range(processes)]
    for number, area in enumerate(areas):
        area.fill(Kind.FILLED, UNIQUE + number * HUGE, step=1)
        area.fill(Kind.FILLED, KEY, step=1, pages=range(7, 7 + twins))
    return areas


def one_pass(merger: Merger, number: int) -> None:
    """Let the scanner, which sleeps for long, make one pass: another time to sleep cuts its nap short."""
    goal = merger["full_scans"] + 1
    merger["sleep_millisecs"] = 600_001 + number
    merger.wait_for_scans(goal)


def in_smaps(merger: Merger, area: Area, name: str) -> int:
    """Return what a line of the process's smaps_rollup says, in bytes."""
    lines = merger.guest.read(f"/proc/{area.process.pid}/smaps_rollup").splitlines()
    (kb,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kb) << 10


def test_few_twins_do_not_split(merger: Merger, work: MemWork) -> None:
    split = merger.samepage("huge_split")
    areas = alike(work, 2, 63)
    merger["run"] = RUN
    merger.passes(6)
    assert merger.counts() == (0, 0, 0)
    assert [in_smaps(merger, area, "AnonHugePages") for area in areas] == [2 << 20, 2 << 20]
    assert merger.samepage("huge_examined") == merger.samepage("huge_spared") == 2
    assert merger.samepage("huge_split") == split

    merger.set_samepage("huge_min_twins", 63)
    merger.merge(work)
    assert merger.counts() == (63, 63, 0) == merger.expected(work)
    assert [in_smaps(merger, area, "AnonHugePages") for area in areas] == [0, 0]
    assert merger.samepage("huge_split") == split + 2
    merger.passes(1)
    assert merger.samepage("huge_examined") == merger.samepage("huge_spared") == 0
    work.check()


def test_enough_twins_split_and_all_of_them_merge(merger: Merger, work: MemWork) -> None:
    alike(work, 3, 64)
    merger.merge(work)
    assert merger.counts() == (64, 128, 0) == merger.expected(work)
    work.check()


def test_equal_parts_of_a_spared_huge_page_hide_nobody(merger: Merger, work: MemWork) -> None:
    """They are filed after a small page and come before it when another one looks for its twin."""
    work.process().map(pages=1).fill(Kind.FILLED, KEY)
    merger["run"] = RUN
    merger.passes(3)
    huge = work.process().map(pages=HUGE, thp=True)
    huge.fill(Kind.FILLED, UNIQUE, step=1)
    huge.fill(Kind.FILLED, KEY, step=0, pages=range(7, 67))
    merger.passes(4)
    assert merger.counts() == (0, 0, 0)
    assert merger["pages_unshared"] == 1 + HUGE - 60 + 4, "of equal parts only some are filed"
    work.process().map(pages=1).fill(Kind.FILLED, KEY)
    merger.passes(4)
    assert merger.counts() == (1, 1, 0)
    merger.set_samepage("huge_min_twins", 60)
    merger.merge(work)
    assert merger.counts() == (1, 61, 0) == merger.expected(work)
    work.check()


def test_a_huge_page_in_use_is_spared(merger: Merger, work: MemWork) -> None:
    areas = alike(work, 2, HUGE - 7)
    merger["sleep_millisecs"] = 600_000
    merger["run"] = RUN
    for number in range(5):
        work.check()  # reads every page
        one_pass(merger, number)
    assert merger.counts() == (0, 0, 0)
    assert in_smaps(merger, areas[0], "AnonHugePages") == 2 << 20
    assert merger.samepage("huge_spared") == 2
    merger.hurry()
    merger.merge(work)
    assert merger.counts() == (HUGE - 7, HUGE - 7, 0) == merger.expected(work)


def test_small_pages_with_twins_in_a_spared_huge_page(merger: Merger, work: MemWork) -> None:
    """They wait for it; when the kernel splits it, they merge."""
    (huge,) = alike(work, 1, 16)
    small = alike(work, 1, 16, thp=False)[0]
    small.fill(Kind.FILLED, UNIQUE + HUGE, step=1, pages=range(7))
    small.fill(Kind.FILLED, UNIQUE + HUGE + 23, step=1, pages=range(23, HUGE))
    merger["run"] = RUN
    merger.passes(5)
    assert merger.counts() == (0, 0, 0)
    assert merger.samepage("huge_spared") == 1
    huge.protect(mmap.PROT_READ, range(100, 101))
    merger.merge(work)
    assert merger.counts() == (16, 16, 0) == merger.expected(work)
    work.check()


def test_zero_parts_of_one_huge_page(merger: Merger, work: MemWork) -> None:
    """Linux 6.12 and later give them the zero page themselves as they split (try_to_map_unused_to_zeropage())."""
    merger["use_zero_pages"] = 1
    area = work.process().map(pages=HUGE, thp=True)
    area.fill(Kind.FILLED, UNIQUE, step=1)
    area.fill(Kind.ZERO, pages=range(32))
    merger["run"] = RUN
    merger.passes(5)
    assert in_smaps(merger, area, "AnonHugePages") == 2 << 20
    before = in_smaps(merger, area, "Anonymous")
    area.fill(Kind.ZERO, pages=range(32, 64))
    merger.passes(5)
    assert in_smaps(merger, area, "AnonHugePages") == 0
    assert in_smaps(merger, area, "Anonymous") == before - 64 * PAGE_BYTES
    work.check()
