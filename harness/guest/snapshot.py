# SPDX-License-Identifier: MIT
"""Fresh guests without a boot: each kind of guest is booted once, saved, and restored for everyone who asks for one.

A snapshot is what QEMU had in its hands when the agent had said hello and nothing else had happened: a file that was
the guest's memory (each restored guest maps it privately, so that only the pages it touches are read), and one with
the state of CPUs and devices. Disks are read-only, what was written over them is in memory.

Everything that it was made from is in its name, so that one which does not fit any more is not even looked at.
"""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path

import msgspec

from harness.config import Config
from harness.guest.accel import choose_accelerator
from harness.guest.commandline import GuestSockets, QemuFiles, SnapshotFiles, qemu_arguments
from harness.guest.errors import SnapshotFailed
from harness.guest.guest import Guest
from harness.guest.machine import kernel_of
from harness.guest.protocol import PROTOCOL_VERSION
from harness.guest.qemu import Qemu, find_qemu
from harness.guest.spec import GuestSpec
from harness.image import GuestNeeds, Image
from harness.store import built_folder, key_of

_LAYOUT = "1"
"""Raised when snapshots come to be made in another way."""
_KEEP = 12
"""Snapshots of each kernel that stay in the cache."""
_OUTSIDE = ("/", "file", "path=", "fd=", "host", "drive", "dev=")
"""Parts of QEMU's arguments that name something which is not the guest's own."""
_MADE_FROM = "snapshot.json"


class MadeFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what a snapshot holds; kept beside it for people."""

    layout: str = _LAYOUT
    protocol: int = PROTOCOL_VERSION
    image: str
    """SHA-256 over kernel, initramfs, root and modules."""
    qemu: str
    """SHA-256 of the executable, and where its firmware is from."""
    host_cpu: str
    """What `-cpu max` depends on under KVM."""
    arguments: tuple[str, ...]
    """QEMU's, with names in place of paths and descriptors: the size and all else that the spec says."""

    @property
    def key(self) -> str:
        """A name for it."""
        return key_of(msgspec.json.encode(self))


def can_be_restored(spec: GuestSpec) -> bool:
    """Whether guests of this kind may all begin in the same state.

    Not one whose kernel chooses its address at random or that is in lockstep, and not one whose QEMU is given a file, a
    device of the host's or a connection: nobody knows whether those are the same each time, and a disk's content is not
    saved.
    """
    return not (spec.kaslr or spec.lockstep or spec.disks) and not any(
        _names_something(word) for word in spec.qemu_arguments
    )


def suited(spec: GuestSpec, needs: GuestNeeds) -> GuestSpec:
    """Return the guest that was asked for, as its kernel needs it."""
    append = (*needs.append, *spec.append)
    return dataclasses.replace(spec, memory_mib=spec.memory_mib * needs.memory_factor, append=append)


def start_guest(config: Config, image: Image, spec: GuestSpec, folder: Path) -> Guest:
    """Return a fresh guest whose logs go into `folder`: restored where that is wanted and possible, else booted.

    The first one of its kind is booted and saved before. Raises what `Guest.start` does, and SnapshotFailed.
    """
    spec = suited(spec, image.needs)
    if not (config.guest_snapshots and can_be_restored(spec)):
        return Guest.start(config, image, spec, folder)
    snapshot = ensure_snapshot(config, image, spec, folder)
    try:
        return Guest.restore(config, image, spec, folder, snapshot)
    except SnapshotFailed as error:
        hint = f"Remove {snapshot} to have it made anew; --no-snapshot boots guests without."
        raise SnapshotFailed(error.what, where=error.where, hint=hint) from error


def ensure_snapshot(config: Config, image: Image, spec: GuestSpec, folder: Path) -> Path:
    """Return the folder of the snapshot for these guests; where it is missing, boot one (logs in `folder`) and save it.

    Who asks for one that another process is just making waits for that.
    """
    qemu = find_qemu(config)
    accelerator = choose_accelerator(config, qemu, kernel_of(image, spec), spec.accelerator)
    made_from = describe(image, qemu, accelerator, spec)

    def build(partial: Path) -> None:
        Guest.save_booted(config, image, spec, folder, partial)
        (partial / _MADE_FROM).write_bytes(msgspec.json.format(msgspec.json.encode(made_from)) + b"\n")

    return built_folder(config.cache / "snapshots" / f"{image.kernel}-{made_from.key}", build, keep=_KEEP)


def describe(image: Image, qemu: Qemu, accelerator: str, spec: GuestSpec) -> MadeFrom:
    """Return what a snapshot of such a guest is made from."""
    files = QemuFiles("kernel", "initramfs", "root", "modules")
    arguments = qemu_arguments(spec, accelerator, files, GuestSockets(0, 2, 1), SnapshotFiles("snapshot", saved=False))
    return MadeFrom(
        image=image.sha256,
        # A tool root's name has the hash of every package in it.
        qemu=f"{qemu.sha256} {qemu.version} {qemu.root.name if qemu.root else qemu.program}",
        host_cpu=_host_cpu() if accelerator == "kvm" else "",
        arguments=tuple(arguments),
    )


def _host_cpu() -> str:
    """What KVM can give a guest: the host's processor and its kernel."""
    names = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")
    lines = Path("/proc/cpuinfo").read_text("utf-8").partition("\n\n")[0].splitlines()
    return "\n".join([platform.release(), *(line for line in lines if line.partition("\t")[0] in names)])


def _names_something(word: str) -> bool:
    return word == "-S" or any(part in word for part in _OUTSIDE)
