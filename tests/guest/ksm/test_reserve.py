# SPDX-License-Identifier: MIT
"""The reserve: a share of what merging saved is kept back, and is there when all of it is written at once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.counters import CounterReader
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Process
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, STOP, UNMERGE, Merger

PERCENT = "/sys/kernel/mm/samepage/reserve_percent"
KEY = 61 << 40
PAGES = 12_000
PROCESSES = 3
SAVED = PAGES * (PROCESSES - 1)
LEFT = 6_000
"""Pages that are left to all others, once the reserve is filled and a greedy process has the rest."""

pytestmark = pytest.mark.guest(memory_mib=512, cpus=2)


@pytest.fixture
def merger(merger: Merger) -> Iterator[Merger]:
    """With no reserve at the end."""
    yield merger
    if merger.guest.healthy and merger.in_force:
        merger.guest.write(PERCENT, "0")


def fill(work: MemWork, pages: int) -> None:
    for _ in range(PROCESSES):
        work.process().map(pages=pages).fill(Kind.FILLED, KEY, step=1)


def wait_for_reserve(merger: Merger, pages: int) -> None:
    for _ in range(int(200 * merger.guest.timeout_factor)):
        if merger.samepage("reserve_pages") == pages:
            return
        time.sleep(0.05)
    pytest.fail(f"{merger.samepage('reserve_pages')} pages are in reserve, not {pages}")


def meminfo(guest: Guest, name: str) -> int:
    """In pages."""
    return CounterReader(guest).read()[f"meminfo.{name}_kb"] // 4


def kills(guest: Guest) -> int:
    return CounterReader(guest).read()["vmstat.oom_kill"]


@pytest.mark.parametrize("value", ["101", "-1", "x"])
def test_bad_values_change_nothing(guest: Guest, merger: Merger, value: str) -> None:
    merger.set_samepage("reserve_percent", 30)
    with pytest.raises(GuestFileError, match="Invalid argument"):
        guest.write(PERCENT, value)
    assert merger.samepage("reserve_percent") == 30


def test_it_follows_what_is_saved(guest: Guest, merger: Merger, work: MemWork) -> None:
    assert merger.samepage("reserve_percent") == 0  # nobody has one who did not ask
    fill(work, 500)
    merger.merge(work)
    assert merger.samepage("reserve_pages") == 0
    free = CounterReader(guest).read().free_bytes
    merger.set_samepage("reserve_percent", 50)
    wait_for_reserve(merger, 500)
    assert CounterReader(guest).read().free_bytes < free  # most come from the lists of free pages of the CPUs
    merger.set_samepage("reserve_percent", 20)
    wait_for_reserve(merger, 200)
    work.processes[0].areas[0].fill(Kind.FILLED, KEY + 1_000_000, step=1, pages=range(100))
    wait_for_reserve(merger, 180)
    merger["run"] = UNMERGE
    assert merger.samepage("reserve_pages") == 0
    merger["run"] = RUN
    wait_for_reserve(merger, 180)
    for process in list(work.processes):
        process.exit()
    wait_for_reserve(merger, 0)
    assert merger.samepage("reserve_released") == 0


def test_it_is_gone_with_the_module(guest: Guest, merger: Merger, work: MemWork) -> None:
    fill(work, 500)
    merger.merge(work)
    merger.set_samepage("reserve_percent", 100)
    wait_for_reserve(merger, 1000)
    guest.rmmod("samepage")
    work.check()


def write_all_at_once(guest: Guest, merger: Merger, work: MemWork, percent: int | None, run: int) -> Process:
    """Write every merged page while a process has nearly all memory; return that one. `percent` None: no reserve."""
    fill(work, PAGES)
    merger.merge(work)
    assert merger.counts()[:2] == (PAGES, SAVED)
    if percent is not None:
        merger.set_samepage("reserve_percent", percent)
        wait_for_reserve(merger, SAVED * percent // 100)
    merger["run"] = run
    greedy = work.process()
    greedy.map(pages=meminfo(guest, "MemAvailable") - LEFT, merge=False).fill(Kind.FILLED, KEY << 1, step=1)
    work.check()
    for process in work.processes[:PROCESSES]:
        process.areas[0].poke_each([(page, 16, process.pid) for page in range(PAGES)])
    guest.run(["true"])  # the log is read up to here
    return greedy


@pytest.mark.parametrize("run", [RUN, STOP])
def test_somebody_dies_without_it(guest: Guest, merger: Merger, work: MemWork, run: int) -> None:
    """As with in-tree KSM, see below."""
    before = kills(guest)
    with guest.log.expect("invoked oom-killer"):
        greedy = write_all_at_once(guest, merger, work, 0, run)
    assert kills(guest) == before + 1
    greedy.areas.clear()  # it was the largest
    assert merger.samepage("reserve_released") == 0
    work.check()


def test_somebody_dies_with_in_tree_merging(guest: Guest, module: BuiltModule, merger: Merger, work: MemWork) -> None:
    guest.rmmod(module.name)
    merger.hurry()
    before = kills(guest)
    with guest.log.expect("invoked oom-killer"):
        greedy = write_all_at_once(guest, merger, work, None, STOP)
    assert kills(guest) == before + 1
    greedy.areas.clear()  # it was the largest
    work.check()


@pytest.mark.parametrize("run", [RUN, STOP])
def test_nobody_dies_with_it(guest: Guest, merger: Merger, work: MemWork, run: int) -> None:
    """A scanner that runs sees what is written, and lets go; of one that is slow or stopped the kernel takes it."""
    before, released = kills(guest), merger.samepage("reserve_released")
    write_all_at_once(guest, merger, work, 100, run)
    assert kills(guest) == before
    if run == STOP:
        assert merger.samepage("reserve_released") >= released + SAVED // 3
    else:
        wait_for_reserve(merger, 0)
    work.check()
