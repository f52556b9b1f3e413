# SPDX-License-Identifier: MIT
"""The accelerator probe, with programs that behave like QEMUs met in the wild."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import psutil
import pytest

from harness.config import PACKAGE_PARENT, Config, load_config
from harness.errors import SamepageError
from harness.guest import accel
from harness.guest.accel import Verdict, choose_accelerator, kvm_verdict, probe_boot, probe_kvm
from harness.guest.qemu import Qemu, find_qemu
from harness.image.build import ensure_image


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return dataclasses.replace(load_config(PACKAGE_PARENT), cache=tmp_path / "cache", accelerator="auto")


def fake_qemu(tmp_path: Path, script: str) -> Qemu:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Qemu(None, program)


KERNEL = Path("/boot/vmlinux")
GOOD = """case "$*" in *-append*) echo 'Kernel panic: Unable to mount root fs'; exit 0;; esac; exit 85"""


@pytest.fixture
def openable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A /dev/kvm that opens, whatever this machine has."""
    monkeypatch.setattr(accel, "KVM", "/dev/null")


@pytest.mark.usefixtures("openable")
@pytest.mark.parametrize(
    ("script", "works", "reason"),
    [
        ("exit 85", True, "ran to its end"),
        ("exit 0", False, "ended with 0: it said nothing"),
        ("echo 'failed to initialize kvm: Permission denied' >&2; exit 1", False, "Permission denied"),
        ("echo 'kvm_buf_set_msrs: Assertion failed' >&2; kill -ABRT $$", False, "Assertion failed"),
    ],
)
def test_how_a_probe_ends(tmp_path: Path, script: str, works: bool, reason: str) -> None:
    verdict = probe_kvm(fake_qemu(tmp_path, script))
    assert verdict.works is works
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("script", "works", "reason"),
    [
        (GOOD, True, "kernel booted"),
        ("echo 'Linux version 6.12'; echo 'KVM internal error'; exit 0", False, "ended with 0: KVM internal error"),
        ("echo 'Linux version 6.12'; sleep 4711", False, "vmlinux did not boot within"),
    ],
)
def test_how_a_kernel_s_boot_ends(tmp_path: Path, script: str, works: bool, reason: str) -> None:
    verdict = probe_boot(fake_qemu(tmp_path, script), KERNEL, timeout=0.5)
    assert verdict.works is works
    assert reason in verdict.reason


@pytest.mark.usefixtures("openable")
def test_where_few_instructions_run_and_no_kernel(tmp_path: Path, config: Config) -> None:
    """Seen with a KVM in software: the payload ended well, and no kernel came out of its early set-up."""
    assert choose_accelerator(config, fake_qemu(tmp_path, "exit 85"), KERNEL) == "tcg"


@pytest.mark.usefixtures("openable")
def test_a_probe_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    begin = time.monotonic()
    verdict = probe_kvm(fake_qemu(tmp_path, "trap '' TERM INT; sleep 4711; sleep 4711"), timeout=0.5)
    assert not verdict.works
    assert "did not end within" in verdict.reason
    assert time.monotonic() - begin < 5
    deadline = time.monotonic() + 5
    while any(
        "4711" in process.info["cmdline"] for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]
    ):
        assert time.monotonic() < deadline, "a process of the probe lives on"
        time.sleep(0.05)


def test_a_device_that_is_missing_or_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "KVM", str(tmp_path / "none"))
    verdict = probe_kvm(fake_qemu(tmp_path, "exit 85"))
    assert verdict == Verdict(False, "the device is missing, or this user may not open it")


@pytest.mark.usefixtures("openable")
def test_the_verdict_is_remembered(tmp_path: Path, config: Config) -> None:
    count = tmp_path / "count"
    qemu = fake_qemu(tmp_path, GOOD)
    calls: list[str] = []

    def probe(_: Qemu) -> Verdict:
        calls.append("probe")
        return Verdict(True, "a guest ran to its end")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accel, "probe_kvm", probe)
        assert kvm_verdict(config, qemu, KERNEL).works
        assert kvm_verdict(config, qemu, KERNEL).works
        assert calls == ["probe"]
        # Another user, QEMU or kernel is another question; so is a file that cannot be read.
        patch.setattr(os, "geteuid", lambda: 4711)
        kvm_verdict(config, qemu, KERNEL)
        assert len(calls) == 2
        (tmp_path / "other").mkdir()
        kvm_verdict(config, fake_qemu(tmp_path / "other", "exit 86"), KERNEL)
        assert len(calls) == 3
        kvm_verdict(config, qemu, KERNEL.with_name("other"))
        assert len(calls) == 4
        for cached in (config.cache / "accelerator").iterdir():
            cached.write_text("{")
        kvm_verdict(config, qemu, KERNEL)
        assert len(calls) == 5
    assert not count.exists()


@pytest.mark.usefixtures("openable")
def test_the_choice(tmp_path: Path, config: Config) -> None:
    (tmp_path / "bad").mkdir()
    good, bad = fake_qemu(tmp_path, GOOD), fake_qemu(tmp_path / "bad", "exit 1")
    assert choose_accelerator(config, good, KERNEL) == "kvm"
    assert choose_accelerator(config, bad, KERNEL) == "tcg"
    assert choose_accelerator(config, good, KERNEL, "tcg") == "tcg"
    assert choose_accelerator(dataclasses.replace(config, accelerator="tcg"), good, KERNEL) == "tcg"
    with pytest.raises(SamepageError, match="KVM does not work here: QEMU ended with 1"):
        choose_accelerator(config, bad, KERNEL, "kvm")


def test_the_payload_runs_in_the_locked_qemu() -> None:
    """Under the accelerator that works everywhere: a probe that could not succeed would always choose TCG."""
    assert probe_kvm(find_qemu(load_config(PACKAGE_PARENT)), "tcg", 20) == Verdict(True, "a guest ran to its end")


def test_a_kernel_boots_in_the_locked_qemu() -> None:
    config = load_config(PACKAGE_PARENT)
    image = ensure_image(config, "6.12")
    assert probe_boot(find_qemu(config), image.vmlinux, "tcg", 120) == Verdict(True, "a guest's kernel booted")


def test_a_qemu_of_the_hosts_that_is_not_there(config: Config) -> None:
    with pytest.raises(SamepageError, match="no-such-qemu: is no program"):
        find_qemu(dataclasses.replace(config, qemu="no-such-qemu"))


def test_a_qemu_of_the_hosts(tmp_path: Path, config: Config) -> None:
    fake_qemu(tmp_path, "echo 'QEMU emulator version 9.9 (fake)'")
    qemu = find_qemu(dataclasses.replace(config, qemu=str(tmp_path / "qemu")))
    assert qemu.version == "9.9 (fake)"
