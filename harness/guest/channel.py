# SPDX-License-Identifier: MIT
"""The host's end of the command channel: one thread moves frames, callers wait for those of their own id."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from harness.errors import SamepageError
from harness.guest.errors import ChannelClosed, ProtocolError
from harness.guest.protocol import PROTOCOL_VERSION, Clocks, Decoder, Frame, FrameType, encode_resume

_READ_SIZE = 1 << 20
_LAST_FRAMES = {FrameType.EXIT, FrameType.FAILED, FrameType.PONG, FrameType.MARKED}


class Receiver(Protocol):
    """Takes the frames of one id. Called in the channel's thread: must not block."""

    def receive(self, frame: Frame) -> None:
        """Take a frame; after EXIT, FAILED, PONG or MARKED none follows."""

    def lose(self) -> None:
        """The channel is gone, nothing more will come."""


class Channel:
    """Frames to and from the agent of one guest. Every method may be called from any thread."""

    def __init__(self, sock: socket.socket, *, greeted: bool = False) -> None:
        """Move frames over `sock`. `greeted`: the agent has said hello already, before its guest was saved."""
        self._sock = sock
        self._sock.setblocking(False)
        self._lock = threading.Lock()
        self._receivers: dict[int, Receiver] = {}
        self._next_id = 1
        self._unsent: deque[memoryview] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._greeted = threading.Event()
        if greeted:
            self._greeted.set()
        self._closing = False
        self.failure: ChannelClosed | ProtocolError | None = None
        self._thread = threading.Thread(target=self._run, name="samepage-channel", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until the agent has said hello. False when it has not within `timeout` seconds, or the channel broke."""
        return self._greeted.wait(timeout) and self.failure is None

    def ping(self, timeout: float) -> Clocks | None:
        """Return the guest's clocks, or None when the agent does not answer within `timeout` seconds."""
        answer = self._ask(FrameType.PING, b"", timeout)
        return None if answer is None else answer.clocks()

    def mark(self, line: str, timeout: float) -> bool:
        """Have the agent write `line` into the kernel log. False when it does not answer within `timeout` seconds."""
        answer = self._ask(FrameType.MARK, line.encode(), timeout)
        if answer is not None and answer.type is FrameType.FAILED:
            raise SamepageError("the agent cannot write to the kernel log: " + answer.failure()[1])
        return answer is not None

    def resume(self, realtime: int, random: bytes, timeout: float) -> Clocks | None:
        """Tell a restored guest the time (ns since 1970) and random bytes of its own; answers as `ping` does."""
        answer = self._ask(FrameType.RESUME, encode_resume(realtime, random), timeout)
        if answer is not None and answer.type is FrameType.FAILED:
            raise SamepageError("the agent cannot resume: " + answer.failure()[1])
        return None if answer is None else answer.clocks()

    def open(self, receiver: Receiver, kind: FrameType, payload: bytes) -> int:
        """Send a request under a new id, whose frames go to `receiver`, and return the id."""
        with self._lock:
            if self.failure is not None:
                raise self.failure
            identity = self._next_id
            self._next_id = self._next_id % 0xFFFFFFFF + 1
            self._receivers[identity] = receiver
        self.send(Frame(identity, kind, payload))
        return identity

    def send(self, frame: Frame) -> None:
        """Send a frame without blocking: what the guest does not take yet waits here, bounded by the ids' windows."""
        data = memoryview(frame.encode())
        with self._lock:
            if self.failure is not None:
                return  # the receiver has been told
            if not self._unsent:
                with contextlib.suppress(BlockingIOError, OSError):
                    data = data[self._sock.send(data) :]
            if not data:
                return
            self._unsent.append(data)
        os.eventfd_write(self._wake, 1)

    def wait_for(self, changed: threading.Condition, happened: Callable[[], object], timeout: float | None) -> bool:
        """Wait, with `changed` held, until frames made something happen. Every wait for the guest goes through here."""
        return bool(changed.wait_for(happened, timeout))

    def nudge(self, timeout: float) -> None:
        """Let the guest have a turn, where it has turns (lockstep.py)."""

    def let_run(self, until: Callable[[], object], timeout: float) -> None:
        """Let the guest run until something is so that is not the channel's, where it does not by itself."""

    @contextmanager
    def free(self) -> Iterator[None]:
        """Let the guest run and QEMU's monitor answer, where they do not by themselves."""
        yield

    def close(self) -> None:
        """End the channel's thread; whoever still waits is told that the channel is gone."""
        self._closing = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)
        self._thread.join()

    def _ask(self, kind: FrameType, payload: bytes, timeout: float) -> Frame | None:
        reply = _Reply()
        self.open(reply, kind, payload)
        with reply.changed:
            if not self.wait_for(reply.changed, lambda: reply.over, timeout):
                return None
        if reply.frame is None:
            raise self.failure or ChannelClosed("the command channel is gone")
        return reply.frame

    def _run(self) -> None:
        failure: ChannelClosed | ProtocolError = ChannelClosed("the command channel was closed")
        try:
            self._move_frames()
        except ProtocolError as error:
            failure = error
        except OSError as error:
            failure = ChannelClosed(f"the command channel broke: {error.strerror}")
        finally:
            self._give_up(failure)

    def _give_up(self, failure: ChannelClosed | ProtocolError) -> None:
        with self._lock:
            self.failure = failure
            receivers = list(self._receivers.values())
            self._receivers.clear()
            self._sock.close()
            os.close(self._wake)
        self._greeted.set()
        for receiver in receivers:
            receiver.lose()

    def _move_frames(self) -> None:
        """Read and write until the other end or we close."""
        decoder = Decoder()
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while not self._closing:
            poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            for descriptor, _ in poll.poll():
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
            self._send_waiting()
            with contextlib.suppress(BlockingIOError):
                data = self._sock.recv(_READ_SIZE)
                if not data:
                    return
                for frame in decoder.feed(data):
                    self._dispatch(frame)

    def _send_waiting(self) -> None:
        with self._lock:
            try:
                while self._unsent:
                    sent = self._sock.send(self._unsent[0])
                    if sent == len(self._unsent[0]):
                        self._unsent.popleft()
                    else:
                        self._unsent[0] = self._unsent[0][sent:]
            except BlockingIOError:
                pass
            except OSError:
                self._unsent.clear()  # the agent has gone; its last words are still to be read

    def _dispatch(self, frame: Frame) -> None:
        if frame.type is FrameType.HELLO:
            self._greet(frame)
            return
        if frame.type is FrameType.FATAL:
            raise ProtocolError("the agent gave up: " + frame.payload.decode(errors="replace"))
        with self._lock:
            receiver = self._receivers.get(frame.id)
            if frame.type in _LAST_FRAMES:
                self._receivers.pop(frame.id, None)
        if receiver is None:
            raise ProtocolError(f"a {frame.type.name} frame for id {frame.id}, which is not open")
        receiver.receive(frame)

    def _greet(self, frame: Frame) -> None:
        if frame.number() != PROTOCOL_VERSION:
            raise ProtocolError(
                f"the agent speaks version {frame.number()} of the protocol, the harness version {PROTOCOL_VERSION}"
            )
        if self._greeted.is_set():
            raise ProtocolError("the agent was started again: the one before it died")
        self._greeted.set()


class _Reply:
    """Waits for the one frame that answers a PING or MARK."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.over = False
        self.frame: Frame | None = None

    def receive(self, frame: Frame) -> None:
        self.frame = frame
        self.lose()

    def lose(self) -> None:
        with self.changed:
            self.over = True
            self.changed.notify_all()


class Deadline:
    """A point in time that several waits share."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left() == 0.0
