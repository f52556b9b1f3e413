# SPDX-License-Identifier: MIT
"""Everything that goes wrong in a guest is noticed, blamed on the right command, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.config import PACKAGE_PARENT, Config
from harness.guest.errors import (
    ChannelClosed,
    CommandTimeout,
    GuestDied,
    GuestHung,
    GuestStartFailed,
    KernelLogUnreadable,
    KernelSplat,
    ProtocolError,
    SplatMissing,
    TaintUnexplained,
)
from harness.guest.guest import Guest
from harness.guest.protocol import Frame, FrameType
from harness.guest.snapshot import start_guest
from harness.guest.spec import GuestSpec
from harness.image import Image
from harness.module.build import BuiltModule, build_module
from tests.guest.splat import PROVOKE, SPLAT

pytestmark = pytest.mark.splats_allowed


@pytest.fixture(scope="module")
def splat(config: Config) -> BuiltModule:
    return build_module(config, SPLAT, config.kernel)


@pytest.fixture(scope="module")
def wounded(
    config: Config, image: Image, splat: BuiltModule, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """A guest whose kernel complains and goes on, shared by the tests that make it."""
    with start_guest(config, image, GuestSpec(), tmp_path_factory.mktemp("wounded")) as guest:
        guest.insmod(splat.ko)
        yield guest


# First: once a task has died in the kernel, it reports no hung ones any more.
def test_stalls(wounded: Guest) -> None:
    wounded.write("/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout", "3")
    wounded.write("/proc/sys/kernel/watchdog_thresh", "2")
    with pytest.raises(KernelSplat, match=r"RCU stall, soft lockup|soft lockup, RCU stall"):
        wounded.write(PROVOKE, "stall")


def test_a_hung_task(wounded: Guest) -> None:
    wounded.write("/proc/sys/kernel/hung_task_timeout_secs", "2")
    with pytest.raises(KernelSplat, match=r"task samepage-agent:\d+ blocked for more than"):
        wounded.write(PROVOKE, "hung")


@pytest.mark.parametrize(
    ("name", "kind", "line"),
    [
        ("warn", "WARNING", "provoke_warn+"),
        ("refcount", "refcount", "refcount_warn_saturate"),
        ("bad_page", "bad page", "bad_page"),
        ("duplicate", "sysfs", "/kernel/splat-twice"),
        ("atomic", "BUG", "scheduling while atomic"),
        ("oops", "BUG", "NULL pointer dereference"),
        ("bug", "kernel BUG", "provoke_bug+"),
        ("gpf", "Oops", "general protection fault"),
        ("list", "kernel BUG", "list_debug.c"),
    ],
)
def test_a_complaint_fails_the_command_that_caused_it(wounded: Guest, name: str, kind: str, line: str) -> None:
    wounded.run(["true"])
    with pytest.raises(KernelSplat, match=f"write {PROVOKE}: the kernel reported") as caught:
        wounded.write(PROVOKE, name)
    assert caught.value.splats[0].kind == kind
    assert line in str(caught.value)
    assert caught.value.exit_code == 1
    assert not wounded.healthy
    # It is not held against the next command.
    wounded.run(["true"])


@pytest.mark.guest(append=("slab_debug=FZPU",))
@pytest.mark.parametrize(
    ("name", "kind", "line"),
    [
        ("poison", "slab corruption", "Object corrupt"),
        ("kfence", "KFENCE", "use-after-free write in provoke_kfence"),
    ],
)
def test_what_a_stock_kernel_sees_when_it_is_told_to_look(
    guest: Guest, splat: BuiltModule, name: str, kind: str, line: str
) -> None:
    guest.insmod(splat.ko)
    if name == "kfence":
        guest.write("/sys/module/kfence/parameters/sample_interval", "1")
    with pytest.raises(KernelSplat) as caught:
        guest.write(PROVOKE, name)
    assert caught.value.splats[0].kind == kind
    assert line in str(caught.value)


def test_the_oom_killer_is_expected_or_a_failure(wounded: Guest) -> None:
    script = """
        echo +memory > /sys/fs/cgroup/cgroup.subtree_control; mkdir -p /sys/fs/cgroup/small
        echo 20M > /sys/fs/cgroup/small/memory.max; echo $$ > /sys/fs/cgroup/small/cgroup.procs; tail /dev/zero"""
    with wounded.log.expect("invoked oom-killer") as expectation:
        wounded.run(["sh", "-c", script], check=False)
    assert [splat.kind for splat in expectation.seen] == ["OOM killer"]
    with pytest.raises(KernelSplat, match="OOM killer"):
        wounded.run(["sh", "-c", script], check=False)


def test_the_agent_survives_when_all_memory_is_gone(wounded: Guest) -> None:
    with wounded.log.expect("Out of memory: Killed process .*tail"):
        assert wounded.run(["tail", "/dev/zero"], check=False, timeout=180).exit_code == -9
    wounded.run(["true"])


def test_what_was_expected_must_come(wounded: Guest) -> None:
    with pytest.raises(SplatMissing, match="a warning"), wounded.log.expect("a warning"):
        wounded.run(["true"])


def test_a_program_that_holds_its_streams_open_passes_the_gate_at_its_end(wounded: Guest) -> None:
    stream = wounded.spawn(["sh", "-c", f"read x; echo $x > {PROVOKE}; echo done; cat"])
    stream.write(b"warn\n")
    stream.read(5)
    with pytest.raises(KernelSplat, match="provoke_warn"):
        stream.wait()


def test_a_panic_is_reported_at_once(fresh_guest: Guest, splat: BuiltModule) -> None:
    fresh_guest.insmod(splat.ko)
    waiting = fresh_guest.spawn(["sleep", "1000"])
    begin = time.monotonic()
    with pytest.raises(KernelSplat, match=r"(?s)a panic on purpose.*The guest is gone.*console.log"):
        fresh_guest.write(PROVOKE, "panic")
    assert time.monotonic() - begin < 15
    assert not fresh_guest.running
    with pytest.raises((GuestDied, KernelSplat)):
        waiting.wait(5)
    with pytest.raises((GuestDied, KernelSplat)):
        fresh_guest.run(["true"])


def test_sysrq_c(fresh_guest: Guest) -> None:
    with pytest.raises(KernelSplat, match="sysrq triggered crash"):
        fresh_guest.write("/proc/sysrq-trigger", "c")


def test_a_guest_whose_kernel_is_dead_is_dumped_and_ended(fresh_guest: Guest, splat: BuiltModule) -> None:
    """Every CPU spins with interrupts off."""
    fresh_guest.insmod(splat.ko)
    limit = 3 * fresh_guest.timeout_factor
    with pytest.raises(GuestHung, match=rf"(?s)write .*provoke: needed more than {limit:.0f} s.*dump") as caught:
        fresh_guest.write(PROVOKE, "dead", timeout=3)
    assert not fresh_guest.running
    dump = fresh_guest.folder / "dump"
    assert "RIP=ffffffffc0" in (dump / "registers.txt").read_text()
    assert "spin_for_ever" in (dump / "sysrq.txt").read_text()
    with pytest.raises(GuestHung) as again:
        fresh_guest.run(["true"])
    assert again.value is caught.value


def test_a_program_that_cannot_be_killed_gets_the_guest_dumped(fresh_guest: Guest, splat: BuiltModule) -> None:
    """Asleep in the kernel, deaf to signals, while the rest of the guest answers."""
    fresh_guest.insmod(splat.ko)
    fresh_guest.write("/sys/module/splat/parameters/seconds", "100")
    with pytest.raises(GuestHung, match="cannot be killed"):
        fresh_guest.write(PROVOKE, "hung", timeout=2)
    stacks = (fresh_guest.folder / "dump/sysrq.txt").read_text()
    assert "Show Blocked State" in stacks
    assert "provoke_hung" in stacks


def test_a_guest_that_stands_still(fresh_guest: Guest) -> None:
    fresh_guest.timeout_factor = 0.2
    fresh_guest.qmp.execute("stop")
    with pytest.raises(GuestHung, match="sleep 0: needed more than"):
        fresh_guest.run(["sleep", "0"], timeout=5)
    assert "paused" in (fresh_guest.folder / "dump/status.txt").read_text()


def test_a_qemu_that_was_killed(fresh_guest: Guest) -> None:
    os.kill(fresh_guest.pid, signal.SIGKILL)
    with pytest.raises(GuestDied, match="QEMU was killed by signal 9"):
        fresh_guest.run(["true"])
    assert not fresh_guest.running


def test_a_guest_that_powers_itself_off(fresh_guest: Guest) -> None:
    with pytest.raises(GuestDied, match="QEMU ended with exit code 0\nThe guest powered itself off"):
        fresh_guest.run(["sh", "-c", "poweroff; sleep 100"])


def test_a_guest_that_resets_without_a_word(fresh_guest: Guest) -> None:
    """As after a triple fault: the registers of that moment are all that there is to look at."""
    with pytest.raises(GuestDied, match="The guest reset itself") as caught:
        fresh_guest.run(["sh", "-c", "echo b > /proc/sysrq-trigger; sleep 100"])
    registers = fresh_guest.folder / "registers-at-end.txt"
    assert str(registers) in str(caught.value)
    assert {"CPU#0", "CPU#1"} <= set(registers.read_text().split())
    assert registers.read_text().count("RIP=ffffffff") > 0


def test_a_log_that_does_not_arrive_is_a_failure(fresh_guest: Guest) -> None:
    """The serial console is switched off behind the harness' back: a complaint would go unseen."""
    fresh_guest.log._factor = 0.1
    silence = "echo N > /sys/module/printk/parameters/ignore_loglevel; dmesg -n 1"
    with pytest.raises(KernelLogUnreadable, match="did not come over the serial console"):
        fresh_guest.run(["sh", "-c", silence])
    assert not fresh_guest.healthy


