# SPDX-License-Identifier: MIT
"""On a processor without the CRC instruction pages are sampled in another way."""

from __future__ import annotations

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from tests.guest.ksm.control import Merger

PAGES = 300
KEY = 41 << 40

pytestmark = pytest.mark.guest(append=("clearcpuid=148",))  # SSE 4.2


def test_everything_is_merged(merger: Merger, guest: Guest, work: MemWork) -> None:
    assert " sse4_2 " not in guest.read("/proc/cpuinfo")
    merger["use_zero_pages"] = 1
    for _ in range(2):
        area = work.process().map(pages=PAGES)
        area.fill(Kind.FILLED, KEY, step=1, pages=range(PAGES - 20))
        area.fill(Kind.ZERO, pages=range(PAGES - 20, PAGES))
    merger.merge(work)
    assert merger.counts() == (PAGES - 20, PAGES - 20, 40) == merger.expected(work)
    work.check()
    merger.check()
