# SPDX-License-Identifier: MIT
"""Writing to merged pages: each writer gets its own copy, nobody else sees it."""

from __future__ import annotations

import pytest

from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.ksm.processes import PFN_MASK, Advice, Area
from harness.ksm.protocol import PAGE_BYTES
from tests.guest.ksm.control import RUN, STOP, UNMERGE, Merger

PAGES = 300
KEY = 5 << 40


def merged(merger: Merger, work: MemWork, processes: int = 4) -> None:
    for _ in range(processes):
        area = work.process().map(pages=PAGES)
        area.fill(Kind.FILLED, KEY, step=1, pages=range(PAGES - 50))
        area.fill(Kind.ZERO, pages=range(PAGES - 50, PAGES))
    merger.merge(work)
    assert merger.counts() == merger.expected(work)


def test_single_writer(merger: Merger, work: MemWork) -> None:
    merger["use_zero_pages"] = 1
    merged(merger, work)
    area = work.areas[1]
    area.poke_each([(page, 8 * (page % 512), page + 1) for page in range(PAGES)])
    assert not area.merged_pages().any()
    assert all(other.merged_pages().all() for other in work.areas if other is not area)
    work.check()
    merger.passes(1)
    assert merger["ksm_zero_pages"] == 3 * 50


def test_all_writers(merger: Merger, work: MemWork) -> None:
    merged(merger, work)
    for number, area in enumerate(work.areas):
        area.poke_each([(page, 4088, number) for page in range(0, PAGES, 2)])
    work.check()
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()


def test_same_write_everywhere_merges_again(merger: Merger, work: MemWork) -> None:
    merged(merger, work)
    for area in work.areas:
        area.poke_each([(page, 0, 77) for page in range(100)])
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()


def test_writes_while_merging_goes_on(merger: Merger, work: MemWork) -> None:
    areas = [work.process().map(pages=PAGES) for _ in range(4)]
    for area in areas:
        area.fill(Kind.FILLED, KEY, step=1)
    merger["run"] = RUN
    for turn in range(40):
        for number, area in enumerate(areas):
            area.poke_each([(page, 8 * turn, number) for page in range(turn, PAGES, 7)])
        if turn % 10 == 9:
            work.check()
    merger.merge(work)
    work.check()


def frames(area: Area) -> list[int]:
    return [int(frame) for frame in area.frames()["pagemap"] & PFN_MASK]


def test_who_is_left_with_a_merged_page_keeps_it(merger: Merger, work: MemWork) -> None:
    """Told to unmerge all, the module copies a page for all who share it but the last one."""
    for _ in range(3):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    child = work.processes[0].fork()
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    shared = frames(work.areas[0])
    unmerged = merger.samepage("unmerged")
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    assert merger.samepage("unmerged") - unmerged == 4 * PAGES
    after = [frames(area) for area in work.areas]
    assert len({frame for area in after for frame in area}) == 4 * PAGES
    kept = sum(frame in mapped for frame, *mapped in zip(shared, *after, strict=True))
    # A few may be held for a moment, by a CPU's list of the pages that were used last.
    assert kept > 0.8 * PAGES
    assert not any(area.merged_pages().any() for area in work.areas)
    child.exit()
    for number, area in enumerate(work.areas):
        area.poke_each([(page, 8 * number, number + 1) for page in range(0, PAGES, 2)])
    work.check()
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()


