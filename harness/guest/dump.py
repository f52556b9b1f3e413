# SPDX-License-Identifier: MIT
"""What a guest that does not answer was doing: the kernel's stacks by sysrq over the serial line, registers by QMP."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path

from harness.guest.console import Console
from harness.guest.qmp import REGISTERS, Qmp, QmpFailed

SYSRQ_KEYS = "lwt"
"""Stacks of all CPUs, of blocked tasks, of all tasks."""
_QUIET_SECONDS = 1.0
_KEY_SECONDS = 20.0
_NMI_SECONDS = 15.0
_MONITOR = {"registers.txt": REGISTERS, "cpus.txt": "info cpus", "interrupts.txt": "info lapic"}


def write_dump(console: Console, qmp: Qmp, folder: Path) -> list[Path]:
    """Write what can be found out into `folder` and return the files. Never fails because the guest does not answer.

    Takes up to a minute when the guest's kernel has much to say. One whose kernel is dead ends by this.
    """
    folder.mkdir(parents=True, exist_ok=True)
    status = _attempt(lambda: qmp.execute("query-status"))
    written = [_write(folder / "status.txt", status)]
    for name, line in _MONITOR.items():
        written.append(_write(folder / name, _attempt(functools.partial(qmp.human, line))))
    start = console.position
    # Where the kernel cannot be asked, an NMI would end one that was well.
    if "'running': True" in status and console.takes_keys:
        with contextlib.suppress(QmpFailed):
            _ask_kernel(console, qmp)
    written.append(_write(folder / "sysrq.txt", console.text_since(start)))
    return written


def _ask_kernel(console: Console, qmp: Qmp) -> None:
    for key in SYSRQ_KEYS:
        before = console.position
        qmp.execute("chardev-send-break", id="console")
        console.send(key.encode())
        _wait_until_quiet(console, _KEY_SECONDS)
        if console.position == before:
            break
    else:
        return
    # Interrupts are off. With unknown_nmi_panic an NMI makes CPU 0 say where it is, and the kernel ends: it first
    # waits for the other CPUs and prints only then.
    qmp.execute("inject-nmi")
    console.ended.wait(_NMI_SECONDS)


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
