# SPDX-License-Identifier: MIT
"""Switching merging on and off in a guest, and waiting for it to come to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from harness.errors import CheckFailed, SamepageError
from harness.ksm.counters import KSM
from harness.ksm.series import Sample, Series
from harness.ksm.workload import Merging, Tunables

POLL_SECONDS = 0.1
STOP, RUN, UNMERGE = "0", "1", "2"


class Writer(Protocol):
    """Where a sysfs file can be written: a guest."""

    def write(self, path: str, text: str) -> None:
        """Give an existing file this text in one write."""


def configure(guest: Writer, tunables: Tunables) -> dict[str, str]:
    """Write the tunables; return which files got what. Merging does not run yet."""
    files = tunables.files()
    for name, value in files.items():
        try:
            guest.write(KSM + name, value)
        except SamepageError as error:
            raise SamepageError(f"the kernel does not take {value!r}: {error.what}", where=KSM + name) from error
    return files


def switch(guest: Writer, run: str) -> None:
    """Write `run`: STOP, RUN or UNMERGE."""
    guest.write(KSM + "run", run)


@dataclass
class _Progress:
    """What was last worth waiting on."""

    saved: int = -(1 << 62)
    scans_at_change: int = 0


def settle(
    series: Series,
    merging: Merging,
    expected: Callable[[], int | None],
    *,
    meanwhile: Iterator[None] | None = None,
    slack: int = 0,
    timeout_factor: float = 1,
) -> Sample:
    """Wait until merging has come to its end (see Merging); return the last reading.

    `expected` says how many pages can be saved. A step of `meanwhile` is made after each reading; the end is not before
    they are done. Up to `slack` pages more or less are no change, where whoever holds them goes on writing.
    Raises CheckFailed when the time limit is over.
    """
    deadline = time.monotonic() + merging.timeout * timeout_factor
    sample = series.take()
    progress = _Progress(scans_at_change=sample.counters["ksm.full_scans"])
    disturbed_at = progress.scans_at_change
    goal: int | None = None
    while time.monotonic() < deadline:
        if meanwhile is not None and next(meanwhile, "over") is None:
            goal = None
            disturbed_at = sample.counters["ksm.full_scans"]
        elif goal is None:
            goal = expected()
        time.sleep(POLL_SECONDS)
        sample = series.take()
        if _is_settled(sample, progress, merging, goal, disturbed_at, slack):
            return sample
    raise CheckFailed(
        f"merging has not come to its end in {merging.timeout * timeout_factor:.0f} s: {_state(sample, goal)}",
        hint="Raise merging.timeout in the workload, or look into counters.csv at what it did.",
    )


def _is_settled(
    sample: Sample, progress: _Progress, merging: Merging, goal: int | None, disturbed_at: int, slack: int
) -> bool:
    scans, saved = sample.counters["ksm.full_scans"], sample.counters.saved_pages
    if abs(saved - progress.saved) > slack:
        progress.saved, progress.scans_at_change = saved, scans
    quiet_since = max(disturbed_at, progress.scans_at_change)
    # More than what is expected is a counter that has not caught up with a write yet.
    reached = goal is not None and saved == goal and scans - disturbed_at > merging.least_scans
    return reached or scans - quiet_since > merging.idle_scans


def _state(sample: Sample, goal: int | None) -> str:
    counters = sample.counters
    wanted = "" if goal is None else f" of {goal}"
    return f"{counters.saved_pages}{wanted} pages saved after {counters['ksm.full_scans']} full scans"
