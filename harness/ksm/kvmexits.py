# SPDX-License-Identifier: MIT
"""Why a virtual machine in the guest left KVM, as the guest's trace buffer has it: what is left of one that reset.

A triple fault says nothing on any console, and KVM has cleared the machine's registers when QEMU learns of it.
"""

from __future__ import annotations

from harness.errors import SamepageError
from harness.guest.guest import Guest
from harness.guest.tracing import TRACING, name_no_tasks

EVENTS = ("kvm_exit", "kvm_inj_virq", "kvm_inj_exception")
SHUTDOWN = "exit_reason == 0x7f || exit_reason == 2"
"""A triple fault, in the words of SVM and of VMX."""
SHOWN_LINES = 40


def record(guest: Guest) -> None:
    """Begin: the buffer keeps the last some thousand exits of all machines, and stops when one resets."""
    name_no_tasks(guest)
    guest.write(f"{TRACING}events/kvm/kvm_exit/trigger", f"traceoff if {SHUTDOWN}")
    for event in EVENTS:
        guest.write(f"{TRACING}events/kvm/{event}/enable", "1")


def go_on(guest: Guest) -> None:
    """Record again after a machine has reset, which is how one ends that was asked to."""
    guest.write(f"{TRACING}tracing_on", "1")


def last(guest: Guest) -> str:
    """Return the last exits, and in which function of its kernel the machine was at the very last one."""
    script = (
        f"tail -n {SHOWN_LINES} {TRACING}trace > /run/exits; cat /run/exits; "
        # Guest and machines boot the same kernel, to the same address.
        "rip=$(sed -n 's/.*reason shutdown rip 0x\\([0-9a-f]*\\).*/\\1/p' /run/exits | tail -n 1); "
        """[ -z "$rip" ] || awk -v rip="$rip" '$1 > rip { print "rip is in " f; exit } { f = $3 }' /proc/kallsyms"""
    )
    try:
        return guest.run(["sh", "-c", script], check=False).text.rstrip() or "none was recorded"
    except SamepageError as error:
        return f"cannot be read: {error}"
