# SPDX-License-Identifier: MIT
"""Faults from outside, in the middle of merging: swap that gives errors, memory that fails, kills, time turned back.

Who is hit loses what was hit; nobody else loses a byte, and the module none of what it knows.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.link import WorkError
from harness.ksm.memwork import MemWork
from harness.ksm.processes import PFN_MASK, SWAPPED, Area
from tests.guest.ksm.control import RUN, UNMERGE, Merger
from tests.guest.ksm.test_parity_memory import poison, prepare_poison
from tests.guest.ksm.test_reclaim import page_frames, reclaim, swapped

PAGES = 1500
KEY = 41 << 40
NULLB = "/sys/kernel/config/nullb/nullb0"
SECTORS = (256 << 20) // 512

pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2)


def fill(work: MemWork, processes: int, pages: int = PAGES) -> None:
    """Processes with pages that all have alike, and as many of their own."""
    for number in range(processes):
        process = work.process()
        process.map(pages=pages).fill(Kind.FILLED, KEY, step=1)
        process.map(pages=pages).fill(Kind.FILLED, KEY * (number + 2), step=1)


# Swap on a disk in memory whose sectors can be made bad.


@pytest.fixture
def disk(guest: Guest) -> Iterator[str]:
    guest.run(["modprobe", "null_blk", "nr_devices=0"])
    guest.run(["sh", "-c", "mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config"])
    guest.run(["mkdir", NULLB])
    for name, value in (("size", SECTORS >> 11), ("memory_backed", 1), ("power", 1)):
        guest.write(f"{NULLB}/{name}", str(value))
    device = "/dev/nullb0"
    set_bad(guest, False)
    guest.run(["mkswap", device])
    guest.run(["swapon", device])
    yield device
    set_bad(guest, False)
    guest.run(["swapoff", device], timeout=120)
    guest.write(f"{NULLB}/power", "0")
    guest.run(["rmdir", NULLB])


def set_bad(guest: Guest, bad: bool, first: int = 0, last: int = SECTORS - 1) -> None:
    guest.write(f"{NULLB}/badblocks", f"{'+' if bad else '-'}{first}-{last}")


def test_swap_that_cannot_be_read(merger: Merger, guest: Guest, work: MemWork, disk: str) -> None:
    """Who needs a page that cannot be read gets SIGBUS; once the disk can be read again, all is as it was."""
    fill(work, 4)
    merger.merge(work)
    reclaim(guest, times=1)
    assert swapped(work) > 4 * PAGES, f"most pages are out, on {disk}"
    merger["run"] = RUN
    bad = set(random.Random(5).sample(sorted(slots(work)), 200))
    for slot in bad:
        set_bad(guest, True, 8 * slot, 8 * slot + 7)
    refused = 0
    for process in work.processes[:2]:
        for area in process.areas:
            entries = area.frames()["pagemap"]
            there = np.isin(slot_of(entries), list(bad)) & (entries & SWAPPED != 0)
            for page in np.flatnonzero(there).tolist():
                refused += not readable(area, page)
    assert refused > 20
    merger.passes(3)
    merger["run"] = UNMERGE  # what is out is nobody's to unmerge
    assert merger.counts() == (0, 0, 0)
    merger.check()
    set_bad(guest, False)
    reclaim(guest, times=1)  # and drops the folios that were not read
    work.check()
    merger.merge(work)
    assert merger.counts() == merger.expected(work) == (PAGES, 3 * PAGES, 0)


def slot_of(entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Where in swap the pages of these entries of pagemap are."""
    slots: NDArray[np.uint64] = (entries & PFN_MASK) >> np.uint64(5)
    return slots


def slots(work: MemWork) -> set[int]:
    """Where in swap pages of the areas are."""
    found: set[int] = set()
    for area in work.areas:
        entries = area.frames()["pagemap"]
        found |= set(slot_of(entries[entries & SWAPPED != 0]).tolist())
    return found


def readable(area: Area, page: int) -> bool:
    """Whether the process can read the page; what it reads must be right."""
    try:
        found = area.read(page)
    except WorkError as error:
        if "SIGBUS" not in str(error):
            raise
        return False
    assert found == area.model.page(page), (area.process.name, page)
    return True


