# SPDX-License-Identifier: MIT
"""What a guest looks like, and QEMU's command line for it."""

from __future__ import annotations

import pytest

from harness.errors import SamepageError
from harness.guest.commandline import GuestSockets, QemuFiles, qemu_arguments
from harness.guest.spec import GuestSpec

FILES = QemuFiles("/vmlinux", "/initramfs", "/a,b/root.erofs", "/modules.erofs")
SOCKETS = GuestSockets(console=10, channel=11, qmp=12)


def line(spec: GuestSpec | None = None, accelerator: str = "tcg") -> str:
    return " ".join(qemu_arguments(spec or GuestSpec(), accelerator, FILES, SOCKETS))


def test_what_every_guest_has() -> None:
    text = line()
    for words in (
        "-nodefaults -no-user-config -no-reboot -no-shutdown",
        "-machine q35",
        "-accel tcg,thread=multi -cpu max,-erms,-fsrm,-fsrs,-fzrm,-fsrc",
        "-chardev socket,id=console,fd=10 -serial chardev:console",
        "-chardev socket,id=qmp,fd=12 -mon chardev=qmp,mode=control",
        "-chardev socket,id=channel,fd=11",
        "name=org.samepage.channel",
        "read-only=on,file.driver=file,file.filename=/a,,b/root.erofs",
        "virtio-blk-pci,drive=root,serial=root",
        "virtio-blk-pci,drive=modules,serial=modules",
        "console=ttyS0 panic=-1",
    ):
        assert words in text
    # No port of the host's, no file that could be written to.
    assert "-nic none" in text
    assert "tcp" not in text
    assert "path=" not in text


def test_kvm() -> None:
    assert "-accel kvm -cpu max" in line(accelerator="kvm")


def test_numa() -> None:
    text = line(GuestSpec(memory_mib=2048, cpus=4, numa_nodes=2))
    assert "-smp 4,sockets=2 -m 2048M" in text
    assert "size=1024M -numa node,nodeid=0,memdev=node0,cpus=0-1" in text
    assert "-numa node,nodeid=1,memdev=node1,cpus=2-3" in text
    assert "-numa" not in line()


def test_additions_come_last() -> None:
    text = line(GuestSpec(append=("quiet", "x=1"), qemu_arguments=("-seed", "42")))
    assert "quiet x=1 -chardev" in text
    assert text.endswith("-seed 42")


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"memory_mib": 64}, "at least 128 MiB"),
        ({"cpus": 0}, "at least one CPU"),
        ({"cpus": 3, "numa_nodes": 2}, "3 CPUs and 1024 MiB cannot be divided evenly among 2"),
        ({"numa_nodes": 0}, "among 0 NUMA nodes"),
    ],
)
def test_guests_that_cannot_be(spec: dict[str, int], complaint: str) -> None:
    with pytest.raises(SamepageError, match=complaint):
        GuestSpec(**spec)  # type: ignore[arg-type]
