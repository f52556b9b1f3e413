# SPDX-License-Identifier: MIT
"""A guest as a whole: programs, files, modules, console, ssh, monitor."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import threading
import time
from pathlib import Path

import pytest

from harness.config import Config
from harness.guest.errors import CommandFailed, CommandTimeout, GuestFileError
from harness.guest.guest import Guest
from harness.guest.qemu import PROGRAM, find_qemu
from harness.guest.qmp import QmpFailed
from harness.guest.spec import GuestSpec
from harness.image import Image
from harness.module.build import build_module

MIB = 1 << 20
SPLAT = Path(__file__).parent / "modules/splat"


def test_it_is_the_guest_that_was_asked_for(guest: Guest, image: Image, config: Config) -> None:
    assert guest.run(["uname", "-r"]).text.strip() == image.release
    assert guest.accelerator in ("kvm", "tcg")
    assert guest.qemu_version.startswith("10.")
    assert int(guest.run(["nproc"]).text) == guest.spec.cpus
    memory = next(line for line in guest.read("/proc/meminfo").splitlines() if line.startswith("MemTotal"))
    assert 0.85 < int(memory.split()[1]) / 1024 / guest.spec.memory_mib < 1


def test_the_file_systems(guest: Guest) -> None:
    mounts = {line.split()[1]: line.split()[2] for line in guest.read("/proc/mounts").splitlines()}
    assert mounts["/"] == "overlay"
    release = guest.image.release
    expected = {
        "/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs",
        "/run": "tmpfs", "/tmp": "tmpfs", "/sys/fs/cgroup": "cgroup2", "/sys/kernel/debug": "debugfs",
        "/sys/kernel/tracing": "tracefs", f"/usr/lib/modules/{release}": "erofs",
    }  # fmt: skip
    assert {path: mounts.get(path) for path in expected} == expected
    guest.run(["sh", "-ec", "echo x > /etc/written; grep -q x /etc/written; rm /etc/written"])
    assert "UP" in guest.run(["ip", "link", "show", "lo"]).text
    assert guest.run(["hostname"]).text == "samepage\n"


def test_one_cpu_until_the_devices_stand(fresh_guest: Guest) -> None:
    """While PCI devices are sized, QEMU does not survive what another CPU may do (docs/guests.md)."""
    log = fresh_guest.run(["dmesg"]).text
    assert log.index("smp: Brought up 1 node, 1 CPU") < log.index("PCI host bridge")
    last_device = max(log.index(name) for name in ("[vda]", "[vdb]"))
    assert last_device < log.index("smpboot: Booting Node 0 Processor 1")
    assert fresh_guest.read("/sys/devices/system/cpu/online") == f"0-{fresh_guest.spec.cpus - 1}"


def test_modprobe_finds_the_kernels_modules(guest: Guest) -> None:
    guest.run(["modprobe", "zram", "num_devices=1"])
    assert guest.read("/sys/block/zram0/disksize") == "0"
    guest.run(["modprobe", "-r", "zram"])


def test_programs(guest: Guest) -> None:
    result = guest.run(["sh", "-c", "cat; echo err >&2; exit 5"], stdin=b"in\0\xff", check=False)
    assert (result.exit_code, result.stdout, result.stderr) == (5, b"in\0\xff", b"err\n")
    with pytest.raises(CommandFailed, match=r"(?s)false.*exit code 1"):
        guest.run(["false"])
    with pytest.raises(CommandFailed, match="could not be started"):
        guest.run(["/no/such/program"])
    assert guest.run(["sh", "-c", "echo $X $PWD"], env={"X": "1"}, cwd="/tmp").text == "1 /tmp\n"
    assert guest.run(["python3", "-c", "import json; print(json.dumps([1]))"]).text == "[1]\n"


def test_a_program_that_takes_too_long_is_killed(guest: Guest) -> None:
    limit = guest.timeout_factor
    with pytest.raises(CommandTimeout, match=f"needed more than {limit:.0f} s to end, and was killed"):
        guest.run(["sh", "-c", "sleep 4711 & sleep 4711"], timeout=1)
    assert "sleep" not in guest.run(["ps", "-eo", "comm"]).text
    assert guest.healthy


def test_orphans_are_reaped(guest: Guest) -> None:
    guest.run(["sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.2 &) ; done"])
    guest.run(["sleep", "0.5"])
    states = guest.run(["ps", "-eo", "stat,comm"]).text.splitlines()
    assert not [line for line in states if line.startswith("Z")]


def test_programs_at_once(guest: Guest) -> None:
    """Sixteen threads, each with a session of its own over the one channel."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            data = random.Random(number).randbytes(100_000)
            for _ in range(3):
                assert guest.run(["cat"], stdin=data).stdout == data
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []


def test_five_hundred_programs(guest: Guest) -> None:
    streams = [guest.spawn(["cat"]) for _ in range(500)]
    for number, stream in enumerate(streams):
        stream.write(f"{number:5}".encode())
    assert [int(stream.read(5)) for stream in streams] == list(range(500))
    for stream in streams:
        stream.close_stdin()
    assert {stream.wait() for stream in streams} == {0}


