# SPDX-License-Identifier: MIT
"""A running QEMU with its three connections: serial console, command channel, monitor.

They are pairs of connected sockets that QEMU inherits: there is no file that another user could open, nothing to wait
for, and nothing that a harness killed in mid-air could leave behind.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.guest.channel import Channel, Deadline
from harness.guest.commandline import GuestSockets, QemuFiles, SnapshotFiles, qemu_arguments
from harness.guest.console import Console
from harness.guest.errors import ChannelClosed, GuestStartFailed, SnapshotFailed
from harness.guest.lockstep import Lockstep, LockstepChannel
from harness.guest.process import QemuProcess
from harness.guest.qemu import Qemu
from harness.guest.qmp import Qmp, QmpFailed
from harness.guest.spec import GuestSpec
from harness.image import Image
from harness.image.cpio import newc_archive

CONSOLE_LOG = "console.log"
INITRAMFS = "initramfs"
SHARED_MEMORY = "lockstep"
QEMU_LOG = "qemu.log"
REGISTERS = "registers-at-end.txt"
_ENDS = {
    "guest-reset": "The guest reset itself (a panic, a reboot, or a triple fault, of which the console says nothing)",
    "guest-shutdown": "The guest powered itself off",
}
_END_TIMEOUT = 5.0
_POLL_SECONDS = 0.02


def kernel_of(image: Image, spec: GuestSpec) -> Path:
    """Return the file that QEMU starts: the kernel as it is, by PVH, where that can be."""
    return image.vmlinuz if spec.kaslr or not image.needs.pvh else image.vmlinux


def with_disks(image: Image, path: Path) -> Path:
    """Write an initramfs that has the content of the disks, too, and return its path."""
    disks = {"disks/root": (0o444, image.root.read_bytes()), "disks/modules": (0o444, image.modules.read_bytes())}
    path.write_bytes(image.initramfs.read_bytes() + newc_archive(disks))
    return path


_Pair = tuple[socket.socket, socket.socket]
"""Our end and QEMU's."""


@dataclass(frozen=True)
class _Connections:
    """What QEMU is connected by; in lockstep there is no port, and it has other ends of the console."""

    console: _Pair
    monitor: _Pair
    port: _Pair
    lockstep: Lockstep | None

    @classmethod
    def make(cls, shared_memory: Path | None, cleanup: contextlib.ExitStack) -> _Connections:
        """Connect; `cleanup` closes what is open yet. `shared_memory` is for a guest in lockstep."""
        console, monitor, port = (socket.socketpair() for _ in range(3))
        for end in (*console, *monitor, *port):
            cleanup.callback(end.close)
        lockstep = None if shared_memory is None else Lockstep.prepare(shared_memory)
        if lockstep:
            cleanup.callback(lockstep.close)
        return cls(console, monitor, port, lockstep)

    @property
    def inherited(self) -> list[socket.socket | io.FileIO]:
        """QEMU's ends, to be closed once it has them: of console, monitor, and what the channel is."""
        if self.lockstep is None:
            return [self.console[1], self.monitor[1], self.port[1]]
        bell, gate, printed = self.lockstep.theirs
        return [printed, self.monitor[1], bell, gate]

    @property
    def sockets(self) -> GuestSockets:
        """What QEMU is told of them."""
        console, monitor, channel = (end.fileno() for end in self.inherited[:3])
        return GuestSockets(console, monitor, self.lockstep.ends if self.lockstep else channel)


