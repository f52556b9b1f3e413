# SPDX-License-Identifier: MIT
"""The kernel's trace buffer in a guest: where it is, and how events are switched on without patching the scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.guest.guest import Guest

TRACING = "/sys/kernel/tracing/"
"""tracefs, which the guest's init mounts."""


def name_no_tasks(guest: Guest) -> None:
    """Have the kernel not note the name of each task that it switches to while any event is on.

    For that it patches the code of __schedule(), which every CPU runs all the time, and QEMU's TCG may then run what
    stood there before (docs/guests.md, "Patched code"): the guest dies: `Oops: int3`. Lines show `<...>` for a name.
    """
    guest.write(TRACING + "options/record-cmd", "0")


def read_trace(guest: Guest) -> str:
    """Return what is in the buffer as text, its head first."""
    return guest.run(["cat", TRACING + "trace"]).text


def clear_trace(guest: Guest) -> None:
    """Forget what was traced: opening the file for truncation does it."""
    guest.run(["sh", "-c", f": > {TRACING}trace"])


@contextmanager
def probed(guest: Guest, name: str, *functions: str) -> Iterator[None]:
    """Have an event, `kprobes/NAME`, where the one of these functions begins that the kernel has.

    By address: modules may have functions of the same name. Raises ValueError when there is no such function, or more.
    """
    names = [line.split() for line in guest.read("/proc/kallsyms").splitlines()]
    (address,) = [line[0] for line in names if line[2] in functions and len(line) == 3]
    name_no_tasks(guest)
    guest.write(TRACING + "kprobe_events", f"p:{name} 0x{address}\n")
    guest.write(TRACING + f"events/kprobes/{name}/enable", "1")
    try:
        yield
    finally:
        if guest.healthy:
            guest.write(TRACING + f"events/kprobes/{name}/enable", "0")
            guest.write(TRACING + "kprobe_events", f"-:{name}\n")
