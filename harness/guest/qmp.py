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
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from qemu.qmp import EventListener, QMPClient, QMPError
from qemu.qmp.error import QMPError as AnyQmpError  # noqa: F401

from harness.errors import SamepageError

T = TypeVar("T")

REGISTERS = "info registers -a"
"""The human monitor's line that shows the registers of all CPUs."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


class QmpFailed(SamepageError):
    """QEMU refused a command of its monitor, or did not answer it."""


@dataclass(frozen=True)
class GuestEnd:
    """How a guest ended by itself, read while QEMU held it there."""

    reason: str
    """QEMU's word for it (ShutdownCause of its QAPI): `guest-reset`, `guest-shutdown`, `guest-panic` ..."""
    registers: str
    """Of all its CPUs, as the human monitor shows them; empty when QEMU did not say."""


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
        self._end: GuestEnd | None = None
        self._shutdown = EventListener("SHUTDOWN")
        self._client.register_listener(self._shutdown)
        self._wait(self._client.connect(sock), "greet", timeout)
        self._watcher = asyncio.run_coroutine_threadsafe(self._note_end(), _event_loop())

    def execute(self, command: str, timeout: float | None = None, **arguments: object) -> object:
        """Run a QMP command and return its result. Python's `_` in argument names stands for QMP's `-`."""
        named: dict[str, object] = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._wait(self._client.execute(command, named or None), command, timeout or self._timeout)

    def human(self, line: str, timeout: float | None = None) -> str:
        """Run a line of the human monitor and return its text."""
        return str(self.execute("human-monitor-command", timeout, command_line=line))

    @property
    def end(self) -> GuestEnd | None:
        """How the guest ended by itself; None while it has not."""
        return self._end

    async def _note_end(self) -> None:
        """Wait for the guest's end, at which QEMU stops (-no-shutdown), and let QEMU go when it has been looked at."""
        event = await self._shutdown.get()
        reason = str(cast(dict[str, object], event["data"])["reason"])
        self._end = GuestEnd(reason, "")
        with contextlib.suppress(QMPError, EOFError, OSError):
            registers = await self._client.execute("human-monitor-command", {"command-line": REGISTERS})
            self._end = GuestEnd(reason, str(registers))
            await self._client.execute("quit")

    def close(self) -> None:
        """Disconnect; QEMU may be gone already."""
        self._watcher.cancel()
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
