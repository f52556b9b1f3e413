# SPDX-License-Identifier: MIT
"""What a guest that does not answer was doing: the kernel's stacks by sysrq over the serial line, registers by QMP."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path

from harness.guest.console import Console
from harness.guest.qmp import Qmp, QmpFailed

SYSRQ_KEYS = "lwt"
"""Stacks of all CPUs, of blocked tasks, of all tasks."""
_QUIET_SECONDS = 1.0
_KEY_SECONDS = 20.0
_NMI_SECONDS = 5.0
_MONITOR = {"registers.txt": "info registers -a", "cpus.txt": "info cpus", "interrupts.txt": "info lapic"}


def write_dump(console: Console, qmp: Qmp, folder: Path) -> list[Path]:
    """Write what can be found out into `folder` and return the files. Never fails because the guest does not answer.

    Takes up to 70 seconds with a guest whose kernel answers and has much to say, 10 with one that is dead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [_write(folder / "status.txt", _attempt(lambda: str(qmp.execute("query-status"))))]
    for name, line in _MONITOR.items():
        written.append(_write(folder / name, _attempt(functools.partial(qmp.human, line))))
    start = console.position
    for key in SYSRQ_KEYS:
        before = console.position
        with contextlib.suppress(QmpFailed):
            qmp.execute("chardev-send-break", id="console")
            console.send(key.encode())
            _wait_until_quiet(console, _KEY_SECONDS)
        if console.position == before:
            break  # interrupts are off, or the guest is stopped
    if console.position == start:
        # With unknown_nmi_panic an NMI makes a CPU that spins with interrupts off say where, and ends the guest.
        with contextlib.suppress(QmpFailed):
            qmp.execute("inject-nmi")
            _wait_until_quiet(console, _NMI_SECONDS)
    written.append(_write(folder / "sysrq.txt", console.text_since(start)))
    return written


def _attempt(work: Callable[[], object]) -> str:
    try:
        return str(work())
    except QmpFailed as error:
        return f"{error}\n"


def _write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def _wait_until_quiet(console: Console, timeout: float) -> None:
    """Wait until nothing more is printed, at most `timeout` seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and not console.ended.is_set():
        before = console.position
        time.sleep(_QUIET_SECONDS)
        if console.position == before:
            return