def test_who_maps_a_page_twice_keeps_it_once(merger: Merger, work: MemWork) -> None:
    """Also where both are found in one go: the second one is the last by the time it is its turn."""
    half = PAGES // 2
    area = work.process().map(pages=PAGES)
    for page in range(PAGES):
        area.fill(Kind.FILLED, KEY + page // 2, pages=range(page, page + 1))
    merger.merge(work)
    assert merger.counts() == (half, half, 0)
    shared = frames(area)
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    after = frames(area)
    assert len(set(after)) == PAGES
    kept = sum(before == frame for before, frame in zip(shared, after, strict=True))
    assert 0.8 * half < kept <= half
    work.check()


def test_a_process_that_asks_gets_copies(merger: Merger, work: MemWork) -> None:
    """Else the time that it takes would tell whether somebody else has the page yet."""
    areas = [work.process().map(pages=PAGES) for _ in range(2)]
    for area in areas:
        area.fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    shared = frames(areas[0])
    assert frames(areas[1]) == shared
    areas[1].poke_each([(page, 0, 1) for page in range(PAGES)])
    areas[0].advise(Advice.UNMERGEABLE)
    assert not areas[0].merged_pages().any()
    assert not any(before == after for before, after in zip(shared, frames(areas[0]), strict=True))
    work.check()


@pytest.mark.parametrize("thp", [False, True])
def test_a_page_shared_by_fork_is_not_merged_with_itself(merger: Merger, work: MemWork, thp: bool) -> None:
    """Nothing can be saved, so nothing is counted: and a huge page is not split for it."""
    parent = work.process()
    area = parent.map(pages=512, thp=thp)
    area.fill(Kind.FILLED, KEY, step=1)
    before = area.frames()["pagemap"] & PFN_MASK
    parent.fork()
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (0, 0, 0) == merger.expected(work)
    assert (area.frames()["pagemap"] & PFN_MASK == before).all()
    smaps = merger.guest.read(f"/proc/{parent.pid}/smaps_rollup")
    assert ("AnonHugePages:      2048 kB" in smaps) == thp
    work.check()


@pytest.mark.parametrize("lost", ["none", "candidate", "other"])
def test_late_equals_of_pages_shared_by_fork(merger: Merger, work: MemWork, lost: str) -> None:
    """Of two that map one page only one is a candidate: the other is found all the same, and takes its place."""
    parent = work.process()
    parent.map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    child = parent.fork()
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (0, 0, 0)
    if lost != "none":
        (parent if lost == "candidate" else child).exit()
        merger.passes(2)
    work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.passes(5)
    assert merger.counts() == (PAGES, PAGES if lost != "none" else 2 * PAGES, 0) == merger.expected(work)
    work.check()


def test_fork_shares_and_breaks(merger: Merger, work: MemWork) -> None:
    merged(merger, work, processes=2)
    parent = work.processes[0]
    child = parent.fork()
    grandchild = child.fork()
    work.check()
    child.areas[0].poke_each([(page, 16, 9) for page in range(0, PAGES, 3)])
    parent.areas[0].poke_each([(page, 24, 8) for page in range(0, PAGES, 5)])
    work.check()
    merger.passes()
    work.check()
    parent.exit()
    work.check()
    grandchild.areas[0].poke_each([(page, 32, 7) for page in range(PAGES)])
    merger.passes()
    work.check()
    assert child.areas[0].merged_pages().any()


def test_merged_pages_of_a_child_with_a_hole_behind_them(merger: Merger, work: MemWork) -> None:
    """They are all that is known of their neighbourhood when the scanner forgets what was in the hole."""
    for _ in range(2):
        process = work.process()
        start = process.reserve(64)
        process.map(pages=10, address=start).fill(Kind.FILLED, KEY, step=1)
        touched = process.map(pages=10, address=start + 32 * PAGE_BYTES)
        touched.fill(Kind.FILLED, KEY)
        touched.advise(Advice.DONTNEED)
    merger.merge(work)
    assert merger.counts() == (10, 10, 0)
    merger["run"] = STOP
    child = work.processes[0].fork()
    merger["run"] = RUN
    merger.passes(2)
    merging = f"/proc/{child.pid}/ksm_merging_pages"
    assert merger.guest.read(merging) == "10"
    assert merger.counts() == (10, 20, 0)
    merger["run"] = UNMERGE
    assert merger.guest.read(merging) == "0"
    assert merger.counts() == (0, 0, 0)
    work.check()
