# SPDX-License-Identifier: MIT
"""A virtual machine inside of the guest: QEMU with KVM, and questions over its serial line (images/nested/init.c)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from harness.errors import CheckFailed
from harness.guest.errors import CommandFailed
from harness.guest.guest import Guest
from harness.guest.stream import Stream
from harness.image.nested import INITRAMFS, KERNEL, LIBRARIES, LOADER, SERIAL, NestedDisk
from harness.ksm import kvmexits
from harness.ksm.content import Digester
from harness.ksm.machinedata import MachineData, Run
from harness.ksm.processes import split

MOUNT = "/run/nested"
BOOT_SECONDS = 300
"""A busy host takes 100 for one; whether a machine has ended is seen at once all the same."""
ANSWER_SECONDS = 120
END_SECONDS = 60
DIGEST_PAGES = 16384
"""To ask for at once: all of a large machine takes minutes on a busy host."""
SHOWN_PAGES = 8
MORE_BYTES, MORE_SECONDS = 16384, 3.0
HEARD_BYTES = 4096
"""Of what a machine said last, which is shown when it ends by itself."""
KERNEL_ARGUMENTS = (
    "console=ttyS0",
    "quiet",
    "panic=-1",
    "reboot=t",  # a triple fault, which is the end with -no-reboot, works without ACPI and keyboard controller
    "no_timer_check",
    "tsc=reliable",
    "mitigations=off",
    "cryptomgr.notests",
    "initcall_blacklist=jent_mod_init",
    # Under emulation it costs milliseconds each time that an idle machine wakes up.
    *("nowatchdog", "sysctl.vm.compaction_proactiveness=0", "sysctl.vm.stat_interval=120"),
    "transparent_hugepage=madvise",  # for the data, which are huge from the start
)


LOAD_KVM = "modprobe -q kvm-amd || modprobe -q kvm-intel"
"""A shell's words."""


class MachineDied(CheckFailed):
    """A machine ended although nobody asked it to, or answers no more."""


class WrongContent(CheckFailed):
    """A machine's data, or a file that it read, is not what it must be."""


def prepare(guest: Guest) -> str:
    """Load KVM and mount the disk in the guest; return the disk's device. Raises CheckFailed without KVM."""
    script = (
        f"{LOAD_KVM}; test -c /dev/kvm || exit 3; "
        'for disk in /sys/block/vd*; do [ "$(cat "$disk/serial")" = "$1" ] && break; done; '
        'device="/dev/${disk##*/}"; mkdir -p "$2" && mount -t erofs -o ro "$device" "$2" && echo "$device"'
    )
    result = guest.run(["sh", "-c", script, "sh", SERIAL, MOUNT], check=False)
    if result.exit_code == 3:
        raise CheckFailed("the guest has no /dev/kvm: its CPU has neither svm nor vmx")
    if result.exit_code:
        raise CheckFailed(f"the disk of the machines is not there: {result.stderr.decode(errors='replace').strip()}")
    kvmexits.record(guest)
    return result.text.strip()


