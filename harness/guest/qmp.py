# SPDX-License-Identifier: MIT
"""QEMU's monitor through the qemu.qmp library, for callers that wait.

The library is asynchronous; one event loop in a thread of its own serves all guests. (Its own synchronous wrapper,
qemu.qmp.legacy, drives a loop from whichever thread calls, so only one thread could ever use it.)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError
from qemu.qmp.error import QMPError as AnyQmpError  # noqa: F401

from harness.errors import SamepageError

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


class QmpFailed(SamepageError):
    """QEMU refused a command of its monitor, or did not answer it."""


def _event_loop() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="samepage-qmp", daemon=True).start()
        return _loop


class Qmp:
    """The monitor of one QEMU."""

    def __init__(self, sock: socket.socket, timeout: float = 30) -> None:
        """Greet the QEMU at the other end of `sock`; `timeout` (seconds) holds for this and as a default later."""
        self._timeout = timeout
        self._client = QMPClient("samepage")
        self._wait(self._client.connect(sock), "greet", timeout)

    def execute(self, command: str, timeout: float | None = None, **arguments: object) -> object:
        """Run a QMP command and return its result. Python's `_` in argument names stands for QMP's `-`."""
        named: dict[str, object] = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._wait(self._client.execute(command, named or None), command, timeout or self._timeout)

    def human(self, line: str, timeout: float | None = None) -> str:
        """Run a line of the human monitor and return its text."""
        return str(self.execute("human-monitor-command", timeout, command_line=line))

    def close(self) -> None:
        """Disconnect; QEMU may be gone already."""
        with contextlib.suppress(QmpFailed):
            self._wait(self._client.disconnect(), "disconnect", 5)

    def _wait(self, work: Coroutine[Any, Any, T], what: str, timeout: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, _event_loop())
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            future.cancel()
            raise QmpFailed(f"QEMU did not answer `{what}` within {timeout:.0f} s") from None
        except (QMPError, EOFError, OSError, asyncio.CancelledError) as error:
            raise QmpFailed(f"QEMU failed `{what}`: {error}") from error
