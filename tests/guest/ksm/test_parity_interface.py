# SPDX-License-Identifier: MIT
"""The interfaces around merging: smaps, the prctl, settings that depend on each other, the advisor, smart scan."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.ksm.processes import PFN_MASK, Area
from tests.guest.ksm.control import KSM, RUN, UNMERGE, Merger

PAGES = 300
KEY = 19 << 40
DEFAULT_PAGES_TO_SCAN = 100

pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2, numa_nodes=2)


def filled(work: MemWork, processes: int) -> list[Area]:
    mapped = [work.process().map(pages=PAGES) for _ in range(processes)]
    for area in mapped:
        area.fill(Kind.FILLED, KEY, step=1)
    return mapped


def frames(area: Area) -> list[int]:
    return [int(frame) for frame in area.frames()["pagemap"] & PFN_MASK]


def test_smaps_counts_merged_pages(merger: Merger, guest: Guest, work: MemWork) -> None:
    (area, *_) = filled(work, 2)
    if "\nKSM: " not in guest.read(f"/proc/{area.process.pid}/smaps"):
        pytest.skip("this kernel's smaps has no KSM line")
    merger.merge(work)
    for process in work.processes:
        lines = [line.split() for line in guest.read(f"/proc/{process.pid}/smaps").splitlines()]
        assert sum(int(line[1]) for line in lines if line[0] == "KSM:") == PAGES * 4
    merger["run"] = UNMERGE
    assert "KSM:                   0 kB" in guest.read(f"/proc/{area.process.pid}/smaps_rollup")


INHERITED = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
get = lambda: libc.prctl(68, 0, 0, 0, 0)
if len(sys.argv) > 1:
    print("exec", get(), flush=True)
    sys.exit()
if libc.prctl(67, 1, 0, 0, 0):
    print("errno", ctypes.get_errno())
    sys.exit()
print("set", get(), flush=True)
if os.fork() == 0:
    print("fork", get(), flush=True)
    os.execv(sys.executable, [sys.executable, "/tmp/inherited.py", "again"])
os.wait()
print("off", libc.prctl(67, 0, 0, 0, 0), get(), flush=True)
"""


@pytest.mark.usefixtures("merger")
def test_prctl_is_inherited_over_fork_and_exec(guest: Guest) -> None:
    guest.put(INHERITED.encode(), "/tmp/inherited.py")
    said = guest.run(["python3", "/tmp/inherited.py"]).text.splitlines()
    assert said == ["set 1", "fork 1", "exec 1", "off 0 0"]


@pytest.mark.parametrize(("name", "value"), [("max_page_sharing", 10), ("merge_across_nodes", 0)])
def test_what_keys_mean_cannot_change_while_merged(merger: Merger, work: MemWork, name: str, value: int) -> None:
    before = merger[name]
    filled(work, 2)
    merger.merge(work)
    with pytest.raises(GuestFileError) as refused:
        merger[name] = value
    assert refused.value.errno == errno.EBUSY
    assert merger[name] == before
    merger["run"] = UNMERGE
    merger[name] = value
    assert merger[name] == value
    merger[name] = before


def test_max_page_sharing_bounds_every_copy(merger: Merger, work: MemWork) -> None:
    merger["max_page_sharing"] = 10
    area = work.process().map(pages=95)
    area.fill(Kind.FILLED, KEY)
    counters = merger.merge(work)
    assert merger.counts() == (10, 85, 0)
    assert (counters["stable_node_chains"], counters["stable_node_dups"]) == (1, 10)
    _, users = np.unique(frames(area), return_counts=True)
    assert users.max() <= 10
    # Half of them go: the chain is pruned to what is still used.
    area.fill(Kind.FILLED, KEY + 1000, step=1, pages=range(50))
    merger["stable_node_chains_prune_millisecs"] = 0
    merger.passes(3)
    counters = merger.counters()
    assert counters["pages_shared"] + counters["pages_sharing"] == 45
    assert counters["stable_node_dups"] == counters["pages_shared"] < 10
    merger["stable_node_chains_prune_millisecs"] = 2000
    work.check()


def test_nodes_are_kept_apart(merger: Merger, work: MemWork) -> None:
    merger["merge_across_nodes"] = 0
    mapped = filled(work, 4)
    for number, area in enumerate(mapped):
        assert (area.move_to_node(number % 2) == number % 2).all()
    merger["run"] = RUN
    merger.passes(5)
    assert merger.counts() == (2 * PAGES, 2 * PAGES, 0)
    where = [frames(area) for area in mapped]
    assert where[0] == where[2]
    assert where[1] == where[3]
    assert not set(where[0]) & set(where[1])
    work.check()
    merger["run"] = UNMERGE
    merger["merge_across_nodes"] = 1
    merger["run"] = RUN
    merger.passes(5)
    assert merger.counts() == (PAGES, 3 * PAGES, 0)
    work.check()


def test_smart_scan_skips_what_never_merges(merger: Merger, work: MemWork) -> None:
    for number in range(2):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY + number * PAGES, step=1)
    merger["run"] = RUN
    merger.passes(12)
    off = merger["pages_skipped"]
    merger["smart_scan"] = 1
    merger.passes(12)
    skipped = merger["pages_skipped"] - off
    assert skipped > 2 * PAGES, "most of twelve passes go by without looking at them"
    # A page that was skipped is merged once it has a twin.
    work.processes[1].areas[0].fill(Kind.FILLED, KEY, step=1)
    merger.passes(20)
    assert merger.counts() == (PAGES, PAGES, 0)
    work.check()


def test_advisor_sets_pages_to_scan(merger: Merger, guest: Guest, work: MemWork) -> None:
    merger["advisor_mode"] = "scan-time"
    try:
        assert guest.read(KSM + "advisor_mode") == "none [scan-time]"
        with pytest.raises(GuestFileError) as refused:
            merger["pages_to_scan"] = 1234
        assert refused.value.errno == errno.EINVAL
        least = merger["advisor_min_pages_to_scan"]
        assert merger["pages_to_scan"] == least
        merger["advisor_target_scan_time"] = 1
        merger["sleep_millisecs"] = 100
        work.process().map(pages=20000).fill(Kind.FILLED, KEY, step=1)
        merger["run"] = RUN
        merger.passes(4, timeout=120)
        assert least < merger["pages_to_scan"] <= merger["advisor_max_pages_to_scan"]
    finally:
        merger["advisor_target_scan_time"] = 200
        merger["advisor_mode"] = "none"
    assert merger["pages_to_scan"] == DEFAULT_PAGES_TO_SCAN
