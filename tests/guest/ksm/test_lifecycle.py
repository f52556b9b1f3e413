# SPDX-License-Identifier: MIT
"""Loading, process exit, unloading: at any time, under load, with everything as it was afterwards."""

from __future__ import annotations

import errno

import pytest

from harness.errors import CheckFailed
from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.control import KSM, QUICK, RUN, SAMEPAGE, STOP, UNMERGE, Merger

PAGES = 500
KEY = 11 << 40
TREE_FILES = ["advisor_mode", "run", "pages_shared", "max_page_sharing", "general_profit"]
# What came after Linux 6.1.
NEWER_FILES = {
    *(f"advisor_{name}" for name in ("mode", "max_cpu", "min_pages_to_scan", "max_pages_to_scan", "target_scan_time")),
    *("general_profit", "ksm_zero_pages", "pages_scanned", "pages_skipped", "smart_scan"),
}


def fill(work: MemWork, processes: int = 3) -> None:
    for _ in range(processes):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)


def test_exit_under_merge(merger: Merger, work: MemWork) -> None:
    fill(work, 4)
    merger.merge(work)
    merger["run"] = RUN
    work.processes[0].exit()
    merger.passes(2)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)
    work.processes[0].exit()
    work.processes[0].exit()
    merger.passes(2)
    # One sharer is left of each: nothing is saved any more.
    assert merger.counts() == (PAGES, 0, 0)
    work.check()
    work.processes[0].exit()
    wait_empty(merger)


def wait_empty(merger: Merger) -> None:
    """The last process is gone: the scanner, having nothing left to scan, forgets all."""
    probe = MemWork(merger.guest)
    with probe:
        probe.process().map(pages=1).fill(Kind.FILLED, 1)
        merger.passes(2)
    assert merger.counts() == (0, 0, 0)


def test_exits_while_merging(merger: Merger, work: MemWork) -> None:
    merger["run"] = RUN
    for _ in range(15):
        fill(work, 3)
        work.check()
        for process in list(work.processes):
            process.exit()
    wait_empty(merger)


def test_unload_while_merged_and_in_tree_goes_on(
    merger: Merger, guest: Guest, module: BuiltModule, work: MemWork
) -> None:
    merger["use_zero_pages"] = 1
    fill(work)
    zero = work.processes[0].map(pages=40)
    zero.fill(Kind.ZERO)
    merger.merge(work)
    assert merger.counts() == (PAGES, 2 * PAGES, 40)
    guest.rmmod("samepage")
    assert guest.read_files([SAMEPAGE + "merges"]) == {SAMEPAGE + "merges": None}
    assert merger.counts() == (0, 0, 0)
    assert not any(area.merged_pages().any() for area in work.areas)
    work.check()
    # The processes are registered with in-tree KSM again, which works.
    merger.hurry()
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts()[:2] == (PAGES + 1, 2 * PAGES + 39)
    work.check()
    # And back, over live in-tree pages, inheriting its settings.
    guest.insmod(module.ko)
    assert merger["run"] == RUN
    assert merger["pages_to_scan"] == QUICK["pages_to_scan"]
    merger.passes()
    assert merger.counts()[:2] == (PAGES + 1, 2 * PAGES + 39)
    work.check()
    guest.rmmod("samepage")
    assert merger["run"] == RUN, "in-tree KSM runs again, as it did when the module was loaded"
    work.check()
    merger["run"] = UNMERGE
    assert merger.counts()[:2] == (0, 0)
    merger["run"] = STOP
    guest.insmod(module.ko)


def test_unload_under_load(merger: Merger, guest: Guest, module: BuiltModule, work: MemWork) -> None:
    fill(work)
    merger["run"] = RUN
    storm = guest.spawn(["sh", "-c", "while :; do (exec true) & (sleep 0.01) & wait; done"])
    busy = work.processes[0].map(pages=64)
    busy.fill(Kind.FILLED, KEY)
    busy.rewrite(KEY + 5000, per_second=1000)
    guest.rmmod("samepage")
    guest.insmod(module.ko)
    merger["run"] = RUN
    merger.passes(1)
    storm.kill()
    busy.process.stop_rewriting()
    work.check()
    assert merger["pages_sharing"] > 0


def test_in_tree_files_are_there_before_and_after(merger: Merger, guest: Guest, module: BuiltModule) -> None:
    paths = [KSM + name for name in TREE_FILES]
    ours = set(guest.run(["ls", KSM]).text.split())
    assert None not in guest.read_files(paths).values()
    guest.rmmod("samepage")
    theirs = set(guest.run(["ls", KSM]).text.split())
    assert None not in guest.read_files(KSM + name for name in theirs.intersection(TREE_FILES)).values()
    guest.insmod(module.ko)
    newer = NEWER_FILES if "smart_scan" not in theirs else set()
    assert ours - newer == theirs
    assert newer <= ours


def test_refused_without_ftrace_leaves_no_trace(
    merger: Merger, guest: Guest, module: BuiltModule, work: MemWork
) -> None:
    guest.rmmod("samepage")
    fill(work)
    merger.hurry()
    merger["run"] = RUN
    try:
        guest.write("/proc/sys/kernel/ftrace_enabled", "0")
    except GuestFileError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        guest.insmod(module.ko)
        pytest.skip("this kernel does not let ftrace be disabled, so there is nothing to refuse")
    try:
        with pytest.raises(CheckFailed):
            guest.insmod(module.ko)
    finally:
        guest.write("/proc/sys/kernel/ftrace_enabled", "1")
    assert "cannot livepatch" in guest.run(["dmesg"]).text
    assert guest.read_files([SAMEPAGE + "merges"]) == {SAMEPAGE + "merges": None}
    assert merger["run"] == RUN, "in-tree KSM goes on"
    merger.passes(4)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)
    work.check()
    merger["run"] = STOP
    guest.insmod(module.ko)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", "3"), ("run", "-1"), ("run", "x"), ("pages_to_scan", "-1"), ("pages_to_scan", "x"),
        ("sleep_millisecs", "4294967296"), ("max_page_sharing", "1"), ("max_page_sharing", "-5"),
        ("merge_across_nodes", "2"), ("use_zero_pages", "?"), ("smart_scan", "?"), ("advisor_mode", "full"),
        ("advisor_target_scan_time", "0"), ("advisor_max_cpu", "x"), ("pages_shared", "1"),
    ],
)  # fmt: skip
def test_bad_values_change_nothing(merger: Merger, guest: Guest, name: str, value: str) -> None:
    before = guest.read(KSM + name)
    result = guest.run(["sh", "-c", f"printf %s {value!r} > {KSM}{name}"], check=False)
    assert result.exit_code != 0
    assert guest.read(KSM + name) == before
