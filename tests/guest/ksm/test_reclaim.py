# SPDX-License-Identifier: MIT
"""Merged pages in the hands of the rest of mm: swap, migration, compaction find and move every mapping."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.guest.swap import drop_zram, make_zram, set_zram
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.ksm.processes import PFN_MASK, SWAPPED, Advice, Area
from tests.guest.ksm.control import RUN, STOP, UNMERGE, Merger

PAGES = 2000
KEY = 9 << 40
PIPE2, VMSPLICE = 293, 278
IN_A_PIPE = 16

# Two NUMA nodes, to migrate between.
pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2, numa_nodes=2)


@pytest.fixture
def zram(guest: Guest) -> Iterator[None]:
    """Swap on compressed memory."""
    make_zram(guest)
    set_zram(guest, on=True)
    yield
    set_zram(guest, on=False)
    drop_zram(guest)


def merged(merger: Merger, work: MemWork, processes: int = 3) -> None:
    for _ in range(processes):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (PAGES, (processes - 1) * PAGES, 0)


def swapped(work: MemWork) -> int:
    return sum(int(((area.frames()["pagemap"] & SWAPPED) != 0).sum()) for area in work.areas)


def reclaim(guest: Guest, much: str = "1G", times: int = 3) -> None:
    """Push out all that can be: the kernel answers EAGAIN when it could not find that much."""
    guest.write("/proc/sys/vm/swappiness", "200")  # 6.1 takes it from nowhere else
    for _ in range(times):
        try:
            guest.write("/sys/fs/cgroup/memory.reclaim", much)
        except GuestFileError as error:
            if error.errno != errno.EAGAIN:
                raise


@pytest.mark.usefixtures("zram")
def test_swapped_out_and_in(merger: Merger, guest: Guest, work: MemWork) -> None:
    merged(merger, work)
    merger["run"] = STOP
    reclaim(guest)
    assert swapped(work) > len(work.areas) * PAGES // 2, "most merged pages are swapped out, from every process"
    work.check()
    assert swapped(work) == 0
    merger.merge(work)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)
    work.check()


def hold(area: Area, pages: int) -> None:
    """Put its first pages into a pipe, which refers to them and copies nothing."""
    process = area.process
    helper = process.map(pages=1, merge=False)
    assert process.syscall(PIPE2, helper.address(), 0) == 0
    (_, end) = struct.unpack("ii", helper.read(0)[:8])
    helper.poke(0, 16, area.address())
    helper.poke(0, 24, pages << 12)
    assert process.syscall(VMSPLICE, end, helper.address() + 16, 1, 0) == pages << 12
    helper.unmap()


@pytest.mark.usefixtures("zram")
def test_who_said_unmergeable_while_it_was_in_the_swap_cache_shares_no_more(
    merger: Merger, guest: Guest, work: MemWork
) -> None:
    """It came back shared, in memory that nothing unmerges: unloading waited for it for ever."""
    merged(merger, work, processes=2)
    merger["run"] = STOP
    first, second = work.areas
    hold(first, IN_A_PIPE)
    reclaim(guest)
    assert swapped(work) > len(work.areas) * PAGES // 2
    first.advise(Advice.UNMERGEABLE)
    work.check()
    assert swapped(work) == 0
    one, other = (area.frames()["pagemap"] & PFN_MASK for area in (first, second))
    assert not np.isin(one, other).any()
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)


@pytest.mark.usefixtures("zram")
def test_swap_while_merging_and_forking(merger: Merger, guest: Guest, work: MemWork) -> None:
    merged(merger, work)
    for turn in range(4):
        reclaim(guest)
        child = work.processes[0].fork()
        child.areas[0].poke_each([(page, 8, turn) for page in range(0, PAGES, 11)])
        work.check()
    merger.merge(work)
    work.check()


@pytest.mark.usefixtures("zram")
def test_swapoff_brings_all_back(merger: Merger, guest: Guest, work: MemWork) -> None:
    merged(merger, work)
    reclaim(guest)
    guest.run(["swapoff", "/dev/zram0"], timeout=180)
    assert swapped(work) == 0
    work.check()
    guest.run(["swapon", "/dev/zram0"])
    merger.merge(work)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)


@pytest.mark.usefixtures("zram")
def test_unmerge_while_swapped_out(merger: Merger, guest: Guest, work: MemWork) -> None:
    merged(merger, work)
    reclaim(guest)
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    work.check()
    frames = np.concatenate([page_frames(area) for area in work.areas])
    assert len(np.unique(frames)) == len(frames), "no two processes share a page any more"


def page_frames(area: Area) -> NDArray[np.uint64]:
    """Return the page frame number of each page."""
    numbers: NDArray[np.uint64] = area.frames()["pagemap"] & PFN_MASK
    return numbers


def test_migration_moves_every_mapping(merger: Merger, work: MemWork) -> None:
    merged(merger, work)
    merger["run"] = STOP  # while the scanner looks at a page, it cannot be moved
    assert (work.areas[0].move_to_node(0) == 0).all()
    for node in (1, 0):
        before = page_frames(work.areas[0])
        where = work.areas[0].move_to_node(node)
        assert (where == node).all()
        after = [page_frames(area) for area in work.areas]
        assert (after[0] != before).all()
        assert all(np.array_equal(frames, after[0]) for frames in after[1:]), "every process sees the new place"
        work.check()
        assert merger.counts() == (PAGES, 2 * PAGES, 0)
    merger["run"] = RUN
    for turn in range(10):
        work.areas[turn % 3].move_to_node(turn % 2)
    work.check()
    merger.passes(2)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)


def test_compaction_while_merging(merger: Merger, guest: Guest, work: MemWork) -> None:
    """Merging and moving at the same time: pages that were given back leave holes among those that stay."""
    for turn in range(6):
        process = work.process()
        process.map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
        process.map(pages=PAGES).fill(Kind.FILLED, KEY * (turn + 2), step=1)
        merger["run"] = RUN
        guest.write("/proc/sys/vm/compact_memory", "1")
        if turn % 2:
            work.processes[0].exit()
        work.check()
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()


@pytest.mark.usefixtures("zram")
def test_what_its_last_holder_freed_is_kept_for_who_joins(merger: Merger, work: MemWork, guest: Guest) -> None:
    """MADV_FREE by the only one who maps a merged page lets the kernel drop it, until another one shares it."""
    freer, writer, joiner = (work.process().map(pages=PAGES) for _ in range(3))
    for area in (freer, writer):
        area.fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    writer.poke_each([(page, 0, page) for page in range(PAGES)])
    freer.advise(Advice.FREE)
    joiner.fill(Kind.FILLED, KEY, step=1)
    merger.passes()
    assert joiner.merged_pages().all()
    freer.fill(Kind.FILLED, KEY + PAGES, step=1)
    reclaim(guest)
    assert swapped(work) > PAGES, "little was pushed out: this shows nothing"
    work.check()