class Machine:
    """One of them, from its start to its end."""

    def __init__(self, guest: Guest, disk: NestedDisk, device: str, number: int, memory_mib: int) -> None:
        """Start it; `ready` waits until it has booted."""
        self.name = f"machine {number}"
        self.pid = 0
        self._guest = guest
        self._pid_file = f"/run/nested-{number}.pid"
        self._heard = bytearray()
        command = [*_on_cpus(guest), *_program(disk), *_arguments(device, memory_mib, self._pid_file)]
        self._stream: Stream = guest.spawn(command)

    def ready(self) -> None:
        """Wait until it has booted; `pid` is QEMU's process in the guest from then on."""
        while not (line := self._line(BOOT_SECONDS)).startswith("@"):
            pass  # what its kernel says while it boots (that there is no PCI, for one) is no complaint
        if line != "@ready":
            raise CheckFailed(f"does not come up: {line}", where=self.name)
        self.pid = int(self._guest.read(self._pid_file))

    def fill(self, data: MachineData) -> None:
        """Give it its data."""
        self._ask(f"area {data.pages}")
        self.write(data.filling)

    def write(self, runs: list[Run]) -> None:
        """Overwrite pages."""
        for run in runs:
            if run.count:
                self._ask(f"fill {run.first} {run.count} {int(run.kind)} {run.key} 1")

    def check_data(self, data: MachineData, digester: Digester) -> None:
        """Compare its data with what they must be. Raises WrongContent, naming the first pages."""
        parts = split(range(data.pages), DIGEST_PAGES)
        if not all(self._is_right(data, digester, first, end - first) for first, end in parts):
            wrong = list(islice(self._wrong(data, digester, 0, data.pages), SHOWN_PAGES))
            shown = ", ".join(map(str, wrong)) or "none when asked for one by one"
            raise WrongContent(
                f"of its {data.pages} pages of data these (at least) are wrong: {shown}", where=self.name
            )

    def check_file(self, path: str, expected: int, digester: Digester) -> None:
        """Let it read a file of the disk, and compare. Raises WrongContent."""
        if self._ask(f"read {path} {digester.secret}") != expected:
            raise WrongContent(f"reads {path} with another content than the file has", where=self.name)

    def end(self) -> None:
        """Let it end; raises CheckFailed if QEMU does not end well."""
        self._stream.write(b"end\n")
        code = self._stream.wait(END_SECONDS)
        if code:
            said = self._stream.stderr.decode(errors="replace").strip()
            raise CheckFailed(f"QEMU ended with {code}: {said}", where=self.name)
        kvmexits.go_on(self._guest)

    def _is_right(self, data: MachineData, digester: Digester, first: int, count: int) -> bool:
        return self._ask(f"digest {first} {count} {digester.secret}") == data.digest(digester, first, count)

    def _wrong(self, data: MachineData, digester: Digester, first: int, count: int) -> Iterator[int]:
        """Find the wrong pages by halves."""
        if self._is_right(data, digester, first, count):
            return
        if count == 1:
            yield first
            return
        half = count // 2
        yield from self._wrong(data, digester, first, half)
        yield from self._wrong(data, digester, first + half, count - half)

    def _ask(self, question: str) -> int:
        self._stream.write(f"{question}\n".encode())
        line = self._line(ANSWER_SECONDS)
        if not line.startswith("@ok "):
            raise CheckFailed(f"{question!r} is answered with: {line}{self._more()}", where=self.name)
        return int(line.removeprefix("@ok "), 16)

    def _line(self, seconds: float) -> str:
        """Return the next line that it says, without the spaces at its ends."""
        line = bytearray()
        while not line.endswith(b"\n"):
            try:
                line += self._stream.read(1, seconds)
            except CommandFailed as error:
                raise self._died(error, line) from error
        self._heard += line
        del self._heard[:-HEARD_BYTES]
        return line.decode(errors="replace").strip()

    def _died(self, error: CommandFailed, line: bytearray) -> MachineDied:
        """Gather what can be known: QEMU ends with 0 whenever the machine resets, its kernel may have said nothing."""
        heard = (self._heard + line).decode(errors="replace").strip()
        exits = kvmexits.last(self._guest)
        said = f"QEMU {error.what}\nit said last:\n{heard}\nthe last exits to KVM:\n{exits}"
        return MachineDied(said, where=self.name)

    def _more(self) -> str:
        """Return what else it says: the rest of its kernel's complaint, for one."""
        said = bytearray()
        with suppress(TimeoutError):
            while len(said) < MORE_BYTES and (part := self._stream.read_some(MORE_BYTES, MORE_SECONDS)):
                said += part
        return "\n" + said.decode(errors="replace") if said else ""


def _on_cpus(guest: Guest) -> list[str]:
    """Keep a machine off the first CPU, on which it does not survive emulation by QEMU 10.0.13 (docs/vms.md)."""
    last = guest.spec.cpus - 1
    return ["taskset", "--cpu-list", f"1-{last}"] if last else []


def _program(disk: NestedDisk) -> list[str]:
    """QEMU with its own loader and libraries: it does not depend on what the guest's root has."""
    firmware = [word for folder in disk.firmware for word in ("-L", f"{MOUNT}/{folder}")]
    return [f"{MOUNT}/{LOADER}", "--library-path", f"{MOUNT}/{LIBRARIES}", f"{MOUNT}/{disk.program}", *firmware]


def _arguments(device: str, memory_mib: int, pid_file: str) -> list[str]:
    return [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        # A PIT has QEMU's main loop wake up 36 times a second: a machine that did nothing took 4 % of a CPU, not 0.4.
        *("-machine", "microvm,accel=kvm,mem-merge=on,pit=off,rtc=off", "-cpu", "host", "-m", f"{memory_mib}M"),
        *("-kernel", f"{MOUNT}/{KERNEL}", "-initrd", f"{MOUNT}/{INITRAMFS}"),
        *("-append", " ".join(KERNEL_ARGUMENTS)),
        *("-serial", "stdio", "-pidfile", pid_file),
        *("-blockdev", f"driver=host_device,node-name=files,read-only=on,filename={device}"),
        *("-device", "virtio-blk-device,drive=files"),
    ]
