# SPDX-License-Identifier: MIT
"""The channel of a guest that runs in lockstep: it stands still while it is the host's turn (images/guest/protocol.h).

QEMU counts the guest's instructions (icount), and its time is what they take. All that comes from outside comes in the
host's turns: so a guest of the same inputs repeats what it did to the last instruction, however slow the host is, if
one thread of the harness uses it. The host's turn lasts until that thread waits for something from the guest.

The gate is a connection that is full. QEMU's isa-debugcon tries again and again to write to it, in the thread that
carries out the guest's instructions, and with its big lock: not even its monitor answers then (QEMU 10.0.13,
qemu_chr_write_buffer() in chardev/char.c). Taking out a byte lets the guest go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.guest.channel import Channel, Deadline
from harness.guest.commandline import LockstepEnds
from harness.guest.console import Console
from harness.guest.protocol import LOCKSTEP_BYTES, LOCKSTEP_IN, LOCKSTEP_OUT, LOCKSTEP_ROOM, Decoder, Frame

_HEADER = struct.Struct("<III")
_PRINTED_BYTES = 1 << 20
"""Of the pipe for what the guest prints: QEMU waits when it is full, and nobody knows how long."""
_FULL_BYTES = 4096
"""The least that the kernel gives a connection's buffer, twice that with its own records."""
_READ_SIZE = 1 << 16
_SOON = 0.0005
"""Seconds between looks at what other threads have yet to do."""


@dataclass(frozen=True)
class Lockstep:
    """The host's ends of what a guest in lockstep is connected by."""

    memory: Path
    """The file that both map."""
    bell: socket.socket
    gate: socket.socket
    printed: io.FileIO
    """What the guest prints: the reading end of a pipe, for QEMU does not wait to write to one."""
    theirs: tuple[socket.socket, socket.socket, io.FileIO]
    """QEMU's ends of these, to be closed once it has them."""

    @classmethod
    def prepare(cls, memory: Path) -> Lockstep:
        """Make the file and the connections."""
        with memory.open("wb") as file:
            file.truncate(LOCKSTEP_BYTES)
        bell, gate = socket.socketpair(), socket.socketpair()
        gate[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _FULL_BYTES)
        gate[1].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                gate[1].send(b"\0")  # a byte at a time: a byte taken out makes room for one
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        with contextlib.suppress(OSError):  # it may be that nobody gets more than the default
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PRINTED_BYTES)
        theirs = (bell[1], gate[1], io.FileIO(writing, "wb"))
        return cls(memory, bell[0], gate[0], io.FileIO(reading, "rb"), theirs)

    @property
    def ends(self) -> LockstepEnds:
        """What QEMU is told."""
        return LockstepEnds(str(self.memory), self.theirs[0].fileno(), self.theirs[1].fileno())

    def close(self) -> None:
        """Close all that is open yet; may be called again."""
        for end in (self.bell, self.gate, self.printed, *self.theirs):
            end.close()


