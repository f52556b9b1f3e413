# SPDX-License-Identifier: MIT
"""The guest's serial line: read without a pause through pexpect, kept whole in console.log, handed on as lines.

Nobody who is slow can hold the guest up: whoever attaches gets a copy.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pexpect
from pexpect.fdpexpect import fdspawn

from harness.errors import SamepageError

_READ_SIZE = 65536
_MAX_LINE = 16384
_KEPT_LINES = 200


class Console:
    """ttyS0 of one guest."""

    def __init__(
        self,
        sock: socket.socket,
        log: Path,
        on_lines: Callable[[Sequence[str]], None],
        on_end: Callable[[], None],
        before: bytes = b"",
        *,
        takes_keys: bool = True,
    ) -> None:
        """Read `sock` from now on; give every whole line to `on_lines`, and call `on_end` when the guest is gone.

        `before` is what the guest has printed already; it begins `log`, and is given to nobody. Without `takes_keys`
        nothing can be typed.
        """
        self.takes_keys = takes_keys
        self.handled = 0
        """How many bytes of `sock` were read, and their lines given away."""
        self._sock = sock
        self._path = log
        self._log = log.open("wb", buffering=0)
        self._log.write(before)
        self._position = len(before)
        self._spawn: fdspawn[bytes] = fdspawn(sock, timeout=None, logfile=None, use_poll=True)
        self._spawn.logfile_read = self._log
        self._on_lines = on_lines
        self._on_end = on_end
        self._lock = threading.Lock()
        self._attached: list[socket.socket] = []
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="samepage-console", daemon=True)
        self._thread.start()

    def last_lines(self, count: int = 40) -> list[str]:
        """Return the last lines that the guest printed."""
        with self._lock:
            return list(self._last)[-count:]

    @property
    def position(self) -> int:
        """How many bytes the guest has printed so far."""
        return self._position

    def text_since(self, position: int) -> str:
        """Return everything that the guest has printed after its first `position` bytes."""
        with self._path.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace").replace("\r\n", "\n")

    def send(self, data: bytes) -> None:
        """Type `data` on the serial line. Raises SamepageError where it takes no keys."""
        self._check_keys()
        with contextlib.suppress(OSError):
            self._sock.sendall(data)

    def attach(self) -> socket.socket:
        """Return a socket that carries the serial line both ways from now on; close it to detach. Raises as `send`."""
        self._check_keys()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with self._lock:
            self._attached.append(ours)
        threading.Thread(target=self._forward_typing, args=(ours,), name="samepage-typing", daemon=True).start()
        return theirs

    @contextmanager
    def session(self, timeout: float = 30) -> Iterator[fdspawn[bytes]]:
        """Yield pexpect's view of the serial line: send to it, expect from it. `timeout` is in seconds."""
        with self.attach() as sock:
            yield fdspawn(sock, timeout=timeout, use_poll=True)

    def close(self) -> None:
        """Stop reading; console.log is complete then."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()

    def _run(self) -> None:
        rest = b""
        with contextlib.suppress(pexpect.EOF, OSError):
            while True:
                data = self._spawn.read_nonblocking(_READ_SIZE, timeout=None)
                self._position += len(data)
                self._copy_to_attached(data)
                *whole, rest = (rest + data).split(b"\n")
                if len(rest) > _MAX_LINE:
                    whole, rest = [*whole, rest], b""
                self._take_lines(whole)
                self.handled += len(data)
        if rest:
            self._take_lines([rest])
        self._log.close()
        with self._lock:
            attached, self._attached = self._attached, []
        for sock in attached:
            # Not close(): the thread that waits for typing holds the socket, and would not notice.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.ended.set()
        self._on_end()

    def _check_keys(self) -> None:
        if not self.takes_keys:
            raise SamepageError("nothing can be typed to a guest in lockstep", where=str(self._path))

    def _take_lines(self, raw: Sequence[bytes]) -> None:
        lines = [line.strip(b"\r").decode(errors="replace") for line in raw]
        if lines:
            with self._lock:
                self._last.extend(lines)
            self._on_lines(lines)

    def _copy_to_attached(self, data: bytes) -> None:
        with self._lock:
            attached = list(self._attached)
        for sock in attached:
            # A reader that does not keep up misses output; console.log has it.
            with contextlib.suppress(OSError):
                sock.send(data)

    def _forward_typing(self, sock: socket.socket) -> None:
        """Pass on what an attached person types, until they detach."""
        with contextlib.suppress(OSError):
            while select.select([sock], [], [])[0]:
                data = sock.recv(_READ_SIZE)
                if not data:
                    break
                self.send(data)
        with self._lock:
            if sock in self._attached:
                self._attached.remove(sock)
        sock.close()
