# SPDX-License-Identifier: MIT
"""stress-ng with merging switched on for all of its memory, while processes whose every page is known are compared.

SAMEPAGE_STRESS_SECONDS=600 makes it the long run.
"""

from __future__ import annotations

import os
import time

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from tests.guest.ksm.control import RUN, STOP, Merger

SECONDS = int(os.environ.get("SAMEPAGE_STRESS_SECONDS", "20"))
PAGES = 1000
KEY = 17 << 40
# --ksm: MERGEABLE by prctl, or by madvise where the kernel lacks that; --verify: stress-ng checks its own memory.
STRESS = (
    *("stress-ng", "--ksm", "--verify", "--vm", "1", "--vm-bytes", "64M", "--vm-madvise", "mergeable"),
    *("--fork", "1", "--madvise", "1", "--temp-path", "/tmp", "--timeout", str(SECONDS)),
)

# The second half of memory keeps stress-ng's own peaks from being killed.
pytestmark = [pytest.mark.guest(memory_mib=1536, cpus=2), pytest.mark.timeout(600 + 2 * SECONDS)]


def test_contents_are_right_under_stress(merger: Merger, guest: Guest, work: MemWork) -> None:
    for _ in range(4):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts()[:2] == (PAGES, 3 * PAGES)
    before = merger.samepage("merges")
    stress = guest.spawn(STRESS)
    stress.close_stdin()
    turns = 0
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        writer = work.processes[turns % len(work.processes)]
        writer.areas[0].poke_each([(page, 16, turns) for page in range(turns % 7, PAGES, 7)])
        assert work.check() == 4 * PAGES
        turns += 1
    exit_code = stress.wait(timeout=180 + SECONDS)
    assert exit_code == 0, stress.stderr.decode(errors="replace")
    assert turns > 1
    assert merger.samepage("merges") > before, "what stress-ng wrote was merged, too"
    assert merger["run"] in (STOP, RUN)
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()