class LockstepChannel(Channel):
    """Frames to and from such a guest's agent; also hands on what the guest prints."""

    def __init__(self, ends: Lockstep, console: Console, typing: socket.socket) -> None:
        """Take turns from now on; what the guest prints goes to `console` by way of `typing`, the other end of its."""
        self._ends = ends
        self._console, self._typing = console, typing
        with ends.memory.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), LOCKSTEP_BYTES)
        self._changes = threading.Condition()
        self._waits: list[tuple[threading.Condition, Callable[[], object]]] = []
        self._ours = False
        """Whether it is the host's turn: nothing of the guest's changes. Always so once it is gone."""
        self._turns = 0
        self._nudged = False
        self._free = False
        self._printed_bytes = 0
        super().__init__(ends.bell)

    def send(self, frame: Frame) -> None:
        """Have a frame sent at the end of the host's turn."""
        with self._lock:
            if self.failure is None:
                self._unsent.append(memoryview(frame.encode()))

    def wait_for(self, changed: threading.Condition, happened: Callable[[], object], timeout: float | None) -> bool:
        """As the other channel's: the host's turn ends here, and the wait in a later one.

        Were it to end as soon as something has happened, what is done then would hang on which frames are there yet.
        """
        wait = (changed, happened)
        try:
            with self._changes:
                self._waits.append(wait)
                self._changes.notify_all()
            return bool(changed.wait_for(lambda: self._ours and happened(), timeout))
        finally:
            with contextlib.suppress(ValueError):
                self._waits.remove(wait)

    def nudge(self, timeout: float) -> None:
        """Let the guest have a turn, and wait for its end (`timeout` is in seconds)."""
        with self._changes:
            if self._ours:
                turns, self._nudged = self._turns, True
                self._changes.notify_all()
                self._changes.wait_for(lambda: self._turns != turns or self.failure is not None, timeout)

    def let_run(self, until: Callable[[], object], timeout: float) -> None:
        """Let the guest have turns until something is so that is not the channel's."""
        deadline = Deadline(timeout)
        while not (until() or deadline.passed or self.failure is not None):
            self.nudge(deadline.left())

    @contextmanager
    def free(self) -> Iterator[None]:
        """Let the guest run, and QEMU's monitor answer: the host's turns end at once."""
        with self._changes:
            self._free = True
            self._changes.notify_all()
        try:
            yield
        finally:
            self._free = False

    def close(self) -> None:
        """End the channel's thread; whoever still waits is told that the channel is gone."""
        self._closing = True
        with self._changes:
            self._changes.notify_all()
        super().close()
        self._ends.close()
        self._memory.close()

    def _move_frames(self) -> None:
        decoder = Decoder()
        try:
            while self._rung():
                size, room, _ = _HEADER.unpack_from(self._memory)
                for frame in decoder.feed(self._memory[LOCKSTEP_OUT : LOCKSTEP_OUT + size]):
                    self._dispatch(frame)
                self._let_console_read()
                self._have_our_turn()
                data = self._next(min(room, LOCKSTEP_ROOM))
                self._memory[LOCKSTEP_IN : LOCKSTEP_IN + len(data)] = data
                _HEADER.pack_into(self._memory, 0, 0, room, len(data))
                if self._closing or not self._ends.gate.recv(1):
                    return
        finally:
            self._ours = True
            self._hand_on_printed()
            self._typing.close()
            with self._changes:
                self._changes.notify_all()

    def _rung(self) -> bool:
        """Wait for the guest to have nothing left to do. False when it is gone, or we close."""
        bell, printed = self._ends.bell, self._ends.printed
        poll = select.poll()
        for descriptor in (bell.fileno(), printed.fileno(), self._wake):
            poll.register(descriptor, select.POLLIN)
        while not self._closing:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if printed.fileno() in ready and not self._hand_on_printed():
                poll.unregister(printed)
            if bell.fileno() in ready:
                return bool(bell.recv(1))
        return False

    def _hand_on_printed(self) -> bool:
        """Give the console all that is printed by now. False at the end of it."""
        while data := self._ends.printed.read(_READ_SIZE):
            with contextlib.suppress(OSError):  # a console that was closed
                self._typing.sendall(data)
            self._printed_bytes += len(data)
        return data is None

    def _let_console_read(self) -> None:
        """Whoever looks for something in the log finds it in this turn, or not before the guest's next."""
        self._hand_on_printed()
        while self._console.handled < self._printed_bytes and not (self._closing or self._console.ended.is_set()):
            time.sleep(_SOON)

    def _have_our_turn(self) -> None:
        """The turn is over when who uses the guest waits, and all that has come is not what it waits for."""
        with self._changes:
            self._ours = True
            self._turns += 1
            self._changes.notify_all()
            waits = list(self._waits)
        for changed, _ in waits:
            with changed:
                changed.notify_all()
        with self._changes:
            while not (self._closing or self._nudged or self._free or self._is_awaited()):
                # A wait that is over is not told of: it leaves the list when its thread runs.
                self._changes.wait(_SOON if self._waits else None)
            self._nudged = False
            self._ours = False

    def _is_awaited(self) -> bool:
        waits = list(self._waits)
        return bool(waits) and not any(happened() for _, happened in waits)

    def _next(self, room: int) -> bytes:
        """Take whole frames, as many as the guest has room for."""
        parts = []
        with self._lock:
            while self._unsent and len(self._unsent[0]) <= room:
                parts.append(self._unsent.popleft())
                room -= len(parts[-1])
        return b"".join(parts)