def test_damage_that_the_log_does_not_show_is_noticed(config: Config, image: Image, tmp_path: Path) -> None:
    guest = start_guest(config, image, GuestSpec(), tmp_path)
    guest.write("/proc/sys/kernel/tainted", str(1 << 9))
    with pytest.raises(TaintUnexplained, match=r"tainted \(warning\)"):
        guest.close()
    assert not guest.running


def test_an_agent_that_dies_ends_the_channel(fresh_guest: Guest) -> None:
    waiting = fresh_guest.spawn(["sleep", "1000"])
    with pytest.raises((ProtocolError, ChannelClosed)):
        fresh_guest.run(["sh", "-c", "kill -9 $PPID; sleep 100"])
    with pytest.raises((ProtocolError, ChannelClosed)):
        waiting.wait(5)


def test_frames_that_the_agent_does_not_know(fresh_guest: Guest) -> None:
    fresh_guest._machine.channel.send(Frame(1, FrameType.HELLO))
    with pytest.raises(ProtocolError, match="the agent gave up: id 1: frame of unknown type 32"):
        fresh_guest.run(["sleep", "10"])


def test_a_kernel_that_does_not_boot(config: Config, image: Image, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(KernelSplat, match="boot: the kernel reported panic"):
        Guest.start(config, image, GuestSpec(append=("rdinit=/none", "root=/dev/none")), tmp_path)
    assert time.monotonic() - begin < 60


def test_an_init_that_misses_its_disk(config: Config, image: Image, tmp_path: Path) -> None:
    broken = dataclasses.replace(image, modules=image.initramfs)
    with pytest.raises(KernelSplat, match="Attempted to kill init"):
        Guest.start(config, broken, GuestSpec(), tmp_path)
    assert "samepage-init: mount /dev/vdb" in (tmp_path / "console.log").read_text()


def test_a_boot_that_takes_too_long(config: Config, image: Image, tmp_path: Path) -> None:
    with pytest.raises(GuestHung, match="boot: did not boot within"):
        Guest.start(config, image, GuestSpec(qemu_arguments=("-S",), boot_timeout=2), tmp_path)
    assert (tmp_path / "dump/registers.txt").exists()


def test_a_qemu_that_refuses(config: Config, image: Image, tmp_path: Path) -> None:
    with pytest.raises(GuestStartFailed, match="no-such-option") as caught:
        Guest.start(config, image, GuestSpec(qemu_arguments=("-no-such-option",)), tmp_path)
    assert caught.value.exit_code == 2


def test_a_time_out_leaves_the_guest_usable(wounded: Guest) -> None:
    with pytest.raises(CommandTimeout):
        wounded.run(["cat", "/dev/zero"], timeout=1)
    assert wounded.run(["echo", "fine"]).text == "fine\n"


# What a harness leaves behind that ends in the middle of everything.

HARNESS = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
from harness.config import load_config
from harness.guest.guest import Guest
from harness.guest.spec import GuestSpec
from harness.image import ensure_image
config = load_config(Path({root!r}))
with Guest.start(config, ensure_image(config, config.kernel), GuestSpec(), Path({folder!r})) as guest:
    print("ready", flush=True)
    guest.run(["sleep", "1000"], timeout=1000)
"""


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_harness(tmp_path: Path, sig: signal.Signals) -> None:
    script = HARNESS.format(root=str(PACKAGE_PARENT), folder=str(tmp_path / "guest"))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=PACKAGE_PARENT
    ) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == b"ready\n"
        processes = psutil.Process(harness.pid).children(recursive=True)
        assert any("qemu" in process.name() for process in processes)
        before = time.monotonic()
        harness.send_signal(sig)
        try:
            assert harness.wait(20) != 0
        finally:
            harness.kill()
    gone, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
    assert len(gone) == len(processes)
    assert time.monotonic() - before < 20
    assert not [path for path in tmp_path.rglob("*") if path.is_socket()]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pid", ".lock")]


def test_an_end_before_the_guest_is_up(tmp_path: Path) -> None:
    """SIGKILL at any moment of the start."""
    for delay in (0.3, 0.6, 1.0):
        script = HARNESS.format(root=str(PACKAGE_PARENT), folder=str(tmp_path / str(delay)))
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, cwd=PACKAGE_PARENT) as harness:
            time.sleep(delay)
            processes = psutil.Process(harness.pid).children(recursive=True)
            harness.kill()
        assert psutil.wait_procs(processes, timeout=10)[1] == []
        assert not [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(str(tmp_path) in word for word in process.info["cmdline"] or [])
        ]
