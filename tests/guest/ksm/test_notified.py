# SPDX-License-Identifier: MIT
"""Memory that a virtual machine may write to: no entry of the process's page table tells of that, only contents do."""

from __future__ import annotations

import json

import pytest

from harness.guest.guest import Guest
from harness.ksm.machine import LOAD_KVM
from tests.guest.ksm.control import RUN, Merger
from tests.guest.ksm.test_why import KVM_CREATE_VM

pytestmark = pytest.mark.guest(cpus=2)

PAGES = 4096
FILED, UNSEEN = 4, 8
"""Passes until pages are filed, and in how many of them smart scan looks at each of these once."""
SCRIPT = f"""
import fcntl, json, mmap, os, sys, time
def count(name):
    return int(open("/sys/kernel/mm/ksm/" + name).read())
def passes(number):
    goal, deadline = count("full_scans") + number + 1, time.monotonic() + 120
    while count("full_scans") < goal:
        assert time.monotonic() < deadline, count("full_scans")
        time.sleep(0.01)
machine = fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), {KVM_CREATE_VM}, 0)
memory = mmap.mmap(-1, {PAGES} << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory.madvise(mmap.MADV_MERGEABLE)
content = b"".join(number.to_bytes(8, "little") + bytes(4088) for number in range(1, {PAGES} + 1))
memory[:] = content
passes({FILED})
before, began = count("pages_skipped"), count("full_scans")
passes({2 * UNSEEN})
skipped, made = count("pages_skipped") - before, count("full_scans") - began
memory[:] = content[:4096] * {PAGES}
passes(int(sys.argv[1]))
right = memory[:] == content[:4096] * {PAGES}
print(json.dumps([skipped / made, count("pages_sharing") + count("pages_shared"), right]))
"""


def measured(guest: Guest, merger: Merger, *, smart_scan: bool, passes: int) -> tuple[float, int, bool]:
    """Return pages skipped a pass while none changes, pages merged `passes` after all did, whether all are right."""
    merger["smart_scan"] = int(smart_scan)
    merger["run"] = RUN
    guest.run(["sh", "-c", LOAD_KVM])
    skipped, merged, right = json.loads(guest.run(["python3", "-c", SCRIPT, str(passes)], timeout=300).text)
    return skipped, merged, right


def test_smart_scan_looks_at_an_eighth_in_turn(guest: Guest, merger: Merger) -> None:
    skipped, merged, right = measured(guest, merger, smart_scan=True, passes=UNSEEN + FILED)
    assert 0.8 * PAGES < skipped < 0.9 * PAGES  # a pass that is under way counts as none
    assert (merged, right) == (PAGES, True)


def test_without_smart_scan_all_is_looked_at_in_each_pass(guest: Guest, merger: Merger) -> None:
    assert measured(guest, merger, smart_scan=False, passes=FILED) == (0, PAGES, True)
