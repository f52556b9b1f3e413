# SPDX-License-Identifier: MIT
"""Timing-safe merging: every idle page is a merged one, which no writer frees; shared ones lie where nobody chose."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Area
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, STOP, UNMERGE, Merger
from tests.guest.ksm.test_domains import become, shared_frames
from tests.guest.ksm.test_reclaim import page_frames, reclaim, swapped, zram
from tests.guest.ksm.test_why import Ask, ask

PAGES = 1000
KEY = 59 << 40
UNIQUE = 61 << 40
CPU_LISTS = "/proc/sys/vm/percpu_pagelist_high_fraction"

# As where the tests of swap are from.
pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2, numa_nodes=2)
__all__ = ["ask", "zram"]


@pytest.fixture(autouse=True)
def timing_safe(merger: Merger, guest: Guest) -> Iterator[None]:
    merger.set_samepage("timing_safe", 1)
    yield
    if guest.running and merger.in_force:
        merger.set_samepage("timing_safe", 0)
        assert merger.samepage("kept") == 0


def twins(work: MemWork, processes: int = 2, *, thp: bool = False) -> list[Area]:
    """Half of each process's pages are the same in all, half are like no other."""
    areas = [work.process().map(pages=2 * PAGES, thp=thp) for _ in range(processes)]
    for number, area in enumerate(areas):
        area.fill(Kind.FILLED, KEY, step=1, pages=range(PAGES))
        area.fill(Kind.FILLED, UNIQUE + number * PAGES, step=1, pages=range(PAGES, 2 * PAGES))
    return areas


def settle(merger: Merger, shared: int, sharing: int) -> None:
    """Let all become merged pages: so many of them, and so many more mappings."""
    merger["run"] = RUN
    for _ in range(20):
        merger.passes(2)
        if merger.counts() == (shared, sharing, 0):
            break
    assert merger.counts() == (shared, sharing, 0)
    assert merger.samepage("kept") == shared


def test_idle_pages_are_merged_alone_and_shared_ones_lie_where_nobody_chose(
    merger: Merger, work: MemWork, guest: Guest
) -> None:
    areas = twins(work)
    before = np.concatenate([page_frames(area)[:PAGES] for area in areas])
    settle(merger, 3 * PAGES, PAGES)
    after = [page_frames(area)[:PAGES] for area in areas]
    assert all(area.merged_pages().all() for area in areas)
    assert np.array_equal(after[0], after[1])
    assert np.isin(after[0], before).sum() < PAGES // 50, "more contents lie where somebody had them than chance allows"
    guest.write(
        "/proc/sys/vm/stat_refresh", "1"
    )  # what one CPU took off and another put back is each CPU's own difference
    assert "nr_isolated_anon 0\n" in guest.read("/proc/vmstat"), "what was taken off its list to be moved is back"
    merger.check()
    work.check()
    for area in areas:
        area.poke_each([(page, 8, 1) for page in range(0, 2 * PAGES, 3)])
    work.check()
    merger.passes(3)
    merger.check()
    work.check()


def test_frames_are_freed_by_the_scanner_alone(merger: Merger, work: MemWork) -> None:
    first, second = twins(work)
    settle(merger, 3 * PAGES, PAGES)
    merger["run"] = STOP
    first.fill(Kind.FILLED, KEY * 2, step=1)
    second.unmap()
    assert merger.samepage("kept") == 3 * PAGES, "neither a write nor an unmap has freed a frame"
    merger["run"] = RUN
    merger.passes(1)
    assert merger.samepage("kept") < 3 * PAGES
    settle(merger, 2 * PAGES, 0)
    work.check()
    for process in list(work.processes):
        process.exit()
    deadline = time.monotonic() + 20  # nothing is left to scan, and so no pass ends
    while merger.samepage("kept") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert merger.samepage("kept") == 0
    assert merger.counts() == (0, 0, 0)


def free_kib(guest: Guest) -> int:
    lines = guest.read("/proc/meminfo").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemFree:"))


def test_what_nobody_maps_is_freed_where_memory_is_short(merger: Merger, work: MemWork, guest: Guest) -> None:
    """With scanning stopped nobody comes by: reclaim asks for it."""
    guest.write(CPU_LISTS, "1000")  # else each CPU keeps tens of MiB that do not count as free
    area = work.process().map(pages=40 * PAGES)
    area.fill(Kind.FILLED, UNIQUE, step=1)
    settle(merger, 40 * PAGES, 0)
    merger["run"] = STOP
    area.unmap()
    assert merger.samepage("kept") == 40 * PAGES
    before = free_kib(guest)
    for _ in range(40):  # a sixteenth at a time, and not where a scanner is just at work
        guest.write("/proc/sys/vm/drop_caches", "2")
        if merger.samepage("kept") == 0:
            break
    assert merger.samepage("kept") == 0
    assert free_kib(guest) - before > 40 * PAGES * 4 * 9 // 10
    guest.write(CPU_LISTS, "0")


def test_a_fork_shares_and_takes_nothing_away(merger: Merger, work: MemWork) -> None:
    twins(work)
    settle(merger, 3 * PAGES, PAGES)
    child = work.processes[0].fork()
    merger.passes(2)
    assert merger.counts() == (3 * PAGES, 3 * PAGES, 0)
    child.areas[0].poke_each([(page, 0, 3) for page in range(0, 2 * PAGES, 2)])
    work.processes[0].exit()
    merger.passes(3)
    merger.check()
    work.check()