def test_swap_that_cannot_be_written(merger: Merger, guest: Guest, work: MemWork, disk: str) -> None:
    """What cannot be written stays in memory, merged as it was."""
    fill(work, 3)
    merger.merge(work)
    set_bad(guest, True)
    reclaim(guest, "64M", times=1)
    assert "Write-error on swap-device" in guest.console.text_since(0)
    merger.passes(2)
    merger.check()
    work.check()
    set_bad(guest, False)
    merger.merge(work)
    assert merger.counts() == merger.expected(work) == (PAGES, 2 * PAGES, 0), disk
    work.check()


# Frames that fail stay lost: in a guest of their own.


@pytest.mark.guest(memory_mib=896, cpus=2)
def test_memory_that_fails(merger: Merger, guest: Guest, work: MemWork) -> None:
    """Frames fail, of merged pages and of candidates, while the scanner is at work: just these pages are lost."""
    chance = random.Random(11)
    fill(work, 4, pages=200)
    merger.merge(work)
    merger["run"] = RUN
    prepare_poison(guest, early=0)
    knows_merged = guest.run(["grep", "-q", " collect_procs_ksm$", "/proc/kallsyms"], check=False).exit_code == 0
    frames = [page_frames(area) for area in work.areas]
    lost: set[int] = set()
    for number, area in enumerate(work.areas):
        if number % 2 == 0 and (number or not knows_merged):
            continue  # of the pages that all have alike, once; 6.1 leaves merged pages alone
        for page in chance.sample(range(area.pages), 5):
            lost.add(int(frames[number][page]))
            poison(guest, int(frames[number][page]))
        merger.check()
    assert len(lost) == 5 * (4 + knows_merged)
    merger.passes(3)
    for area, before in zip(work.areas, frames, strict=True):
        failed = {page for page in range(area.pages) if not readable(area, page)}
        assert failed == set(np.flatnonzero(np.isin(before, list(lost))).tolist()), area.process.name
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    merger.check()


# Kills.


def test_killed_in_the_middle(merger: Merger, guest: Guest, work: MemWork) -> None:
    """Processes are killed at any moment of their merging; what is left knows nothing of them."""
    chance = random.Random(3)
    fill(work, 2)
    merger["run"] = RUN
    merger.set_samepage("threads", 2)
    for _ in range(12):
        victims = [work.process() for _ in range(3)]
        for victim in victims:
            victim.map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
        victims += [victim.fork() for victim in victims[:2]]
        time.sleep(chance.uniform(0, 0.25))
        chance.shuffle(victims)
        guest.run(["kill", "-KILL", *(str(victim.pid) for victim in victims)])
        for victim in victims:
            assert victim.exit() == signal.SIGKILL
        merger.check()
    merger.set_samepage("threads", 1)
    work.check()
    merger.merge(work)
    assert merger.counts() == merger.expected(work) == (PAGES, PAGES, 0)


def test_out_of_memory_in_the_middle(merger: Merger, guest: Guest, work: MemWork) -> None:
    """Memory runs out while what fills it is being merged: the one that asks for more is killed, and only it."""
    fill(work, 2)
    merger["run"] = RUN
    for process in work.processes:
        guest.write(f"/proc/{process.pid}/oom_score_adj", "-900")
    for turn in range(2):
        greedy = work.process()
        guest.write(f"/proc/{greedy.pid}/oom_score_adj", "900")
        area = greedy.map(pages=1_200_000, reserve=False)
        with guest.log.expect("invoked oom-killer"):
            with pytest.raises(WorkError, match="killed by signal 9"):
                fill_memory(area, KEY * (7 + turn))
            guest.run(["true"])  # the log is read up to here
        greedy.areas.clear()
        merger.check()
        work.check()
    merger.passes(3)
    assert merger.counts() == (PAGES, PAGES, 0)


def fill_memory(area: Area, key: int) -> None:
    """Every second part of it merges with what is there, the others fill memory."""
    for first in range(0, area.pages, 4000):
        if first % 8000:
            area.fill(Kind.FILLED, KEY, step=1, pages=range(first, first + PAGES))
        else:
            area.fill(Kind.FILLED, key + first, step=1, pages=range(first, first + 4000))
