# SPDX-License-Identifier: MIT
"""Which accelerator works here. That /dev/kvm opens says nothing: only a guest that ran to its end does."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import msgspec

from harness.config import Config
from harness.errors import SamepageError
from harness.guest.qemu import KVM, Qemu
from harness.store import key_of

PROBE_TIMEOUT = 3.0
"""Seconds that QEMU gets to start and to run the payload; where KVM works it takes 0.2."""
BOOT_TIMEOUT = 20.0
"""Seconds that the kernel gets to boot; where KVM works it takes one, emulated four."""

_ROM_SIZE = 65536
_ANSWER = 0x2A
# isa-debug-exit ends QEMU with twice the value written, plus one.
_EXIT_CODE = _ANSWER * 2 + 1
_PORT = 0x501

# 16-bit code at f000:0000. It counts through a loop first: one that only ever runs a first instruction does not count.
_CODE = bytes(
    [
        *(0xB9, 0xFF, 0xFF),  # mov cx, 0xffff
        *(0xE2, 0xFE),  # loop $
        *(0x89, 0xC8),  # mov ax, cx      (0 now)
        *(0x04, _ANSWER),  # add al, answer
        *(0xBA, _PORT & 0xFF, _PORT >> 8),  # mov dx, port
        0xEE,  # out dx, al
        *(0xF4, 0xEB, 0xFD),  # hlt; jmp back
    ]
)
_RESET = bytes([0xEA, 0x00, 0x00, 0x00, 0xF0])  # jmp f000:0000, at the reset vector
# A kernel without a disk says so at its end, and resets the machine.
_BOOT_ARGUMENTS = "console=ttyS0 panic=-1 no_timer_check tsc=reliable"
_BOOTED = b"Unable to mount root fs"


class Verdict(msgspec.Struct, frozen=True):
    """What a probe found; kept in the cache."""

    works: bool
    reason: str


def choose_accelerator(config: Config, qemu: Qemu, kernel: Path, wanted: str | None = None) -> str:
    """Return `kvm` or `tcg`: `wanted`, else what is configured, else KVM where it works with this kernel.

    Raises SamepageError when KVM is demanded and does not work.
    """
    wanted = wanted or config.accelerator
    if wanted == "tcg":
        return "tcg"
    verdict = kvm_verdict(config, qemu, kernel)
    if wanted == "kvm" and not verdict.works:
        raise SamepageError(
            f"KVM does not work here: {verdict.reason}", where=KVM, hint="Let `accelerator` be auto or tcg."
        )
    return "kvm" if verdict.works else "tcg"


def kvm_verdict(config: Config, qemu: Qemu, kernel: Path) -> Verdict:
    """Return whether KVM works with this QEMU and kernel for this user since this host's boot; probed once."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    key = key_of(boot, qemu.sha256, str(kernel), str(os.geteuid()))
    cached = config.cache / "accelerator" / f"{key}.json"
    try:
        return msgspec.json.decode(cached.read_bytes(), type=Verdict)
    except (OSError, msgspec.DecodeError):
        pass
    verdict = probe_kvm(qemu)
    if verdict.works:
        verdict = probe_boot(qemu, kernel)
    cached.parent.mkdir(parents=True, exist_ok=True)
    partial = cached.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(msgspec.json.encode(verdict))
    partial.rename(cached)
    return verdict


def probe_kvm(qemu: Qemu, accelerator: str = "kvm", timeout: float = PROBE_TIMEOUT) -> Verdict:
    """Run the payload and say whether it came to its end within `timeout` seconds."""
    if accelerator == "kvm" and not os.access(KVM, os.R_OK | os.W_OK):
        return Verdict(False, "the device is missing, or this user may not open it")
    with tempfile.NamedTemporaryFile(prefix="samepage-probe-", suffix=".rom") as rom:
        rom.write(_CODE.ljust(_ROM_SIZE - 16, b"\xf4") + _RESET.ljust(16, b"\xf4"))
        rom.flush()
        path = Path(rom.name)
        Path(rom.name).chmod(0o644)
        ended = _run(qemu.command(_arguments(accelerator, "16M", "-bios", str(path)), [path]), timeout)
    if ended is None:
        return Verdict(False, f"a guest of a few instructions did not end within {timeout:.0f} s")
    return _verdict(ended, ended.returncode == _EXIT_CODE, "a guest ran to its end")


def probe_boot(qemu: Qemu, kernel: Path, accelerator: str = "kvm", timeout: float = BOOT_TIMEOUT) -> Verdict:
    """Boot the kernel, without a disk, and say whether it found out that it has none within `timeout` seconds.

    A KVM in software may run a few instructions and yet no kernel: one never left a kernel's set-up of its memory map
    (kvm-pvm: "INTERNAL_ERROR in batch emul").
    """
    arguments = _arguments(accelerator, "256M", "-serial", "stdio", "-kernel", str(kernel), "-append", _BOOT_ARGUMENTS)
    ended = _run(qemu.command(arguments, [kernel]), timeout)
    if ended is None:
        return Verdict(False, f"{kernel.name} did not boot within {timeout:.0f} s")
    return _verdict(ended, _BOOTED in ended.stdout, "a guest's kernel booted")


def _arguments(accelerator: str, memory: str, *more: str) -> list[str]:
    return [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35", "-accel", accelerator, "-cpu", "max", "-m", memory),
        *("-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=1"),
        *more,
    ]


def _run(line: list[str], timeout: float) -> subprocess.CompletedProcess[bytes] | None:
    # A group of its own, so that all of it can be killed: a QEMU that hangs in KVM must not be waited for.
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None
    return subprocess.CompletedProcess(line, process.returncode, said)


def _verdict(ended: subprocess.CompletedProcess[bytes], works: bool, reason: str) -> Verdict:
    if works:
        return Verdict(True, reason)
    last = ended.stdout.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    return Verdict(False, f"QEMU ended with {ended.returncode}: {last[0]}")