def test_at_the_edge_of_sharing_the_next_one_is_merged_alone(merger: Merger, work: MemWork) -> None:
    merger["run"] = UNMERGE
    merger["max_page_sharing"] = 8
    area = work.process().map(pages=9)
    area.fill(Kind.FILLED, KEY)
    settle(merger, 2, 7)
    assert area.merged_pages().all()
    merger["run"] = UNMERGE


@pytest.mark.usefixtures("zram")
def test_swapped_out_and_in(merger: Merger, guest: Guest, work: MemWork) -> None:
    twins(work)
    settle(merger, 3 * PAGES, PAGES)
    merger["run"] = STOP
    reclaim(guest)
    assert swapped(work) > 2 * PAGES, "kept pages are pushed out, too"
    merger.check()
    work.check()
    settle(merger, 3 * PAGES, PAGES)
    work.check()


def test_migration_moves_what_is_kept(merger: Merger, guest: Guest, work: MemWork) -> None:
    areas = twins(work)
    settle(merger, 3 * PAGES, PAGES)
    merger["run"] = STOP
    for node in (1, 0, 1):
        assert (areas[0].move_to_node(node) == node).all()
        assert merger.samepage("kept") == 3 * PAGES, "a page that was moved is kept again"
        merger.check()
        work.check()
    merger["run"] = RUN
    for turn in range(6):
        areas[turn % 2].move_to_node(turn % 2)
        guest.write("/proc/sys/vm/compact_memory", "1")
        areas[turn % 2].poke_each([(page, 16, turn) for page in range(turn, 2 * PAGES, 7)])
    merger.passes(3)
    merger.check()
    work.check()


def test_idle_huge_pages_are_split_whatever_others_have(merger: Merger, work: MemWork) -> None:
    areas = twins(work, thp=True)
    split = merger.samepage("huge_split")
    settle(merger, 3 * PAGES, PAGES)
    assert merger.samepage("huge_split") > split
    work.check()
    merger.check()
    assert all(area.merged_pages().all() for area in areas)


def test_merging_nodes_apart(merger: Merger, work: MemWork) -> None:
    merger["run"] = UNMERGE
    merger["merge_across_nodes"] = 0
    first, second = twins(work)
    first.move_to_node(0)
    second.move_to_node(1)
    settle(merger, 4 * PAGES, 0)
    assert (first.move_to_node(0) == 0).all()
    assert merger.counts() == (4 * PAGES, 0, 0)
    merger["run"] = UNMERGE
    merger["merge_across_nodes"] = 1


def test_switching_unmerges_all(merger: Merger, work: MemWork) -> None:
    areas = twins(work)
    settle(merger, 3 * PAGES, PAGES)
    merger["run"] = STOP
    for on, shared in ((0, PAGES), (1, 3 * PAGES)):
        merger.set_samepage("timing_safe", on)
        assert merger.counts() == (0, 0, 0)
        assert merger.samepage("kept") == 0
        frames: NDArray[np.uint64] = np.concatenate([page_frames(area) for area in areas])
        assert len(np.unique(frames)) == len(frames)
        merger["run"] = RUN
        merger.passes(4)
        assert merger.counts() == (shared, PAGES, 0)
        merger["run"] = STOP
        work.check()


def test_a_change_of_sides(merger: Merger, work: MemWork, guest: Guest) -> None:
    twins(work)
    settle(merger, 3 * PAGES, PAGES)
    assert shared_frames(guest, *work.processes) == PAGES
    become(work.processes[1], 1009)
    settle(merger, 4 * PAGES, 0)
    assert shared_frames(guest, *work.processes) == 0
    work.check()


def test_why_tells_root_alone_what_has_no_twin(merger: Merger, work: MemWork, guest: Guest, ask: Ask) -> None:
    area = twins(work)[0]
    settle(merger, 3 * PAGES, PAGES)
    assert ask(area) == {"merged": PAGES, "unique": PAGES}
    own = """
import ctypes, mmap, sys, time
sys.path.insert(0, "/run")
import why
memory = mmap.mmap(-1, 3 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(12)
memory[:] = b"twin" * 1024 + b"twin" * 1024 + b"lone" * 1024
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
deadline = time.monotonic() + 60
while (found := why.why(0, address, address + 3 * 4096))["not_yet"] + found["volatile"]:
    assert time.monotonic() < deadline, found
    time.sleep(0.05)
print(found["merged"], found["unique"])
"""
    assert guest.run(["setpriv", "--reuid=1002", "--clear-groups", "python3", "-c", own]).text.split() == ["3", "0"]
    capable = ["setpriv", "--reuid=1002", "--clear-groups", "--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"]
    assert guest.run([*capable, "python3", "-c", own]).text.split() == ["2", "1"]


def test_unloaded_with_pages_kept(merger: Merger, work: MemWork, guest: Guest, module: BuiltModule) -> None:
    twins(work)
    settle(merger, 3 * PAGES, PAGES)
    guest.rmmod("samepage")
    work.check()
    guest.insmod(module.ko)
    work.check()


def test_writers_and_the_scanner_at_once(merger: Merger, work: MemWork, guest: Guest) -> None:
    merger.set_samepage("threads", 3)
    areas = twins(work, 3)
    merger["run"] = RUN
    for area in areas:
        area.rewrite(KEY, per_second=20000, pages=range(PAGES))
    for _ in range(20):
        areas[0].poke_each([(page, 24, 9) for page in range(PAGES, 2 * PAGES, 5)])
        child = work.processes[1].fork()
        time.sleep(0.2)
        child.exit()
    for process in work.processes:
        process.stop_rewriting()
    work.check()
    merger.passes(3)
    merger.check()
    work.check()
    merger.set_samepage("threads", 1)
