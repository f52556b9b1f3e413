# SPDX-License-Identifier: MIT
"""A person's terminal, connected to something in a guest until they leave."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

ESCAPE = b"\x1d"
"""Ctrl-]"""
_READ_SIZE = 65536


class Peer(Protocol):
    """What the terminal is connected to; an ssh channel of paramiko's is one."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when recv() has something."""

    def recv(self, size: int, /) -> bytes:
        """Return some bytes, none at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""

    def shutdown_write(self) -> None:
        """Say that nothing more will be sent."""


def interact(peer: Peer, resize: Callable[[int, int], None]) -> bool:
    """Pass keys and output on until Ctrl-] (True) or the peer's end (False).

    `resize(columns, rows)` is called at the start and whenever the terminal's window changes. Without a terminal on
    stdin, its bytes are passed on as they are, and its end is only the end of what is sent.
    """
    with _raw_terminal() as is_terminal, _window_changes() as changed:
        sources: list[int] = [sys.stdin.fileno(), peer.fileno(), changed]
        if is_terminal:
            resize(*os.get_terminal_size(sys.stdin.fileno()))
        while True:
            ready, _, _ = select.select(sources, [], [])
            if changed in ready:
                os.read(changed, _READ_SIZE)
                resize(*os.get_terminal_size(sys.stdin.fileno()))
            if sys.stdin.fileno() in ready:
                keys = os.read(sys.stdin.fileno(), _READ_SIZE)
                before, escape, _ = keys.partition(ESCAPE) if is_terminal else (keys, b"", b"")
                if before:
                    peer.sendall(before)
                if escape:
                    return True
                if not keys:
                    sources.remove(sys.stdin.fileno())
                    peer.shutdown_write()
            if peer.fileno() in ready:
                output = peer.recv(_READ_SIZE)
                if not output:
                    return False
                sys.stdout.buffer.write(output)
                sys.stdout.buffer.flush()


@contextmanager
def _raw_terminal() -> Iterator[bool]:
    """Have every key passed on as it is, Ctrl-C among them; False when stdin is no terminal."""
    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        yield False
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield True
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _window_changes() -> Iterator[int]:
    """Yield a descriptor that becomes readable when the terminal's window has changed."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.signal(signal.SIGWINCH, lambda *_: os.write(writing, b"."))
    try:
        yield reading
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(reading)
        os.close(writing)