def test_large_files_arrive_whole(guest: Guest) -> None:
    data = random.Random(1).randbytes(64 * MIB)
    begin = time.monotonic()
    guest.put(data, "/tmp/large", mode=0o600)
    put = time.monotonic()
    assert hashlib.sha256(guest.get("/tmp/large")).digest() == hashlib.sha256(data).digest()
    got = time.monotonic()
    assert guest.run(["sha256sum", "/tmp/large"]).text.split()[0] == hashlib.sha256(data).hexdigest()
    assert guest.run(["stat", "-c", "%a", "/tmp/large"]).text == "600\n"
    assert guest.get("/tmp/large", offset=12345678, size=100) == data[12345678:12345778]
    guest.run(["rm", "/tmp/large"])
    print(f"64 MiB: put {put - begin:.1f} s, get {got - put:.1f} s")


def test_small_files(guest: Guest) -> None:
    paths = ["/sys/kernel/mm/ksm/", "/proc/meminfo", "/none"]
    files = guest.read_files(paths)
    assert files["/sys/kernel/mm/ksm/run"] == b"0\n"
    assert files["/none"] is None
    assert (files["/proc/meminfo"] or b"").startswith(b"MemTotal")
    guest.write("/proc/sys/vm/swappiness", "33\n")
    assert guest.read("/proc/sys/vm/swappiness") == "33"
    with pytest.raises(GuestFileError) as caught:
        guest.write("/proc/sys/vm/swappiness", "33333\n")
    assert caught.value.errno == 22


def test_modules(guest: Guest, config: Config) -> None:
    built = build_module(config, SPLAT, config.kernel)
    guest.insmod(built.ko, "seconds=4")
    assert guest.read("/sys/module/splat/parameters/seconds") == "4"
    with pytest.raises(CommandFailed, match="File exists"):
        guest.insmod(built.ko)
    guest.rmmod("splat")
    with pytest.raises(CommandFailed, match="not currently loaded"):
        guest.rmmod("splat")


def test_the_console_is_a_shell(guest: Guest) -> None:
    with guest.console.session() as shell:
        shell.send("\r")
        shell.expect("# ")
        shell.sendline("echo $((6 * 7)) $(tty)")
        shell.expect(r"42 /dev/ttyS0")
        shell.sendline("exit")
    guest.run(["sleep", "0.3"])
    assert "42 /dev/ttyS0" in (guest.folder / "console.log").read_text()
    # The shell is there again for the next one.
    with guest.console.session() as shell:
        shell.send("\r")
        shell.expect("# ")
        shell.sendline("exit")


def test_ssh(guest: Guest, tmp_path: Path) -> None:
    with guest.ssh() as client:
        _, stdout, stderr = client.exec_command("echo out; echo err >&2; exit 3", timeout=60)
        assert (stdout.read(), stderr.read()) == (b"out\n", b"err\n")
        assert stdout.channel.recv_exit_status() == 3
        data = random.Random(3).randbytes(MIB)
        (tmp_path / "sent").write_bytes(data)
        with client.open_sftp() as sftp:
            sftp.put(str(tmp_path / "sent"), "/tmp/sent")
            sftp.get("/tmp/sent", str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == data
        # A second session beside the first.
        with guest.ssh() as other:
            assert other.exec_command("id -u", timeout=60)[1].read() == b"0\n"


def test_the_monitor(guest: Guest) -> None:
    assert guest.qmp.execute("query-status") == {"status": "running", "running": True}
    assert "CPU#0" in guest.qmp.human("info registers -a")
    with pytest.raises(QmpFailed, match="no-such-command"):
        guest.qmp.execute("no-such-command")


def test_clocks(guest: Guest) -> None:
    first = guest.clocks()
    guest.run(["sleep", "0.1"])
    second = guest.clocks()
    assert second.monotonic - first.monotonic > 100_000_000
    assert abs(second.realtime / 1e9 - time.time()) < 30


@pytest.mark.guest(memory_mib=1024, cpus=4, numa_nodes=2)
def test_two_nodes(fresh_guest: Guest) -> None:
    assert "available: 2 nodes (0-1)" in fresh_guest.run(["numactl", "--hardware"]).text
    assert fresh_guest.read("/sys/devices/system/node/node1/cpulist") == "2-3"
    fresh_guest.poweroff()
    assert not fresh_guest.running


def test_a_qemu_of_the_hosts(config: Config, image: Image, tmp_path: Path) -> None:
    """The locked one stands for it, started by a script with its own libraries."""
    root = find_qemu(config).root
    assert root is not None
    program = tmp_path / "qemu"
    loader = f"{root}/usr/lib64/ld-linux-x86-64.so.2 --library-path {root}/usr/lib/x86_64-linux-gnu"
    program.write_text(
        f'#!/bin/sh\nexec {loader} {root}/usr/bin/{PROGRAM} -L {root}/usr/share/seabios -L {root}/usr/share/qemu "$@"\n'
    )
    program.chmod(0o755)
    hosts = dataclasses.replace(config, qemu=str(program), accelerator="tcg")
    with Guest.start(hosts, image, GuestSpec(), tmp_path / "guest") as guest:
        assert guest.run(["uname", "-r"]).text.strip() == image.release


def test_the_kernel_chooses_its_address(config: Config, image: Image, tmp_path: Path) -> None:
    """KASLR is off by default (the uncompressed kernel boots sooner), and on when asked for.

    There are some 480 addresses (1 GiB in steps of 2 MiB): two boots choose the same now and then, four never.
    """
    addresses: set[str] = set()
    for number in range(4):
        if len(addresses) > 1:
            break
        with Guest.start(config, image, GuestSpec(kaslr=True), tmp_path / str(number)) as guest:
            addresses.add(guest.run(["grep", "-w", "_text", "/proc/kallsyms"]).text)
    assert "ffffffff81000000" not in " ".join(addresses)
    assert len(addresses) == 2
