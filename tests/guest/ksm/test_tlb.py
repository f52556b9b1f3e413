# SPDX-License-Identifier: MIT
"""TLBs are flushed while the page table is locked: to MADV_FREE a clean entry is one that no CPU writes through."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from harness.guest.guest import Guest
from harness.guest.tracing import clear_trace, probed, read_trace
from harness.ksm.content import Kind
from harness.ksm.counters import find_scanners
from harness.ksm.memwork import MemWork
from harness.ksm.processes import PROT_READ
from tests.guest.ksm.control import RUN, STOP, Merger

PAGES = 1024
KEY = 43 << 40


@dataclass(frozen=True)
class Flush:
    """A call of flush_tlb_mm_range(): whose thread made it, and how often preemption was forbidden then."""

    pid: int
    depth: int


def flushes(guest: Guest) -> list[Flush]:
    """Return what was traced, oldest first. Of the flags (`d..1.`) the fourth is the depth, a dot for 0."""
    found = re.findall(r"-(\d+) +\[\d+\] ...(\S)\S* +\S+: flush: ", read_trace(guest))
    return [Flush(int(pid), 0 if depth == "." else int(depth, 16)) for pid, depth in found]


@pytest.mark.parametrize("thp", [False, True], ids=["small", "huge"])
def test_a_scanner_flushes_under_the_lock(merger: Merger, guest: Guest, work: MemWork, thp: bool) -> None:
    merger["run"] = STOP
    process = work.process()
    area = process.map(pages=PAGES, thp=thp)
    area.fill(Kind.FILLED, KEY, step=1)
    with probed(guest, "flush", "flush_tlb_mm_range"):
        area.protect(PROT_READ)
        no_lock = {flush.depth for flush in flushes(guest) if flush.pid == process.pid}
        assert len(no_lock) == 1, "mprotect() flushes with no lock of a page table's"
        clear_trace(guest)
        merger["run"] = RUN
        merger.passes(2)
        merger["run"] = STOP
        scanners = find_scanners(guest, guest.pids())
        ours = [flush for flush in flushes(guest) if flush.pid in scanners]
    assert len(ours) >= PAGES // 512, "each page table with pages that were written is flushed"
    assert min(flush.depth for flush in ours) > max(no_lock)
