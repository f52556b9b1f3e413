# SPDX-License-Identifier: MIT
"""QEMU's command line for a guest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.guest.protocol import CHANNEL_NAME, LOCKSTEP_BELL, LOCKSTEP_BYTES, LOCKSTEP_GATE
from harness.guest.spec import GuestSpec

KERNEL_ARGUMENTS = (
    "console=ttyS0",
    "panic=-1",  # reboot at once, which is the guest's end (-no-reboot)
    "printk.devkmsg=on",  # the marks of the log gate must not be rate-limited
    "ignore_loglevel",
    "log_buf_len=4M",
    "sysrq_always_enabled",
    "unknown_nmi_panic",  # lets the dump of a hung guest show where a CPU spins with interrupts off
    # An emulated timer on a busy host can fail the kernel's checks of it, and the host's TSC needs none.
    "no_timer_check",
    "tsc=reliable",
    # QEMU does not survive what other CPUs may do while PCI devices are sized (docs/guests.md): our init starts them.
    "maxcpus=1",
    # Two fifths of the instructions of a boot, and a twentieth.
    "cryptomgr.notests",
    "initcall_blacklist=jent_mod_init",
)

LOCKSTEP_ARGUMENTS = ("lpj=4000000",)
"""Its clock runs at 1 GHz, and finding that out takes the second CPU more instructions than all else."""

# QEMU 10.0.13 emulates string instructions an element at a time: kernels and libraries move bytes by them where a
# processor says that it is fast at it. Without, a huge page is cleared in a third of the time, a file read in half.
_EMULATED_CPU = "max,-erms,-fsrm,-fsrs,-fzrm,-fsrc"


@dataclass(frozen=True)
class QemuFiles:
    """Where QEMU finds its files (paths inside its sandbox)."""

    kernel: str
    initramfs: str
    root: str
    modules: str


@dataclass(frozen=True)
class SnapshotFiles:
    """Where a snapshot is, or is to be (a folder, inside QEMU's sandbox)."""

    folder: str
    saved: bool
    """Whether the guest starts from it; otherwise it boots, and is to be saved there."""

    @property
    def state(self) -> str:
        """The file of everything but the memory."""
        return f"{self.folder}/state"

    def memory(self, node: int) -> str:
        """Return the file that is a NUMA node's memory."""
        return f"{self.folder}/memory{node}"


@dataclass(frozen=True)
class LockstepEnds:
    """What a guest in lockstep has in place of the channel (lockstep.py)."""

    memory: str
    """The shared memory's file (inside QEMU's sandbox)."""
    bell: int
    gate: int


@dataclass(frozen=True)
class GuestSockets:
    """Descriptors of the sockets that QEMU inherits."""

    console: int
    """In lockstep the end of a pipe."""
    qmp: int
    channel: int | LockstepEnds


def qemu_arguments(
    spec: GuestSpec,
    accelerator: str,
    files: QemuFiles,
    sockets: GuestSockets,
    snapshot: SnapshotFiles | None = None,
) -> list[str]:
    """Return QEMU's arguments (without the program's name)."""
    return [
        # At the guest's end QEMU waits, with the registers as they were, until the monitor's client lets it go.
        *("-nodefaults", "-no-user-config", "-no-reboot", "-no-shutdown"),
        *("-display", "none", "-nic", "none"),
        *("-machine", "q35,sata=off,smbus=off,graphics=off,vmport=off"),
        *_accelerator(accelerator, spec.lockstep),
        *_processors_and_memory(spec, snapshot),
        *("-kernel", files.kernel, "-initrd", files.initramfs),
        *("-append", " ".join([*KERNEL_ARGUMENTS, *(LOCKSTEP_ARGUMENTS if spec.lockstep else ()), *spec.append])),
        *_console(sockets),
        *("-serial", "chardev:console"),
        *_socket("qmp", sockets.qmp),
        *("-mon", "chardev=qmp,mode=control"),
        *_channel(sockets.channel),
        *(argument for serial, path in _disks(spec, files) for argument in _disk(serial, path)),
        *spec.qemu_arguments,
        *(("-incoming", "defer") if snapshot is not None and snapshot.saved else ()),
    ]


def _disks(spec: GuestSpec, files: QemuFiles) -> list[tuple[str, str]]:
    if spec.lockstep:  # its initramfs has their content
        return []
    return [("root", files.root), ("modules", files.modules), *((name, str(path)) for name, path in spec.disks)]


def _console(sockets: GuestSockets) -> Sequence[str]:
    if isinstance(sockets.channel, int):
        return _socket("console", sockets.console)
    # A pipe takes in what a connection would refuse at times: each byte for itself fills that soon.
    return ("-add-fd", f"fd={sockets.console},set=1", "-chardev", "file,id=console,path=/dev/fdset/1,append=on")


def _channel(ends: int | LockstepEnds) -> Sequence[str]:
    if isinstance(ends, int):
        return [
            *_socket("channel", ends),
            *("-device", "virtio-serial-pci,max_ports=2"),
            *("-device", f"virtserialport,chardev=channel,name={CHANNEL_NAME}"),
        ]
    return [
        *(
            "-object",
            f"memory-backend-file,id=lockstep,mem-path={_escaped(ends.memory)},size={LOCKSTEP_BYTES},share=on",
        ),
        *("-device", "ivshmem-plain,memdev=lockstep"),
        *_socket("bell", ends.bell),
        *("-device", f"isa-debugcon,chardev=bell,iobase={LOCKSTEP_BELL:#x}"),
        *_socket("gate", ends.gate),
        *("-device", f"isa-debugcon,chardev=gate,iobase={LOCKSTEP_GATE:#x}"),
    ]


def _accelerator(name: str, lockstep: bool) -> Sequence[str]:
    if lockstep:
        exact = ("-icount", "shift=0,sleep=off", "-seed", "1", "-rtc", "base=2026-01-01,clock=vm")
        # -S: it begins when the harness is there to take turns.
        return ("-accel", "tcg,thread=single", "-cpu", _EMULATED_CPU, *exact, "-S")
    # -cpu host aborts under TCG; max is everything that the accelerator can give, under KVM the host's.
    if name == "tcg":
        return ("-accel", "tcg,thread=multi", "-cpu", _EMULATED_CPU)
    return ("-accel", name, "-cpu", "max")


def _processors_and_memory(spec: GuestSpec, snapshot: SnapshotFiles | None) -> list[str]:
    # Without sockets= all CPUs share a socket, and the kernel warns of nodes that divide it (topology_sane).
    arguments = ["-smp", f"{spec.cpus},sockets={spec.numa_nodes}", "-m", f"{spec.memory_mib}M"]
    if spec.numa_nodes == 1:
        if snapshot is not None:
            arguments += ["-object", _memory(0, spec.memory_mib, snapshot), "-machine", "memory-backend=node0"]
        return arguments
    cpus, memory = spec.cpus // spec.numa_nodes, spec.memory_mib // spec.numa_nodes
    for node in range(spec.numa_nodes):
        first = node * cpus
        arguments += ["-object", _memory(node, memory, snapshot)]
        arguments += ["-numa", f"node,nodeid={node},memdev=node{node},cpus={first}-{first + cpus - 1}"]
    return arguments


def _memory(node: int, mib: int, snapshot: SnapshotFiles | None) -> str:
    if snapshot is None:
        return f"memory-backend-ram,id=node{node},size={mib}M"
    # A guest that is to be saved writes its memory into the file; those that start from it read the pages that they
    # touch, and keep what they write to themselves.
    access = "share=off,readonly=on,rom=off" if snapshot.saved else "share=on"
    path = _escaped(snapshot.memory(node))
    return f"memory-backend-file,id=node{node},size={mib}M,mem-path={path},{access}"


def _socket(name: str, descriptor: int) -> Sequence[str]:
    return ("-chardev", f"socket,id={name},fd={descriptor}")


def _disk(name: str, path: str) -> Sequence[str]:
    return (
        *("-blockdev", f"driver=raw,node-name={name},read-only=on,file.driver=file,file.filename={_escaped(path)}"),
        *("-device", f"virtio-blk-pci,drive={name},serial={name}"),
    )


def _escaped(path: str) -> str:
    return path.replace(",", ",,")
