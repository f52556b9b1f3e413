# SPDX-License-Identifier: MIT
"""Guests restored from one snapshot: each is a fresh one, and none sees another."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.config import PACKAGE_PARENT, Config
from harness.guest.errors import KernelSplat, SnapshotFailed
from harness.guest.guest import Guest
from harness.guest.snapshot import ensure_snapshot, start_guest
from harness.guest.spec import GuestSpec
from harness.image import Image
from harness.module.build import build_module

SPLAT = Path(__file__).parent / "modules/splat"
SMALL = GuestSpec(memory_mib=512, cpus=1)
RESTORE_SECONDS = 3.0
"""A restore takes 0.2 to 0.3 s on an idle machine, a boot 3 to 5."""


@pytest.fixture
def own_cache(config: Config, tmp_path: Path) -> Config:
    """A configuration whose cache has no snapshots yet. The image is that of the usual one."""
    # The tool root of QEMU would have to be unpacked anew.
    (tmp_path / "cache").mkdir()
    for name in ("roots", "accelerator", "packages"):
        (config.cache / name).mkdir(exist_ok=True)
        (tmp_path / "cache" / name).symlink_to(config.cache / name)
    return dataclasses.replace(config, cache=tmp_path / "cache", guest_snapshots=True)


def snapshots(config: Config) -> list[Path]:
    """Return what is in the cache of snapshots besides locks."""
    return sorted(path for path in (config.cache / "snapshots").glob("*") if path.suffix != ".lock")


def random_numbers(guest: Guest) -> set[str]:
    """Return numbers of each source in the kernel."""
    program = "import os, uuid; print(os.getrandom(16).hex(), open('/dev/urandom', 'rb').read(16).hex(), uuid.uuid4())"
    words = guest.run(["python3", "-c", program]).text.split()
    return {*words, guest.read("/proc/sys/kernel/random/uuid"), guest.read("/proc/sys/kernel/random/boot_id")}


def test_restored_guests_are_independent(own_cache: Config, image: Image, tmp_path: Path) -> None:
    splat = build_module(own_cache, SPLAT, own_cache.kernel)
    snapshot = ensure_snapshot(own_cache, image, SMALL, tmp_path / "made")
    before = {path.name: path.stat().st_mtime_ns for path in snapshot.iterdir()}
    with (
        start_guest(own_cache, image, SMALL, tmp_path / "a") as first,
        start_guest(own_cache, image, SMALL, tmp_path / "b") as second,
    ):
        first.put(b"x" * (8 << 20), "/etc/written")
        first.write("/proc/sys/vm/swappiness", "33")
        first.insmod(splat.ko)
        assert second.read_files(["/etc/written"])["/etc/written"] is None
        assert second.read("/proc/sys/vm/swappiness") == "60"
        assert "splat" not in second.read("/proc/modules")
        numbers = [random_numbers(guest) for guest in (first, second)]
        assert [len(of_one) for of_one in numbers] == [5, 5]
        assert not numbers[0] & numbers[1]
        for guest in (first, second):
            assert abs(guest.clocks().realtime / 1e9 - time.time()) < 5
    # One after them is as fresh as they were.
    with start_guest(own_cache, image, SMALL, tmp_path / "c") as third:
        assert third.read_files(["/etc/written"])["/etc/written"] is None
        assert "splat" not in third.read("/proc/modules")
        assert not random_numbers(third) & (numbers[0] | numbers[1])
    assert snapshots(own_cache) == [snapshot]
    assert {path.name: path.stat().st_mtime_ns for path in snapshot.iterdir()} == before


def test_a_restore_is_quick_and_its_log_whole(config: Config, image: Image, tmp_path: Path) -> None:
    config = dataclasses.replace(config, guest_snapshots=True)
    ensure_snapshot(config, image, GuestSpec(), tmp_path)
    begin = time.monotonic()
    with start_guest(config, image, GuestSpec(), tmp_path / "guest") as guest:
        assert time.monotonic() - begin < RESTORE_SECONDS * config.timeout_factor
        guest.run(["true"])
    log = (tmp_path / "guest/console.log").read_text()
    assert "Linux version" in log
    assert log.index("Linux version") < log.index(": boot") < log.index(": restore") < log.index(": true")


@pytest.mark.splats_allowed
def test_the_log_gate_of_a_restored_guest(config: Config, image: Image, tmp_path: Path) -> None:
    config = dataclasses.replace(config, guest_snapshots=True)
    with start_guest(config, image, SMALL, tmp_path) as guest:
        guest.insmod(build_module(config, SPLAT, config.kernel).ko)
        with pytest.raises(KernelSplat, match="provoke_warn"):
            guest.write("/sys/kernel/debug/splat/provoke", "warn")


def test_two_nodes_are_restored(config: Config, image: Image, tmp_path: Path) -> None:
    spec = GuestSpec(memory_mib=512, cpus=2, numa_nodes=2)
    for name in ("a", "b"):
        with start_guest(dataclasses.replace(config, guest_snapshots=True), image, spec, tmp_path / name) as guest:
            assert "available: 2 nodes (0-1)" in guest.run(["numactl", "--hardware"]).text


def test_another_kind_of_guest_has_another_snapshot(own_cache: Config, image: Image, tmp_path: Path) -> None:
    for spec in (SMALL, dataclasses.replace(SMALL, append=("samepage.test=1",))):
        with start_guest(own_cache, image, spec, tmp_path / "guest") as guest:
            assert ("samepage.test=1" in guest.read("/proc/cmdline")) == bool(spec.append)
    assert len(snapshots(own_cache)) == 2


def test_without_snapshots_a_guest_boots(own_cache: Config, image: Image, tmp_path: Path) -> None:
    config = dataclasses.replace(own_cache, guest_snapshots=False)
    with start_guest(config, image, SMALL, tmp_path / "guest") as guest:
        assert guest.run(["nproc"]).text == "1\n"
    assert snapshots(own_cache) == []


def test_a_snapshot_that_qemu_refuses_is_an_error(own_cache: Config, image: Image, tmp_path: Path) -> None:
    snapshot = ensure_snapshot(own_cache, image, SMALL, tmp_path / "made")
    state = snapshot / "state"
    os.truncate(state, state.stat().st_size // 2)
    with pytest.raises(SnapshotFailed, match=r"(?s)could not be restored.*Remove .*--no-snapshot") as caught:
        start_guest(own_cache, image, SMALL, tmp_path / "guest")
    assert caught.value.exit_code == 2
    assert (tmp_path / "guest/qemu.log").read_text().strip()
    assert snapshots(own_cache) == [snapshot]  # the evidence stays


HARNESS = """
import dataclasses, signal
from pathlib import Path
from harness.config import load_config
from harness.guest.snapshot import ensure_snapshot
from harness.guest.spec import GuestSpec
from harness.image import ensure_image
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored from the start in a shell's background
config = load_config(Path({root!r}))
image = ensure_image(config, config.kernel)
config = dataclasses.replace(config, cache=Path({cache!r}))
print(ensure_snapshot(config, image, GuestSpec(memory_mib=512, cpus=1), Path({folder!r})), flush=True)
"""


def maker(config: Config, folder: Path) -> subprocess.Popen[str]:
    script = HARNESS.format(root=str(PACKAGE_PARENT), cache=str(config.cache), folder=str(folder))
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=PACKAGE_PARENT,
    )


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGKILL])
def test_a_making_that_is_broken_off_leaves_nothing(
    own_cache: Config, image: Image, tmp_path: Path, sig: signal.Signals
) -> None:
    with maker(own_cache, tmp_path / "made") as process:
        deadline = time.monotonic() + 60
        while not list(own_cache.cache.glob("snapshots/*.partial/memory0")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(sig)
        assert process.wait(30) != 0
    assert psutil.wait_procs(children, timeout=10)[1] == []
    if sig is signal.SIGINT:
        assert snapshots(own_cache) == []
    # Nobody can clean up after SIGKILL; the next one that is made does.
    other = dataclasses.replace(SMALL, append=("samepage.test=1",))
    made = ensure_snapshot(own_cache, image, other, tmp_path / "other")
    assert snapshots(own_cache) == [made]


def test_two_who_want_the_same_at_once(own_cache: Config, tmp_path: Path) -> None:
    with maker(own_cache, tmp_path / "a") as first, maker(own_cache, tmp_path / "b") as second:
        made = {process.communicate(timeout=300)[0].strip() for process in (first, second)}
    assert [Path(path) for path in made] == snapshots(own_cache)
    assert len(list(tmp_path.glob("[ab]/console.log"))) == 1  # only one has booted
