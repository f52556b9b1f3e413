# SPDX-License-Identifier: MIT
"""The convergence governor: a time within which duplicates are merged, under a ceiling of CPU time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.errors import SamepageError
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.counters import CounterReader, find_scanners
from harness.ksm.memwork import MemWork
from tests.guest.ksm.control import KSM, RUN, SAMEPAGE, Merger

PAGES = 8192
KEY = 1 << 40


@pytest.fixture(autouse=True)
def governed(merger: Merger) -> Iterator[None]:
    merger["sleep_millisecs"] = 20
    yield
    merger.set_samepage("convergence_seconds", 0)
    merger.set_samepage("convergence_max_cpu", 20)
    merger["pages_to_scan"] = 100


def state(merger: Merger) -> str:
    return merger.guest.read(SAMEPAGE + "convergence_state").strip()


def fill(work: MemWork, pages: int = PAGES) -> None:
    for _ in range(2):
        work.process().map(pages=pages).fill(Kind.FILLED, KEY, step=1)


def test_time_is_kept_without_haste(merger: Merger, work: MemWork) -> None:
    """Everything is merged in time; once it is, passes get as slow as the time allows."""
    fill(work)
    merger.set_samepage("convergence_max_cpu", 100)
    merger.set_samepage("convergence_seconds", 12)
    merger["run"] = RUN
    deadline = time.monotonic() + 12 * 3
    while merger.counts()[1] < 0.95 * PAGES:
        assert time.monotonic() < deadline, f"{merger.counts()} {state(merger)}"
        time.sleep(0.2)
    before = merger["full_scans"]
    time.sleep(12)
    # A pass is to take 3 s, and no more than 4 s.
    assert 2 <= merger["full_scans"] - before <= 6
    assert state(merger) == "kept"
    assert 1000 < merger.samepage("convergence_pass_millisecs") <= 4000
    assert merger.samepage("convergence_cpu_percent") < 20
    work.check()


def test_settled_memory_is_gone_over_slowly(merger: Merger, work: MemWork) -> None:
    """Passes that find nothing to do have a size, too: else each is followed by the next at once, for ever."""
    fill(work)
    merger.merge(work)
    merger.set_samepage("convergence_max_cpu", 100)
    merger.set_samepage("convergence_seconds", 12)
    merger.passes(1)
    before = merger["full_scans"]
    time.sleep(12)
    assert 2 <= merger["full_scans"] - before <= 6


def test_the_ceiling_wins(merger: Merger, guest: Guest, work: MemWork) -> None:
    """Merging 2048 pages takes a CPU for 50 ms at least: five seconds at 1 percent, where a pass has a third of one."""
    fill(work, 2048)
    merger.set_samepage("convergence_max_cpu", 1)
    merger.set_samepage("convergence_seconds", 1)
    reader = CounterReader(guest, find_scanners(guest, guest.pids()))
    before = reader.read()
    merger["run"] = RUN
    deadline = time.monotonic() + 120
    while state(merger) != "missed":
        assert time.monotonic() < deadline, f"{merger.counts()} {state(merger)}"
        time.sleep(0.2)
    after = reader.read()
    share = (after["scanner.cpu_ns"] - before["scanner.cpu_ns"]) / 1e9 / (after.uptime - before.uptime)
    # A CPU that the host takes away while the scanner has it counts as taken by the scanner.
    assert 0.001 < share < 0.04
    work.check()


def test_who_sets_pages_to_scan(merger: Merger, guest: Guest) -> None:
    assert state(merger) == "off"
    merger.set_samepage("convergence_seconds", 5)
    assert state(merger) == "starting"
    with pytest.raises(SamepageError, match="Invalid argument"):
        merger["pages_to_scan"] = 7
    merger["advisor_mode"] = "scan-time"
    assert merger.samepage("convergence_seconds") == 0
    merger.set_samepage("convergence_seconds", 5)
    assert guest.read(KSM + "advisor_mode") == "[none] scan-time"
    for name, wrong in (("convergence_max_cpu", "0"), ("convergence_max_cpu", "101"), ("convergence_seconds", "-1")):
        with pytest.raises(SamepageError, match="Invalid argument"):
            guest.write(SAMEPAGE + name, wrong)
    assert merger.samepage("convergence_max_cpu") == 20
    assert merger.samepage("convergence_seconds") == 5
