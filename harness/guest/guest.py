# SPDX-License-Identifier: MIT
"""A guest: its programs, files, kernel modules and log. The parts are in the other files of this package."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import paramiko

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest import livepatch, ssh
from harness.guest.accel import choose_accelerator
from harness.guest.commandline import SnapshotFiles
from harness.guest.console import Console
from harness.guest.dump import write_dump
from harness.guest.errors import (
    ChannelClosed,
    CommandFailed,
    CommandTimeout,
    GuestDied,
    GuestHung,
    GuestStartFailed,
    KernelLogUnreadable,
    KernelSplat,
    ProtocolError,
    SnapshotFailed,
    TaintUnexplained,
)
from harness.guest.files import GuestFiles
from harness.guest.loggate import LogGate
from harness.guest.machine import CONSOLE_LOG, Machine, kernel_of
from harness.guest.protocol import Clocks, FrameType
from harness.guest.qemu import find_qemu
from harness.guest.qmp import Qmp
from harness.guest.spec import GuestSpec
from harness.guest.splats import Splat
from harness.guest.stream import Stream
from harness.image import Image

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "USER": "root",
}
MAX_OUTPUT = 256 << 20
"""Bytes of stdout after which `run` kills a program that goes wild."""

DUMP_FOLDER = "dump"
_PING_TIMEOUT = 15.0
_KILL_TIMEOUT = 10.0
_SEED_BYTES = 64
_TAINTED = "/proc/sys/kernel/tainted"
# Documentation/admin-guide/tainted-kernels.rst: machine check, bad page, died, warned, soft lockup.
_DAMAGE = {4: "machine check", 5: "bad page", 7: "oops", 9: "warning", 14: "soft lockup"}


@dataclass(frozen=True)
class Completed:
    """A program that has ended."""

    argv: tuple[str, ...]
    exit_code: int
    """Minus the signal's number for one that was killed."""
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text."""
        return self.stdout.decode(errors="replace")


class Guest:
    """A running guest. Methods may be called from several threads; all times are in seconds of the host.

    Every command passes the log gate: KernelSplat is raised when the kernel complained while it ran, and
    KernelLogUnreadable when that cannot be told. A guest that is gone raises GuestDied (or KernelSplat with its last
    words), one that answers nobody is dumped into `folder`/dump, ended, and raises GuestHung.
    """

    def __init__(
        self, config: Config, image: Image, spec: GuestSpec, folder: Path, snapshot: SnapshotFiles | None = None
    ) -> None:
        """Use `Guest.start`, or `start_guest` of snapshot.py."""
        self.image = image
        self.spec = spec
        self.folder = folder
        self.timeout_factor = config.timeout_factor
        self.inserted: set[str] = set()
        """Names of the modules that `insmod` loaded, whether they are there still or not."""
        assert not (spec.lockstep and snapshot), "only what is booted repeats"
        self._closed = False
        self._hung: GuestHung | None = None
        self._hang_lock = threading.Lock()
        self._keys: ssh.Keys | None = None
        self.log = LogGate(
            self._mark,
            self._log_unreadable,
            self.timeout_factor,
            nudge=self._nudge,
            nonce="lockstep" if spec.lockstep else None,
        )
        qemu = find_qemu(config)
        self.qemu_version = qemu.version
        wanted = "tcg" if spec.lockstep else spec.accelerator
        self.accelerator = choose_accelerator(config, qemu, kernel_of(image, spec), wanted)
        folder.mkdir(parents=True, exist_ok=True)
        self._machine = Machine(qemu, self.accelerator, image, spec, folder, self.log.feed, self.log.end, snapshot)
        self._files = GuestFiles(self._start_files)

    @classmethod
    def start(cls, config: Config, image: Image, spec: GuestSpec, folder: Path) -> Guest:
        """Boot a guest and return it once its agent answers; its logs go into `folder`.

        Raises GuestStartFailed when it does not come up, KernelSplat when its kernel complains on the way.
        """
        return cls(config, image, spec, folder)._started(Guest._wait_booted)

    @classmethod
    def restore(cls, config: Config, image: Image, spec: GuestSpec, folder: Path, snapshot: Path) -> Guest:
        """Return a guest that goes on from where `save_booted` saved one of the same image and spec.

        Its clock is set, and its random numbers are its own.
        Raises SnapshotFailed when QEMU does not take the snapshot.
        """
        guest = cls(config, image, spec, folder, SnapshotFiles(str(snapshot), saved=True))
        return guest._started(Guest._wait_restored)

    @classmethod
    def save_booted(cls, config: Config, image: Image, spec: GuestSpec, folder: Path, snapshot: Path) -> None:
        """Boot a guest as `start` does and save it in the folder `snapshot`, where nothing else is."""
        files = SnapshotFiles(str(snapshot), saved=False)
        guest = cls(config, image, spec, folder, files)._started(Guest._wait_booted)
        try:
            guest._machine.save(spec.boot_timeout * guest.timeout_factor)
        finally:
            guest._closed = True
            guest._machine.end()

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(CheckFailed):
            self.close()

    # Programs

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        timeout: float = 60,
        check: bool = True,
    ) -> Completed:
        """Run a program to its end. `env` comes on top of a plain environment.

        Raises CommandFailed for an exit code other than 0 (unless `check` is False) and for a program that cannot be
        started, CommandTimeout after `timeout` seconds, when all of its session has been killed.
        What a child that it leaves behind writes later is lost, as is anything beyond the last MiB of stderr.
        """
        stream = self.spawn(argv, env=env, cwd=cwd)
        output = stream.communicate(stdin, timeout, MAX_OUTPUT)
        result = Completed(tuple(argv), stream.exit_code(), output, stream.stderr)
        if check and result.exit_code != 0:
            code = result.exit_code
            outcome = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
            raise CommandFailed(stream.command, outcome, output, result.stderr)
        return result

    def spawn(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = "") -> Stream:
        """Start a program and return its streams. It passes the log gate when somebody waits for its end."""
        return self._start(FrameType.EXEC, argv, {**ENVIRONMENT, **(env or {})}, cwd)

    # Files

    def put(self, data: bytes, path: str, mode: int = 0o644, timeout: float = 120) -> None:
        """Make the file `path` of the guest. Raises GuestFileError."""
        self._files.put(data, path, mode, timeout)

    def get(self, path: str, offset: int = 0, size: int | None = None, timeout: float = 120) -> bytes:
        """Return a file of the guest, or a part of it. Raises GuestFileError."""
        return self._files.get(path, offset, size, timeout)

    def write(self, path: str, text: str, timeout: float = 60) -> None:
        """Write to an existing file (sysfs, proc) at once. Raises GuestFileError with the guest's errno."""
        self._files.write(path, text.encode(), timeout)

    def pids(self) -> list[int]:
        """Return the ids of all its processes."""
        names = self.run(["ls", "/proc"]).text.split()
        return [int(name) for name in names if name.isdigit()]

    def read(self, path: str, timeout: float = 60) -> str:
        """Return a small file of the guest as text, without the newline at its end. Raises GuestFileError."""
        return self._files.get(path, 0, None, timeout).decode(errors="replace").removesuffix("\n")

    def read_files(self, paths: Iterable[str], timeout: float = 60) -> dict[str, bytes | None]:
        """Return the content of many small files (4 MiB at most each) in one round trip; None where it cannot be read.

        A path that ends in `/` stands for every file in that folder.
        """
        return self._files.read_many(paths, timeout)

    # The kernel

    def insmod(self, ko: Path, *parameters: str, timeout: float = 120) -> None:
        """Load a module file of the host's; a livepatch is in force on return."""
        path = f"/tmp/{ko.name}"
        self.put(ko.read_bytes(), path)
        self.run(["insmod", path, *parameters], timeout=timeout)
        self.run(["rm", path])
        self.inserted.add(ko.stem)
        livepatch.wait_patched(self, ko.stem, timeout * self.timeout_factor)

    def rmmod(self, name: str, timeout: float = 120) -> None:
        """Unload a module; a livepatch is disabled first."""
        livepatch.disable(self, name, timeout * self.timeout_factor)
        self.run(["rmmod", name], timeout=timeout)

    # Other ways in

    @property
    def console(self) -> Console:
        """The serial console."""
        return self._machine.console

    @property
    def qmp(self) -> Qmp:
        """QEMU's monitor."""
        return self._machine.qmp

    @property
    def pid(self) -> int:
        """The host's process that holds QEMU."""
        return self._machine.process.pid

    def ssh(self) -> paramiko.SSHClient:
        """Return a new ssh session as root; close it after use."""
        if self._keys is None:
            keys = ssh.Keys.generate()
            ssh.install_keys(self, keys)
            self._keys = keys
        return ssh.connect(self, self._keys, self.timeout_factor)

    def clocks(self) -> Clocks:
        """Return the guest's clocks. Raises GuestHung when it does not answer."""
        with contextlib.suppress(ChannelClosed, ProtocolError):
            clocks = self._machine.channel.ping(_PING_TIMEOUT * self.timeout_factor)
            if clocks is not None:
                return clocks
        raise self._no_answer("clocks", "did not answer")

    # State and end

    @property
    def splats(self) -> list[Splat]:
        """Every complaint of the kernel's so far, the expected ones among them."""
        return list(self.log.splats)

    @property
    def running(self) -> bool:
        """Whether the guest can still be used, as far as is known."""
        machine = self._machine
        ended = machine.console.ended.is_set() or machine.channel.failure is not None or not machine.process.running
        return not (self._closed or self._hung is not None or ended)

    @property
    def healthy(self) -> bool:
        """Whether the guest runs and answers, as far as is known, and its kernel complained of nothing unexpected."""
        return self.running and all(splat.expected for splat in self.log.splats) and not self.log.unreadable

    @property
    def pristine(self) -> bool:
        """Whether it is healthy, and its kernel never complained at all."""
        return self.healthy and not self.log.splats

    def pause(self, seconds: float) -> None:
        """Let the guest go on for so long; in lockstep by its own clock."""
        if self.spec.lockstep:
            self.run(["sleep", f"{seconds:g}"])
        else:
            time.sleep(seconds)

    def dump(self) -> Path:
        """Write stacks and registers into `folder`/dump and return that."""
        folder = self.folder / DUMP_FOLDER
        with self._machine.channel.free():
            write_dump(self.console, self.qmp, folder)
        return folder

    def poweroff(self, timeout: float = 60) -> None:
        """Have the guest shut down in order, and close it. Raises GuestHung when it does not."""
        self._check_damage()
        self.spawn(["poweroff"])
        seconds = timeout * self.timeout_factor
        self._machine.channel.let_run(lambda: not self._machine.process.running, seconds)
        if self._machine.process.wait(seconds) is None:
            raise self._hang("poweroff", f"did not power off within {timeout:.0f} s")
        self._closed = True
        splats = self.log.drain("poweroff")
        self._machine.end()
        if splats:
            raise KernelSplat("poweroff", splats)

    def close(self) -> None:
        """End the guest at once; nothing of it remains but `folder`. Safe to call again.

        Raises KernelSplat for complaints since the last command, TaintUnexplained for damage that nobody reported.
        """
        if self._closed:
            return
        usable = self.running
        self._closed = True
        try:
            # A guest that hangs, or whose log is lost, was reported to whoever used it last.
            if self._hung is not None or self.log.unreadable:
                return
            if usable:
                self._check_damage()
            elif splats := self.log.drain("the end of the guest"):
                raise KernelSplat("the end of the guest", splats, self._see_console())
        finally:
            self._machine.end()

    # Start

    def _started(self, wait: Callable[[Guest], None]) -> Guest:
        """Return the guest once `wait` has seen it up; end one that does not come up."""
        try:
            wait(self)
        except BaseException:
            self._machine.end()
            raise
        return self

    def _wait_restored(self) -> None:
        timeout = self.spec.boot_timeout * self.timeout_factor
        clocks = None
        self._machine.restore()
        with contextlib.suppress(ChannelClosed, ProtocolError):
            clocks = self._machine.channel.resume(time.time_ns(), secrets.token_bytes(_SEED_BYTES), timeout)
        if clocks is None and self._machine.ended():
            said = self._machine.last_words()
            raise SnapshotFailed(f"the guest could not be restored: {said}", where=self.folder)
        if clocks is None:
            raise self._no_answer("restore", "did not answer after it was restored")
        self.log.check("restore")
        self._damage = self._read_damage()

    def _wait_booted(self) -> None:
        timeout = self.spec.boot_timeout * self.timeout_factor
        if not self._machine.channel.wait_ready(timeout):
            if self._machine.ended():
                splats = self.log.drain("boot")
                if splats:
                    raise KernelSplat("boot", splats, self._see_console())
                raise GuestStartFailed(f"the guest did not boot: {self._machine.last_words()}", where=self.folder)
            if self._machine.channel.failure is not None:
                raise GuestStartFailed(str(self._machine.channel.failure), where=self.folder)
            raise self._hang("boot", f"did not boot within {timeout:.0f} s")
        self.log.check("boot")
        self._damage = self._read_damage()

    def _start(self, kind: FrameType, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> Stream:
        command = " ".join(argv)
        if self._hung is not None:
            raise self._hung
        try:
            self.log.begin(command)
            return Stream(self._machine.channel, self, kind, argv, env, cwd)
        except (ChannelClosed, ProtocolError):
            raise self._no_answer(command, "could not be started") from None

    def _start_files(self, argv: Sequence[str]) -> Stream:
        return self._start(FrameType.FILES, argv, {}, "")

    # What a Stream tells (stream.Supervisor)

    def finished(self, stream: Stream) -> None:
        """Pass the log gate."""
        self.log.check(stream.command)

    def timed_out(self, stream: Stream, what: str, seconds: float) -> Exception:
        """Kill the program; a guest in which that does not help hangs."""
        stream.kill()
        if not stream.wait_killed(_KILL_TIMEOUT):
            return self._no_answer(stream.command, f"needed more than {seconds:g} s {what}, and cannot be killed")
        try:
            self.log.check(stream.command)
        except CheckFailed as error:
            return error
        outcome = f"needed more than {seconds:g} s {what}, and was killed"
        return CommandTimeout(stream.command, outcome, stderr=stream.stderr)

    def lost(self, stream: Stream) -> Exception:
        """Say why the guest is gone."""
        return self._no_answer(stream.command, "was cut off")

    # Failure

    def _mark(self, line: str, timeout: float) -> bool:
        with contextlib.suppress(ChannelClosed, ProtocolError):
            return self._machine.channel.mark(line, timeout)
        return False

    def _nudge(self, timeout: float) -> None:
        """Let a guest go on that is in lockstep."""
        self._machine.channel.nudge(timeout)

    def _log_unreadable(self, command: str, why: str) -> Exception:
        with contextlib.suppress(ChannelClosed, ProtocolError):
            if self._machine.channel.ping(_PING_TIMEOUT * self.timeout_factor) is not None:
                return KernelLogUnreadable(why, where=command)
        return self._no_answer(command, why)

    def _no_answer(self, command: str, what: str) -> Exception:
        """Find out whether the guest is dead or hung, and return the error that says so."""
        if self._hung is not None:
            return self._hung
        if self._machine.ended():
            self._machine.console.ended.wait(_KILL_TIMEOUT)
            splats = self.log.drain(command)
            if splats:
                return KernelSplat(command, splats, f"The guest is gone. {self._see_console()}")
            return GuestDied(f"{what}: the guest is gone. {self._machine.last_words()}", where=command)
        failure = self._machine.channel.failure
        if failure is not None:
            return type(failure)(failure.what, where=command)
        return self._hang(command, what)

    def _hang(self, command: str, what: str) -> GuestHung:
        """Dump the guest and end it."""
        with self._hang_lock:
            if self._hung is None:
                said = [splat.title for splat in self.log.drain(command)]
                folder = self.dump()
                self._hung = GuestHung(
                    "\n".join([f"{what}; the guest was ended", *said]),
                    where=command,
                    hint=f"Stacks and registers: {folder}. {self._see_console()}",
                )
                self._machine.end()
            return self._hung

    def _see_console(self) -> str:
        return f"The whole console: {self.folder / CONSOLE_LOG}"

    def _read_damage(self) -> int:
        value = int(self.read(_TAINTED))
        return sum(1 << bit for bit in _DAMAGE if value >> bit & 1)

    def _check_damage(self) -> None:
        """Compare the kernel's own marks of damage with what the gate has seen."""
        new = self._read_damage() & ~self._damage
        if new and not self.log.splats:
            names = ", ".join(name for bit, name in _DAMAGE.items() if new >> bit & 1)
            raise TaintUnexplained(
                f"the kernel is tainted ({names}), but nothing was seen in its log", where=self.folder / CONSOLE_LOG
            )
