# SPDX-License-Identifier: MIT
"""One program running in the guest: bytes to its stdin, bytes from its stdout and stderr, its exit code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from harness.guest.channel import Channel, Deadline
from harness.guest.errors import CommandFailed
from harness.guest.protocol import MAX_DATA, WINDOW, Frame, FrameType, encode_number, encode_start

KEPT_STDERR = 1 << 20
"""Bytes of a program's stderr that are kept (the last ones)."""
SIGKILL = 9


class Supervisor(Protocol):
    """What a Stream tells its guest."""

    @property
    def timeout_factor(self) -> float:
        """What every time limit is multiplied by."""

    def finished(self, stream: Stream) -> None:
        """The program has ended and somebody waited for it; raises when the kernel log says that it did harm."""

    def timed_out(self, stream: Stream, what: str, seconds: float) -> Exception:
        """End a program that took too long and return the error to raise."""

    def lost(self, stream: Stream) -> Exception:
        """Return the error that says why the channel went away under the program."""


class Stream:
    """A running program. Any thread may call any method, several may wait at once.

    At most 256 KiB of output waits here and as much input in the guest: whoever is slower makes the other wait.
    All times are in seconds, before the configured factor. A time-out kills the program (all of its session) and raises
    CommandTimeout, or GuestHung when the guest does not answer any more.
    """

    def __init__(
        self,
        channel: Channel,
        supervisor: Supervisor,
        kind: FrameType,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
    ) -> None:
        self.command = " ".join(argv)
        self._channel = channel
        self._supervisor = supervisor
        self._changed = threading.Condition()
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._consumed = 0
        self._send_credit = WINDOW
        self._stdin_open = True
        self._exit_code: int | None = None
        self._start_failure: tuple[int, str] | None = None
        self._lost = False
        self._reported = False
        # Frames may arrive before open() returns; none of them needs the id.
        self._id = channel.open(self, kind, encode_start(argv, env, cwd))

    # What the channel's thread calls.

    def receive(self, frame: Frame) -> None:
        """Take a frame from the channel."""
        with self._changed:
            if frame.type is FrameType.STDOUT:
                self._stdout += frame.payload
            elif frame.type is FrameType.STDERR:
                self._stderr += frame.payload
                del self._stderr[:-KEPT_STDERR]
                self._channel.send(Frame(frame.id, FrameType.CREDIT, encode_number(len(frame.payload))))
            elif frame.type is FrameType.STDIN_CREDIT:
                self._send_credit += frame.number()
            elif frame.type is FrameType.FAILED:
                self._start_failure = frame.failure()
            elif frame.type is FrameType.EXIT:
                self._exit_code = frame.exit_code()
            self._changed.notify_all()

    def lose(self) -> None:
        """Learn that the channel is gone."""
        with self._changed:
            self._lost = True
            self._changed.notify_all()

    # What users call.

    @property
    def stderr(self) -> bytes:
        """What the program has said on stderr so far (the last MiB of it)."""
        with self._changed:
            return bytes(self._stderr)

    @property
    def running(self) -> bool:
        """Whether the program has neither ended nor been lost, as far as is known now."""
        return not self._over

    def write(self, data: bytes, timeout: float = 60) -> None:
        """Give the program all of `data` on stdin. Input for a program that has ended is dropped."""
        deadline = self._deadline(timeout)
        view = memoryview(data)
        while view:
            sent = self._write_some(view)
            view = view[sent:]
            if not sent:
                self._wait_for_change(deadline, "to read its stdin", lambda: self._over or self._send_credit > 0)
                if self._over:
                    self._raise_if_lost()
                    return

    def close_stdin(self) -> None:
        """End the program's stdin."""
        if self._stdin_open:
            self._stdin_open = False
            self._channel.send(Frame(self._id, FrameType.STDIN_END))

    def read(self, size: int, timeout: float = 60) -> bytes:
        """Return exactly `size` bytes of stdout; CommandFailed when the program ends before it has written them."""
        deadline = self._deadline(timeout)
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self._receive_some(missing, deadline)
            if not part:
                self._raise_if_not_started()
                outcome = f"ended ({self._outcome()}) {missing} bytes before the end of an answer of {size}"
                self._report()
                raise CommandFailed(self.command, outcome, b"".join(parts), self.stderr)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def read_some(self, size: int, timeout: float | None = 60) -> bytes:
        """Return between 1 and `size` bytes of stdout as soon as there are any; none when the program has ended.

        Raises TimeoutError when none came in time (None: waits for ever); unlike in all else, the program lives on.
        """
        with self._changed:
            if not self._channel.wait_for(self._changed, self._can_move, timeout):
                raise TimeoutError
        data = self._take(size)
        if not data:
            self._raise_if_lost()
            self._raise_if_not_started()
        return data

    def kill(self, signal: int = SIGKILL) -> None:
        """Send a signal to every process of the program's session."""
        self._channel.send(Frame(self._id, FrameType.KILL, encode_number(signal)))

    def wait(self, timeout: float = 60) -> int:
        """Wait for the program's end and return its exit code, or minus the number of the signal that ended it.

        Output that nobody has read is dropped. Raises KernelSplat when the kernel complained meanwhile.
        """
        deadline = self._deadline(timeout)
        self.close_stdin()
        while self._receive_some(WINDOW, deadline):
            pass
        return self.exit_code()

    def exit_code(self) -> int:
        """Return the exit code of a program that has ended, once the kernel log has been read up to there."""
        self._raise_if_not_started()
        assert self._exit_code is not None, "the program is still running"
        self._report()
        return self._exit_code

    def communicate(self, stdin: bytes, timeout: float, limit: int) -> bytes:
        """Feed `stdin`, and return the whole stdout once the program has ended; kill it beyond `limit` bytes."""
        deadline = self._deadline(timeout)
        output = bytearray()
        view = memoryview(stdin)
        while True:
            view = view[self._write_some(view) :]
            if not view:
                self.close_stdin()
            self._wait_for_change(deadline, "to end", self._can_move_input if view else self._can_move)
            output += self._take(WINDOW)
            if len(output) > limit:
                self.kill()
                raise CommandFailed(self.command, f"wrote more than {limit} bytes and was killed", bytes(output[:4096]))
            if self._over and not self._stdout:
                self._raise_if_lost()
                return bytes(output)

    def wait_killed(self, timeout: float) -> bool:
        """Wait for the end of a killed program, whatever it still says. False when it lives on."""
        deadline = self._deadline(timeout)
        with self._changed:
            while not self._over and not deadline.passed:
                self._channel.wait_for(self._changed, self._can_move, deadline.left())
                self._take(WINDOW)
            return self._over

    def _deadline(self, seconds: float) -> Deadline:
        return Deadline(seconds * self._supervisor.timeout_factor)

    @property
    def _over(self) -> bool:
        return self._lost or self._exit_code is not None or self._start_failure is not None

    def _can_move(self) -> bool:
        return self._over or bool(self._stdout)

    def _can_move_input(self) -> bool:
        return self._can_move() or self._send_credit > 0

    def _outcome(self) -> str:
        code = self._exit_code
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def _report(self) -> None:
        with self._changed:
            first, self._reported = not self._reported, True
        if first:
            self._supervisor.finished(self)

    def _raise_if_lost(self) -> None:
        if self._lost and self._exit_code is None and self._start_failure is None:
            raise self._supervisor.lost(self)

    def _raise_if_not_started(self) -> None:
        if self._start_failure is not None:
            self._report()
            raise CommandFailed(self.command, f"could not be started: {self._start_failure[1]}")

    def _write_some(self, view: memoryview) -> int:
        """Send as much as the guest takes now, in one frame."""
        with self._changed:
            size = min(len(view), MAX_DATA, self._send_credit)
            if not size or self._over:
                return 0
            self._send_credit -= size
        self._channel.send(Frame(self._id, FrameType.STDIN, bytes(view[:size])))
        return size

    def _receive_some(self, size: int, deadline: Deadline) -> bytes:
        self._wait_for_change(deadline, "to answer", self._can_move)
        data = self._take(size)
        if not data:
            self._raise_if_lost()
        return data

    def _take(self, size: int) -> bytes:
        """Take up to `size` bytes of waiting stdout, and tell the guest that there is room again."""
        with self._changed:
            data = bytes(self._stdout[:size])
            del self._stdout[:size]
            self._consumed += len(data)
            credit = 0
            if self._consumed >= WINDOW // 4:
                credit, self._consumed = self._consumed, 0
        if credit and not self._over:
            self._channel.send(Frame(self._id, FrameType.CREDIT, encode_number(credit)))
        return data

    def _wait_for_change(self, deadline: Deadline, what: str, happened: Callable[[], object]) -> None:
        with self._changed:
            if self._channel.wait_for(self._changed, happened, deadline.left()):
                return
        raise self._supervisor.timed_out(self, what, deadline.seconds)
