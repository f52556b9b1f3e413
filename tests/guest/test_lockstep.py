# SPDX-License-Identifier: MIT
"""A guest in lockstep is a guest like any other; that it repeats itself is seen in ksm/test_fuzz.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import Config
from harness.errors import SamepageError
from harness.guest.errors import CommandTimeout, KernelSplat
from harness.guest.guest import Guest
from harness.guest.snapshot import start_guest
from harness.guest.spec import GuestSpec
from harness.image import Image

SPEC = GuestSpec(memory_mib=768, lockstep=True)
SIZE = 3 << 20


def test_it_is_used_as_any_other(config: Config, image: Image, tmp_path: Path) -> None:
    with start_guest(config, image, SPEC, tmp_path / "guest") as guest:
        check_streams(guest)
        before = guest.clocks()
        guest.pause(20)
        assert 20e9 < guest.clocks().monotonic - before.monotonic < 21e9, "by its own clock"
        with pytest.raises(CommandTimeout, match="killed"):
            guest.run(["sh", "-c", "while :; do :; done"], timeout=2)
        with pytest.raises(SamepageError, match="typed"), guest.console.session():
            pass
        assert "RIP" in (guest.dump() / "registers.txt").read_text()
        assert guest.read("/proc/sys/kernel/panic") == "-1", "it goes on"
        with pytest.raises(KernelSplat, match="sysrq triggered crash"):
            guest.write("/proc/sysrq-trigger", "c")
        assert not guest.running


def test_it_powers_off(config: Config, image: Image, tmp_path: Path) -> None:
    with start_guest(config, image, SPEC, tmp_path / "guest") as guest:
        assert sorted(path.name for path in guest.folder.iterdir()) == ["console.log", "qemu.log"]
        guest.poweroff()
        assert "Power down" in guest.folder.joinpath("console.log").read_text()


def check_streams(guest: Guest) -> None:
    """More than fits at once, both ways, from several programs."""
    data = bytes(range(256)) * (SIZE // 256)
    assert guest.run(["cat"], stdin=data).stdout == data
    talkers = [guest.spawn(["cat"]) for _ in range(3)]
    for number, talker in enumerate(talkers):
        talker.write(b"%d" % number * 1000)
    assert [talker.read(1000) for talker in talkers] == [b"%d" % number * 1000 for number in range(3)]
    assert [talker.wait() for talker in talkers] == [0, 0, 0]
    assert len(guest.get("/usr/bin/bash")) > 1 << 20


def test_what_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SamepageError, match="disks"):
        GuestSpec(lockstep=True, disks=(("more", tmp_path / "x"),))
    with pytest.raises(SamepageError, match="devices"):
        GuestSpec(lockstep=True, qemu_arguments=("-device", "virtio-net-pci"))
    with pytest.raises(SamepageError, match="KVM"):
        GuestSpec(lockstep=True, accelerator="kvm")
    with pytest.raises(SamepageError, match="at least 640 MiB"):
        GuestSpec(lockstep=True, memory_mib=512)
