# SPDX-License-Identifier: MIT
"""Modules that are livepatches: the kernel moves to and from them task by task.

Linux Documentation/livepatch/livepatch.rst: `transition` is 1 while tasks are being moved; a disabled patch's directory
goes away when all are back, and only then can its module be unloaded.
"""

from __future__ import annotations

import time
from typing import Protocol

from harness.errors import CheckFailed
from harness.guest.errors import CommandTimeout

_POLL_SECONDS = 0.05
_FOLDER = "/sys/kernel/livepatch"
_SHOWN_BY_SYSRQ = "lt"
"""What a disabling that does not end leaves in the kernel log: what the CPUs do, and where every task is."""


class Files(Protocol):
    """What this needs of a guest."""

    def read_files(self, paths: list[str]) -> dict[str, bytes | None]:
        """Return files; None for one that cannot be read."""

    def write(self, path: str, text: str, timeout: float = 60) -> None:
        """Write to a file; raises CommandTimeout."""

    def pause(self, seconds: float) -> None:
        """Let it go on for so long."""


def _transition(guest: Files, name: str) -> bytes | None:
    path = f"{_FOLDER}/{name}/transition"
    return guest.read_files([path])[path]


def wait_patched(guest: Files, name: str, timeout: float) -> None:
    """Wait until every task runs the patched functions; at once for a module that is no livepatch."""
    _wait(guest, name, (None, b"0\n"), "patched", timeout)


def disable(guest: Files, name: str, timeout: float) -> None:
    """Disable a livepatch and wait until it is gone; nothing to do for a module that is no livepatch."""
    if _transition(guest, name) is None:
        return
    try:
        # It takes as long as the module's own callbacks, and as every task to schedule once for each function.
        guest.write(f"{_FOLDER}/{name}/enabled", "0", timeout)
    except CommandTimeout:
        for what in _SHOWN_BY_SYSRQ:
            guest.write("/proc/sysrq-trigger", what)
        raise
    _wait(guest, name, (None,), "unpatched", timeout)


def _wait(guest: Files, name: str, states: tuple[bytes | None, ...], goal: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while _transition(guest, name) not in states:
        if time.monotonic() > deadline:
            raise CheckFailed(
                f"not all tasks were {goal} within {timeout:.0f} s",
                where=f"livepatch {name}",
                hint=f"/proc/*/patch_state in the guest says which are not; {_FOLDER}/{name}/force is the last resort.",
            )
        guest.pause(_POLL_SECONDS)
