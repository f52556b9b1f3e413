# SPDX-License-Identifier: MIT
"""Several scanners: they merge what one merges, to the page, whatever processes do meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, STOP, UNMERGE, Merger

PAGES = 600
PROCESSES = 6
KEY = 53 << 40
THREADS = "/sys/kernel/mm/samepage/threads"
CHECK_PASSES = "/sys/module/samepage/parameters/check_passes"

pytestmark = pytest.mark.guest(memory_mib=1024, cpus=4)


@pytest.fixture
def merger(merger: Merger) -> Iterator[Merger]:
    """With every pass checked, and one thread at the end."""
    merger.guest.write(CHECK_PASSES, "1")
    yield merger
    if merger.guest.healthy:
        assert merger.guest.read(CHECK_PASSES) == "Y", "a pass's check found a fault"
        merger.guest.write(CHECK_PASSES, "0")
        if merger.in_force:
            merger.guest.write(THREADS, "1")


def fill(work: MemWork) -> None:
    """In each process: what all have, what two of them have, one content over and over, empty pages, and its own."""
    for number in range(PROCESSES):
        area = work.process().map(pages=PAGES)
        area.fill(Kind.FILLED, KEY, step=1, pages=range(200))
        area.fill(Kind.PREFIX, KEY + (number // 2 << 20), step=1, pages=range(200, 300))
        area.fill(Kind.FILLED, KEY - 1, pages=range(300, 400))
        area.fill(Kind.ZERO, pages=range(400, 450))
        area.fill(Kind.FILLED, KEY + (number + 16 << 20), step=1, pages=range(450, PAGES))


def running(guest: Guest) -> list[str]:
    script = "grep -h ^samepaged /proc/[0-9]*/comm | sort"
    return guest.run(["sh", "-c", script]).text.split()


@pytest.mark.guest(memory_mib=1024, cpus=8)
def test_there_are_more_where_there_are_many_processors(merger: Merger) -> None:
    assert merger.samepage("threads") == 2


def test_there_is_one_where_there_are_few(merger: Merger) -> None:
    assert merger.samepage("threads") == 1


def test_bad_values_change_nothing(guest: Guest, merger: Merger) -> None:
    merger.set_samepage("threads", 2)
    for value in ("0", "17", "-1", "x"):
        with pytest.raises(GuestFileError, match="Invalid argument"):
            guest.write(THREADS, value)
        assert guest.read(THREADS) == "2"
    assert running(guest) == ["samepaged", "samepaged/1"]


@pytest.mark.parametrize("threads", [1, 2, 4, 16])
@pytest.mark.parametrize("zero", [0, 1])
def test_they_merge_what_one_merges(merger: Merger, work: MemWork, threads: int, zero: int) -> None:
    merger.set_samepage("threads", threads)
    merger["use_zero_pages"] = zero
    merger["max_page_sharing"] = 64
    fill(work)
    counters = merger.merge(work)
    assert merger.counts() == merger.expected(work)
    assert counters["pages_volatile"] == 0
    work.check()
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    work.check()


def test_all_share_the_work(guest: Guest, merger: Merger, work: MemWork) -> None:
    merger.set_samepage("threads", 4)
    fill(work)
    before = cpu_ns(guest)
    merger.merge(work)
    used = {name: now - before[name] for name, now in cpu_ns(guest).items()}
    sharing = [used[name] for name in ("samepaged", "samepaged/1", "samepaged/2", "samepaged/3")]
    assert min(sharing) > sum(used.values()) / 40, f"one of them idles: {used}"


def cpu_ns(guest: Guest) -> dict[str, int]:
    script = """
        for f in /proc/[0-9]*; do
            read name < $f/comm
            case $name in samepaged*) echo $name $(cat $f/schedstat);; esac
        done"""
    lines = guest.run(["sh", "-c", script]).text.splitlines()
    return {line.split()[0]: int(line.split()[1]) for line in lines}


def test_processes_come_and_go_and_write(guest: Guest, merger: Merger, work: MemWork) -> None:
    merger.set_samepage("threads", 4)
    fill(work)
    merger["run"] = RUN
    for turn in range(30):
        for number, area in enumerate(list(work.areas)):
            area.poke_each([(page, 8 * turn, number % 3) for page in range(turn, area.pages, 11)])
        if turn % 5 == 1:
            work.processes[turn % len(work.processes)].fork()
        if turn % 5 == 3:
            work.processes[-1].exit()
        if turn % 10 == 7:
            merger.set_samepage("threads", 1 + turn % 4)
            work.check()
    merger.set_samepage("threads", 4)
    counters = merger.merge(work)
    shared, *saved = merger.counts()
    least, *possible = merger.expected(work)
    assert saved == possible
    # A merged page whose other sharers have gone or written stays one: the model was not told what merged meanwhile.
    assert shared >= least
    assert counters["pages_volatile"] == 0
    work.check()
    merger.check()


def test_stopped_unmerged_and_unloaded_in_the_middle(
    guest: Guest, merger: Merger, module: BuiltModule, work: MemWork
) -> None:
    merger.set_samepage("threads", 4)
    merger["pages_to_scan"] = 50
    merger["sleep_millisecs"] = 1
    fill(work)
    for value in (RUN, STOP, RUN, UNMERGE, RUN):
        merger["run"] = value
        merger.check()
        work.check()
    guest.rmmod(module.name)
    work.check()
    assert not running(guest)
    guest.insmod(module.ko)
    merger.reset()
    guest.write(CHECK_PASSES, "1")
    merger.merge(work)
    assert merger.counts() == merger.expected(work)


def test_the_governor_reckons_with_one(guest: Guest, merger: Merger, work: MemWork) -> None:
    merger.set_samepage("threads", 4)
    fill(work)
    merger["run"] = RUN
    merger.set_samepage("convergence_seconds", 5)
    try:
        merger.passes(2)
        before = cpu_ns(guest)
        merger.passes(3)
        used = {name: now - before[name] for name, now in cpu_ns(guest).items()}
    finally:
        merger.set_samepage("convergence_seconds", 0)
    assert used.pop("samepaged") > 0
    assert max(used.values()) < 1_000_000, used
    assert merger.counts() == merger.expected(work)


def test_who_is_waited_for_goes_away(merger: Merger, work: MemWork) -> None:
    """A scanner that finds a twin in a process which is just ending waits for it, and is the last to know of it then.

    To lockdep it still held what it had waited for, as two locks under one that they nest in are one to it: found by
    a soak of the debug kernel.
    """
    merger.set_samepage("threads", 4)
    pages = 6 * PAGES
    merger["run"] = RUN
    for turn in range(8):
        old = [work.process() for _ in range(3)]
        for number, process in enumerate(old):
            process.map(pages=pages).fill(Kind.FILLED, KEY + (3 * turn + number << 20), step=1)
        merger.passes(2)
        new = [work.process() for _ in range(3)]
        for number, process in enumerate(new):
            process.map(pages=pages).fill(Kind.FILLED, KEY + (3 * turn + number << 20), step=1)
        time.sleep(turn / 8)
        for process in old:
            process.exit()
        merger.passes(2)
        work.check()
        for process in new:
            process.exit()
