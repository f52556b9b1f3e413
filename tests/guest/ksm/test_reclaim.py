# SPDX-License-Identifier: MIT
"""Merged pages in the hands of the rest of mm: swap, migration, compaction find and move every mapping."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from harness.errors import SamepageError
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.ksm.processes import KPF_KSM, PFN_MASK, SWAPPED
from tests.guest.ksm.control import STOP, Merger

PAGES = 2000
KEY = 9 << 40


@pytest.fixture
def zram(guest: Guest) -> Iterator[None]:
    """Swap on compressed memory."""
    guest.run(["modprobe", "zram", "num_devices=1"])
    guest.write("/sys/block/zram0/disksize", str(256 << 20))
    guest.run(["mkswap", "/dev/zram0"])
    guest.run(["swapon", "/dev/zram0"])
    yield
    guest.run(["swapoff", "/dev/zram0"], timeout=180)
    guest.write("/sys/block/zram0/reset", "1")


def merged(merger: Merger, work: MemWork, processes: int = 3) -> None:
    for _ in range(processes):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (PAGES, (processes - 1) * PAGES, 0)


def swapped(work: MemWork) -> int:
    return sum(int(((area.frames()["pagemap"] & SWAPPED) != 0).sum()) for area in work.areas)


def reclaim(guest: Guest) -> None:
    """Push out all that can be: the kernel answers EAGAIN when it could not find that much."""
    for _ in range(3):
        try:
            guest.write("/sys/fs/cgroup/memory.reclaim", "1G swappiness=200")
        except SamepageError as error:
            if "EAGAIN" not in str(error):
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
    merger["run"] = 2
    assert merger.counts() == (0, 0, 0)
    work.check()
    assert not any(area.merged_pages().any() for area in work.areas)


def test_migration_moves_every_mapping(merger: Merger, guest: Guest, work: MemWork) -> None:
    merged(merger, work)
    before = work.areas[0].frames()
    assert ((before["flags"] & KPF_KSM) != 0).all()
    # Fragment, then compact: the merged pages lie where the freed ones leave room below or above them.
    filler = work.process()
    sieve = [filler.map(pages=512, merge=False) for _ in range(60)]
    for area in sieve:
        area.fill(Kind.BYTE, 1)
    for area in sieve[::2]:
        area.unmap()
    guest.write("/proc/sys/vm/compact_memory", "1")
    after = [area.frames()["pagemap"] & PFN_MASK for area in work.processes[0].areas]
    moved = int((after[0] != before["pagemap"] & PFN_MASK).sum())
    assert moved > 0, "compaction moved merged pages"
    frames = [area.frames()["pagemap"] & PFN_MASK for process in work.processes[:3] for area in process.areas]
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[1], frames[2])
    work.check()
    assert merger.counts() == (PAGES, 2 * PAGES, 0)
    merger.passes(2)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)