class Machine:
    """QEMU from its start to its end."""

    def __init__(
        self,
        qemu: Qemu,
        accelerator: str,
        image: Image,
        spec: GuestSpec,
        folder: Path,
        on_lines: Callable[[Sequence[str]], None],
        on_console_end: Callable[[], None],
        snapshot: SnapshotFiles | None = None,
    ) -> None:
        """Start QEMU; its logs go into `folder`, the console's lines to `on_lines` as well.

        With a `snapshot` the guest goes on from where that was saved, or boots to be saved there.
        """
        self.folder = folder
        self._snapshot = snapshot
        initramfs = with_disks(image, folder / INITRAMFS) if spec.lockstep else image.initramfs
        files = QemuFiles(str(kernel_of(image, spec)), str(initramfs), str(image.root), str(image.modules))
        restored = None if snapshot is None or not snapshot.saved else Path(snapshot.folder)
        readable = [*image.files(), initramfs, *(path for _, path in spec.disks), *([restored] if restored else [])]
        writable = [Path(snapshot.folder)] if snapshot and not snapshot.saved else []
        with contextlib.ExitStack() as cleanup:
            ends = _Connections.make(folder / SHARED_MEMORY if spec.lockstep else None, cleanup)
            writable += [ends.lockstep.memory] if ends.lockstep else []
            arguments = qemu_arguments(spec, accelerator, files, ends.sockets, snapshot)
            line = qemu.command(arguments, readable, writable)
            self.process = QemuProcess(line, [end.fileno() for end in ends.inherited], folder / QEMU_LOG)
            for end in ends.inherited:
                end.close()
            cleanup.callback(self.process.kill)
            before = b"" if restored is None else (restored / CONSOLE_LOG).read_bytes()
            log, keys = folder / CONSOLE_LOG, ends.lockstep is None
            self.console = Console(ends.console[0], log, on_lines, on_console_end, before, takes_keys=keys)
            cleanup.callback(self.console.close)
            self.qmp = self._greet(ends.monitor[0])
            self.channel = self._open_channel(ends, greeted=restored is not None)
            cleanup.callback(self.channel.close)
            if ends.lockstep:
                self._begin(initramfs, ends.lockstep.memory)
            cleanup.pop_all()

    def _open_channel(self, ends: _Connections, *, greeted: bool) -> Channel:
        if ends.lockstep is None:
            return Channel(ends.port[0], greeted=greeted)
        for end in ends.port:
            end.close()
        return LockstepChannel(ends.lockstep, self.console, ends.console[1])

    def _begin(self, *files: Path) -> None:
        """Let a guest in lockstep go, without files that QEMU has read or opened."""
        for path in files:
            path.unlink()
        self.qmp.execute("cont")

    def _greet(self, sock: socket.socket) -> Qmp:
        try:
            return Qmp(sock)
        except QmpFailed as error:
            self.process.wait(_END_TIMEOUT)
            said = self.process.said() or str(error)
            raise GuestStartFailed(f"QEMU did not start: {said}", where=self.folder / QEMU_LOG) from error

    def ended(self) -> bool:
        """Whether QEMU has ended; a channel that was closed announces the end, which is waited for."""
        if isinstance(self.channel.failure, ChannelClosed):
            self.process.wait(_END_TIMEOUT)
        return not self.process.running

    def save(self, timeout: float) -> None:
        """Save the guest where its snapshot is to be; only `end` may follow. `timeout` is in seconds."""
        assert self._snapshot is not None
        # It stops by itself when all is saved; one that was stopped before would be restored as such.
        self._leave_memory_in_its_file()
        self.qmp.execute("migrate", uri=f"file:{self._snapshot.state}")
        deadline = Deadline(timeout)
        while (status := self._migration()).get("status") != "completed":
            if status.get("status") in ("failed", "cancelled") or deadline.passed:
                raise SnapshotFailed(f"the guest could not be saved: {status}", where=self._snapshot.folder)
            time.sleep(_POLL_SECONDS)
        shutil.copyfile(self.folder / CONSOLE_LOG, Path(self._snapshot.folder, CONSOLE_LOG))

    def restore(self) -> None:
        """Have QEMU, which waits for that, read the snapshot; the guest runs on as soon as it has."""
        assert self._snapshot is not None
        try:
            self._leave_memory_in_its_file()
            self.qmp.execute("migrate-incoming", uri=f"file:{self._snapshot.state}")
        except QmpFailed as error:
            raise SnapshotFailed(f"the guest could not be restored: {error}", where=self._snapshot.folder) from error

    def _leave_memory_in_its_file(self) -> None:
        """The file that is the memory needs no copy in the state."""
        capability = {"capability": "x-ignore-shared", "state": True}
        self.qmp.execute("migrate-set-capabilities", capabilities=[capability])

    def _migration(self) -> dict[str, object]:
        answer = self.qmp.execute("query-migrate")
        return answer if isinstance(answer, dict) else {}

    def last_words(self) -> str:
        """Return how QEMU ended, and the last that it and the guest said."""
        self.console.ended.wait(_END_TIMEOUT)
        code = self.process.wait(0)
        how = "QEMU runs on" if code is None else f"QEMU ended with exit code {code}"
        if code is not None and code < 0:
            how = f"QEMU was killed by signal {-code}"
        parts = [how, self._own_end(), self.process.said(), "Last lines of the console:", *self.console.last_lines()]
        return "\n".join(part for part in parts if part)

    def _own_end(self) -> str:
        """Say how the guest ended by itself, if it did, and keep its registers, all that is left of a triple fault."""
        end = self.qmp.end
        if end is None:
            return ""
        path = self.folder / REGISTERS
        path.write_text(end.registers, "utf-8")
        return f"{_ENDS.get(end.reason, f'The guest ended by itself ({end.reason})')}; its registers then: {path}"

    def end(self) -> None:
        """End QEMU at once and close everything; may be called again."""
        self.process.kill()
        self.qmp.close()
        self.channel.close()
        self.console.close()
