# SPDX-License-Identifier: MIT
"""What a guest looks like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import SamepageError

_LOCKSTEP_MIB = 640
"""For what its disks would hold, twice while it is unpacked."""


@dataclass(frozen=True)
class GuestSpec:
    """Size and kernel arguments of a guest."""

    memory_mib: int = 1024
    cpus: int = 2
    numa_nodes: int = 1
    """Memory and CPUs are divided evenly among them."""
    append: tuple[str, ...] = ()
    """Kernel arguments in addition to the harness's own; a later one overrides an earlier one."""
    disks: tuple[tuple[str, Path], ...] = ()
    """More disks, read-only: serial number and file of each."""
    qemu_arguments: tuple[str, ...] = ()
    """Arguments for QEMU in addition to the harness's own."""
    lockstep: bool = False
    """Repeat to the last instruction what is done with it by one thread (lockstep.py): slower, booted each time."""
    accelerator: str | None = None
    """`kvm` or `tcg`; None takes the configured one."""
    kaslr: bool = False
    """Boot the compressed kernel, which chooses its address at random, at the price of decompressing it first."""
    boot_timeout: float = 120
    """Seconds from the start of QEMU until the agent must have answered."""

    def __post_init__(self) -> None:
        if self.memory_mib < 128:
            raise SamepageError(f"a guest needs at least 128 MiB of memory, not {self.memory_mib}")
        if self.cpus < 1:
            raise SamepageError(f"a guest needs at least one CPU, not {self.cpus}")
        if self.lockstep:
            self._check_lockstep()
        if self.numa_nodes < 1 or self.cpus % self.numa_nodes or self.memory_mib % self.numa_nodes:
            size = f"{self.cpus} CPUs and {self.memory_mib} MiB"
            raise SamepageError(f"{size} cannot be divided evenly among {self.numa_nodes} NUMA nodes")

    def _check_lockstep(self) -> None:
        if self.disks or self.qemu_arguments:
            raise SamepageError("a guest in lockstep has no disks or devices more: when they do something is chance")
        if self.accelerator == "kvm":
            raise SamepageError("a guest in lockstep is emulated: KVM counts no instructions")
        if self.memory_mib < _LOCKSTEP_MIB:
            raise SamepageError(f"a guest in lockstep needs at least {_LOCKSTEP_MIB} MiB, not {self.memory_mib}")
