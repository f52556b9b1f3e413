# SPDX-License-Identifier: MIT
"""What the parts of a run share: the guest, its counters over time, and whom to tell how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm import merging
from harness.ksm.counters import KSM, Counters
from harness.ksm.oracle import Expected
from harness.ksm.result import Merger
from harness.ksm.series import Sample, Series
from harness.ksm.workload import Merging, Tunables


class Observer(Protocol):
    """Who watches a run."""

    def phase(self, text: str) -> None:
        """Another phase began."""

    def sample(self, sample: Sample) -> None:
        """The counters were read."""

    def expected(self, pages: int) -> None:
        """That many pages can be saved."""

    def progress(self, what: str, done: int, total: int) -> None:
        """So many things of `what` are done."""


class ExpectedOf(Protocol):
    """Computes what merging can reach under these settings."""

    def __call__(self, *, max_page_sharing: int, use_zero_pages: bool) -> Expected:
        """Return it."""


@dataclass
class Session:
    """One guest with one merger, while a workload runs in it."""

    guest: Guest
    merger: Merger
    module: str | None
    """The name of the loaded module, None with the kernel's own merger."""
    series: Series
    observer: Observer
    timeout_factor: float
    before_merging: Counters | None = None

    @cached_property
    def max_page_sharing(self) -> int:
        """The setting that holds in the guest."""
        return int(self.guest.read(KSM + "max_page_sharing"))

    def phase(self, name: str, text: str) -> None:
        """Begin another phase: `name` for counters.csv, `text` for people."""
        self.series.phase = name
        self.observer.phase(text)

    def expected(self, compute: ExpectedOf, tunables: Tunables) -> Expected:
        """Return what merging can reach with the settings that hold in the guest."""
        expected = compute(max_page_sharing=self.max_page_sharing, use_zero_pages=tunables.use_zero_pages)
        self.observer.expected(expected.saved)
        return expected

    def settle(
        self,
        limits: Merging,
        expected: Callable[[], int | None],
        *,
        meanwhile: Iterator[None] | None = None,
        slack: int = 0,
    ) -> Sample:
        """Wait for merging to come to its end."""
        factor = self.timeout_factor
        return merging.settle(self.series, limits, expected, meanwhile=meanwhile, slack=slack, timeout_factor=factor)

    def hand_back(self) -> None:
        """Unmerge everything: unload the module while pages are merged, or have the kernel's own merger unmerge."""
        if self.module is not None:
            self.guest.rmmod(self.module)
        else:
            merging.switch(self.guest, merging.UNMERGE)
        left = int(self.guest.read(KSM + "pages_sharing")) + int(self.guest.read(KSM + "pages_shared"))
        if left:
            raise CheckFailed(f"{left} pages are still merged after everything was to be unmerged")
