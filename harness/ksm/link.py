# SPDX-License-Identifier: MIT
"""The stream to a `memwork`: many requests at once, one at a time for each worker."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from harness.errors import SamepageError
from harness.ksm.protocol import HEADER, Request

IN_FLIGHT = 8
"""Requests under way at once. Few, so that neither side waits for the other with its pipe full."""


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
        under_way: dict[int, int] = {}
        answers: dict[int, bytes] = {}
        failed: dict[int, WorkError] = {}
        while waiting or under_way:
            for index in list(waiting)[: IN_FLIGHT * 2]:
                busy = {requests[other].worker for other in under_way.values()}
                if len(under_way) < IN_FLIGHT and requests[index].worker not in busy:
                    waiting.remove(index)
                    under_way[requests[index].answered_by] = index
                    self._stream.write(requests[index].encode())
            worker, error, payload = self._answer()
            index = under_way.pop(worker)
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
