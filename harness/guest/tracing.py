# SPDX-License-Identifier: MIT
"""The kernel's trace buffer in a guest: where it is, and how events are switched on without patching the scheduler."""

from __future__ import annotations

from harness.guest.guest import Guest

TRACING = "/sys/kernel/tracing/"
"""tracefs, which the guest's init mounts."""


def name_no_tasks(guest: Guest) -> None:
    """Have the kernel not note the name of each task that it switches to while any event is on.

    For that it patches the code of __schedule(), which every CPU runs all the time, and QEMU's TCG may then run what
    stood there before (docs/guests.md, "Patched code"): the guest dies: `Oops: int3`. Lines show `<...>` for a name.
    """
    guest.write(TRACING + "options/record-cmd", "0")
