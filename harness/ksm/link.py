# SPDX-License-Identifier: MIT
"""The stream to a `memwork`: many requests at once, in order for each worker."""

from __future__ import annotations

import errno
import itertools
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from harness.errors import SamepageError
from harness.ksm.protocol import HEADER, QUEUED_BYTES, Request

IN_FLIGHT = 256
"""Requests under way at once; as many short answers fit into a pipe that nobody reads."""
UNREAD_BYTES = 64 << 10
"""Bytes of requests that fit into pipes that nobody reads."""
LOOK_AHEAD = 64
"""Waiting requests among which one is looked for that can be sent."""


class Stream(Protocol):
    """A running program's stdin and stdout, as harness.guest gives it."""

    def write(self, data: bytes) -> None:
        """Write to its stdin."""

    def read(self, size: int, timeout: float) -> bytes:
        """Read exactly `size` bytes of its stdout."""

    def close_stdin(self) -> None:
        """End its stdin."""

    def wait(self, timeout: float) -> int:
        """Wait for its exit code."""

    def kill(self) -> None:
        """End it."""


class Launcher(Protocol):
    """Where programs run and files are read: a guest, or the host itself in unit tests."""

    def spawn(self, argv: Sequence[str]) -> Stream:
        """Start a program."""

    def get(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read a file, or a part of it."""


class WorkError(SamepageError):
    """A request failed in the guest: `errno` says how."""

    def __init__(self, request: Request, error: int, text: str) -> None:
        name = errno.errorcode.get(error, str(error))
        super().__init__(f"{request.op.name.lower()}: {text} ({name})", where=f"memwork worker {request.answered_by}")
        self.errno = error


class Link:
    """Requests and answers over a stream."""

    def __init__(self, stream: Stream, timeout: float) -> None:
        self._stream = stream
        self._timeout = timeout

    def ask(self, requests: Sequence[Request]) -> list[bytes]:
        """Make all requests and return their answers in the same order.

        All are carried out, those to one worker in order; then WorkError is raised for the first that failed.
        """
        waiting = deque(range(len(requests)))
        under_way = _UnderWay()
        answers: dict[int, bytes] = {}
        failed: dict[int, WorkError] = {}
        while waiting or under_way.count:
            for index in _sendable(requests, waiting, under_way):
                waiting.remove(index)
                under_way.begin(index, requests[index])
                self._stream.write(requests[index].encode())
            worker, error, payload = self._answer()
            index = under_way.end(worker)
            answers[index] = payload
            if error:
                failed[index] = WorkError(requests[index], error, payload.decode(errors="replace"))
        if failed:
            raise failed[min(failed)]
        return [answers[index] for index in range(len(requests))]

    def close(self) -> None:
        """End the program, and with it all workers."""
        self._stream.close_stdin()
        self._stream.wait(self._timeout)

    def _answer(self) -> tuple[int, int, bytes]:
        size, worker, error, _ = HEADER.unpack(self._stream.read(HEADER.size, self._timeout))
        return worker, error, self._stream.read(size, self._timeout) if size else b""


class _UnderWay:
    """Requests that wait for their answers, and how many more may: nobody is to wait for another with a full pipe."""

    def __init__(self) -> None:
        self.count = 0
        self._bytes = 0
        self._long_answers = 0
        self._to: dict[int, deque[Request]] = defaultdict(deque)
        self._answering: dict[int, deque[tuple[int, Request]]] = defaultdict(deque)

    def begin(self, index: int, request: Request) -> None:
        """Count a request that is sent."""
        self._account(request, 1)
        self._to[request.worker].append(request)
        self._answering[request.answered_by].append((index, request))

    def end(self, worker: int) -> int:
        """Return which request the answer of this worker is for."""
        index, request = self._answering[worker].popleft()
        self._to[request.worker].popleft()
        self._account(request, -1)
        return index

    def has_room_for(self, request: Request) -> bool:
        """Whether the request may be sent now."""
        if not self.count:
            return True
        queue = self._to[request.worker]
        if queue:
            together = [*queue, request]
            if not all(one.is_short for one in together) or sum(one.size for one in together) > QUEUED_BYTES:
                return False
        # While long answers come in, no more is sent than fits in the pipes with nobody reading at the other end.
        all_short = request.is_short and not self._long_answers
        return self.count < IN_FLIGHT and (all_short or self._bytes + request.size <= UNREAD_BYTES)

    def _account(self, request: Request, sign: int) -> None:
        self.count += sign
        self._bytes += sign * request.size
        self._long_answers += sign * (not request.is_short)


def _sendable(requests: Sequence[Request], waiting: Iterable[int], under_way: _UnderWay) -> Iterator[int]:
    """Return the requests to send now: none overtakes another to the same worker."""
    held: set[int] = set()
    for index in itertools.islice(list(waiting), LOOK_AHEAD):
        request = requests[index]
        if request.worker not in held and under_way.has_room_for(request):
            yield index
        else:
            held.add(request.worker)
