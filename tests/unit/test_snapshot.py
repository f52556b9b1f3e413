# SPDX-License-Identifier: MIT
"""Which guests are restored, and from which snapshot."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.guest.commandline import GuestSockets, QemuFiles, SnapshotFiles, qemu_arguments
from harness.guest.qemu import Qemu
from harness.guest.snapshot import MadeFrom, can_be_restored, describe
from harness.guest.spec import GuestSpec
from harness.image import Image


@pytest.fixture
def qemu(tmp_path: Path) -> Qemu:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho QEMU emulator version 10.0\n")
    program.chmod(0o755)
    return Qemu(None, program)


def image(sha256: str = "aa", folder: str = "/cache") -> Image:
    vmlinuz, vmlinux, initramfs, root, modules = (Path(folder, name) for name in "abcde")
    return Image("6.12", "6.12.0", vmlinuz, vmlinux, initramfs, root, modules, sha256)


@pytest.mark.parametrize(
    "changed",
    [
        {"memory_mib": 2048},
        {"cpus": 4},
        {"numa_nodes": 2},
        {"append": ("movablecore=512M",)},
        {"qemu_arguments": ("-device", "virtio-rng-pci")},
    ],
)
def test_each_kind_of_guest_has_a_snapshot_of_its_own(qemu: Qemu, changed: dict[str, object]) -> None:
    other = dataclasses.replace(GuestSpec(), **changed)  # type: ignore[arg-type]
    assert describe(image(), qemu, "tcg", GuestSpec()).key != describe(image(), qemu, "tcg", other).key


def test_everything_that_a_snapshot_is_made_from_is_in_its_name(qemu: Qemu, tmp_path: Path) -> None:
    first = describe(image(), qemu, "tcg", GuestSpec())
    newer = tmp_path / "newer"
    newer.write_text(qemu.program.read_text() + "# other bytes\n")
    newer.chmod(0o755)
    others = [
        describe(image("bb"), qemu, "tcg", GuestSpec()),
        describe(image(), qemu, "kvm", GuestSpec()),
        describe(image(), Qemu(None, newer), "tcg", GuestSpec()),
    ]
    assert len({made_from.key for made_from in [first, *others]}) == 4
    assert others[1].host_cpu  # -cpu max is the host's there
    assert not first.host_cpu  # and the same everywhere under TCG


def test_where_files_are_does_not_matter(qemu: Qemu) -> None:
    assert describe(image(folder="/a"), qemu, "tcg", GuestSpec()) == describe(
        image(folder="/b"), qemu, "tcg", GuestSpec(boot_timeout=7)
    )


def test_each_field_counts() -> None:
    made_from = MadeFrom(image="a", qemu="b", host_cpu="c", arguments=("d",))
    for name in MadeFrom.__struct_fields__:
        value: object = ("x",) if name == "arguments" else 99 if name == "protocol" else "x"
        other = MadeFrom(**{**{field: getattr(made_from, field) for field in MadeFrom.__struct_fields__}, name: value})
        assert other.key != made_from.key, name


@pytest.mark.parametrize(
    ("spec", "restored"),
    [
        (GuestSpec(), True),
        (GuestSpec(append=("root=/dev/vdz",)), True),
        (GuestSpec(qemu_arguments=("-device", "virtio-rng-pci", "-seed", "42")), True),
        (GuestSpec(kaslr=True), False),
        (GuestSpec(qemu_arguments=("-drive", "if=virtio,format=raw,file=disk")), False),
        (GuestSpec(qemu_arguments=("-fw_cfg", "name=opt/job,file=/tmp/job")), False),
        (GuestSpec(qemu_arguments=("-S",)), False),
    ],
)
def test_guests_that_must_not_all_be_the_same_are_booted(spec: GuestSpec, restored: bool) -> None:
    assert can_be_restored(spec) == restored


def arguments(spec: GuestSpec, *, saved: bool) -> str:
    files, sockets = QemuFiles("/k", "/i", "/r", "/m"), GuestSockets(3, 4, 5)
    return " ".join(qemu_arguments(spec, "tcg", files, sockets, SnapshotFiles("/a,b", saved=saved)))


def test_memory_is_a_file_that_restored_guests_cannot_change() -> None:
    saving, restoring = (arguments(GuestSpec(), saved=saved) for saved in (False, True))
    assert "id=node0,size=1024M,mem-path=/a,,b/memory0,share=on -machine memory-backend=node0" in saving
    assert "-incoming" not in saving
    assert "mem-path=/a,,b/memory0,share=off,readonly=on,rom=off" in restoring
    assert restoring.endswith("-incoming defer")


def test_each_node_has_a_file() -> None:
    text = arguments(GuestSpec(numa_nodes=2), saved=True)
    assert "id=node0,size=512M,mem-path=/a,,b/memory0,share=off" in text
    assert "id=node1,size=512M,mem-path=/a,,b/memory1,share=off" in text
    assert "memory-backend=node0" not in text
