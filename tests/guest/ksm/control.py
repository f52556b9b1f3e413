# SPDX-License-Identifier: MIT
"""A merger in a guest, as tests use it: files under /sys/kernel/mm/ksm, and waiting for passes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm import checker
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork

KSM = "/sys/kernel/mm/ksm/"
SAMEPAGE = "/sys/kernel/mm/samepage/"
STOP, RUN, UNMERGE = 0, 1, 2
PASSES_TO_MERGE = 3
"""Pages are seen in the first, merged in the second; a third for what the second one was too early for."""


@dataclass(frozen=True)
class Merger:
    """The merger that is in force in a guest."""

    guest: Guest

    def __getitem__(self, name: str) -> int:
        return int(self.guest.read(KSM + name))

    def __setitem__(self, name: str, value: int | str) -> None:
        self.guest.write(KSM + name, str(value))

    def samepage(self, name: str) -> int:
        """Return one of the module's own counters."""
        return int(self.guest.read(SAMEPAGE + name))

    def set_samepage(self, name: str, value: int) -> None:
        """Set one of the module's own tunables."""
        self.guest.write(SAMEPAGE + name, str(value))

    def counters(self) -> dict[str, int]:
        """Return every number in the folder, read in one go."""
        files = self.guest.read_files([KSM])
        return {path.removeprefix(KSM): int(text) for path, text in files.items() if text and text.strip().isdigit()}

    @property
    def in_force(self) -> bool:
        """Whether the merger is the module."""
        path = "/sys/module/samepage/version"
        return self.guest.read_files([path])[path] is not None

    def check(self) -> dict[str, int]:
        """Let the module check all that it knows; return what it counted. CheckFailed when it finds a fault."""
        return checker.check(self.guest)

    def passes(self, count: int = PASSES_TO_MERGE, timeout: float = 60) -> None:
        """Wait for that many full passes from now on; the one under way does not count."""
        self.wait_for_scans(self["full_scans"] + count + 1, timeout)

    def wait_for_scans(self, goal: int, timeout: float = 60) -> None:
        """Wait until that many passes were made in all; the time is a stock kernel's."""
        timeout *= self.guest.timeout_factor
        deadline = time.monotonic() + timeout
        while self["full_scans"] < goal:
            if time.monotonic() > deadline:
                raise CheckFailed(f"full_scans is not {goal} after {timeout:.0f} s: {self.counters()}")
            time.sleep(0.05)

    def merge(self, work: MemWork) -> dict[str, int]:
        """Let everything merge that can; return the counters, the model of `work` brought up to date."""
        self["run"] = RUN
        self.passes()
        # A pass over little memory can be over before the pages written last have left the per-CPU lists.
        for _ in range(20):
            if self.counts() == self.expected(work):
                break
            self.passes(1)
        work.note_merged()
        return self.counters()

    def merges_all(self, work: MemWork, key: int, pages: int = 300) -> None:
        """Check that two processes' equal pages are merged, from none at all, and keep their content."""
        self.hurry()
        while len(work.processes) < 2:
            work.process().map(pages=pages).fill(Kind.FILLED, key, step=1)
        self["run"] = UNMERGE
        assert self.counts() == (0, 0, 0)
        self["run"] = RUN
        self.passes(4)
        assert self.counts() == (pages, pages, 0)
        work.check()

    def counts(self) -> tuple[int, int, int]:
        """Return pages_shared, pages_sharing, ksm_zero_pages."""
        now = self.counters()
        return now["pages_shared"], now["pages_sharing"], now.get("ksm_zero_pages", 0)

    def expected(self, work: MemWork) -> tuple[int, int, int]:
        """Return what `counts` must be when all that can be merged is."""
        now = self.counters()
        goal = work.expected(max_page_sharing=now["max_page_sharing"], use_zero_pages=bool(now["use_zero_pages"]))
        return goal.pages_shared, goal.pages_sharing, goal.ksm_zero_pages if "ksm_zero_pages" in now else 0

    def reset(self) -> None:
        """Unmerge all, and set what tests assume."""
        self["run"] = UNMERGE
        self.hurry()

    def hurry(self) -> None:
        """Set what tests assume, as far as this merger (in-tree KSM of Linux 6.1, for one) has it."""
        present = self.counters().keys()
        for name, value in QUICK.items():
            if name in present:
                self[name] = value


QUICK = {
    "pages_to_scan": 100000,
    "sleep_millisecs": 1,
    "max_page_sharing": 256,
    "use_zero_pages": 0,
    "smart_scan": 0,
}
