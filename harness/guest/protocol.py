# SPDX-License-Identifier: MIT
"""Frames of the command channel: mirrors images/guest/protocol.h, which explains them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from harness.errors import SamepageError
from harness.guest.errors import ProtocolError

CHANNEL_NAME = "org.samepage.channel"
PROTOCOL_VERSION = 2

HEADER = struct.Struct("<IIB")
MAX_PAYLOAD = 65536
MAX_DATA = 32768
WINDOW = 262144

LOCKSTEP_BELL = 0xE9
LOCKSTEP_GATE = 0xEA
LOCKSTEP_BYTES = 2 << 20
LOCKSTEP_ROOM = (1 << 20) - 4096
LOCKSTEP_OUT, LOCKSTEP_IN = 4096, 4096 + (1 << 20)
"""Where in it the bytes of either side are; before them three numbers: the guest's, its room, the host's."""

_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_CLOCKS = struct.Struct("<QQQ")
_U64 = struct.Struct("<Q")
_FILE = struct.Struct("<iII")


class FrameType(IntEnum):
    """The kind of a frame; up to 31 the host sends it, from 32 the guest."""

    EXEC = 1
    FILES = 2
    STDIN = 3
    STDIN_END = 4
    KILL = 5
    CREDIT = 6
    PING = 7
    MARK = 8
    RESUME = 9
    HELLO = 32
    STDOUT = 33
    STDERR = 34
    STDIN_CREDIT = 35
    EXIT = 36
    FAILED = 37
    PONG = 38
    MARKED = 39
    FATAL = 40


@dataclass(frozen=True)
class Frame:
    """One frame, either way."""

    id: int
    type: FrameType
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        if len(self.payload) > MAX_PAYLOAD:
            raise ProtocolError(f"a {self.type.name} frame of {len(self.payload)} bytes; {MAX_PAYLOAD} is the most")
        return HEADER.pack(len(self.payload), self.id, self.type) + self.payload

    def number(self) -> int:
        """Return the payload of a frame that carries one unsigned number (HELLO, STDIN_CREDIT, KILL, CREDIT)."""
        return int(self._unpack(_U32)[0])

    def exit_code(self) -> int:
        """Return the exit code in an EXIT frame; minus the signal's number for a program that was killed."""
        return int(self._unpack(_I32)[0])

    def failure(self) -> tuple[int, str]:
        """Return errno and text of a FAILED frame."""
        if len(self.payload) < _I32.size:
            raise ProtocolError(f"a FAILED frame of {len(self.payload)} bytes")
        return _I32.unpack_from(self.payload)[0], self.payload[_I32.size :].decode(errors="replace")

    def clocks(self) -> Clocks:
        """Return the guest's clocks from a PONG frame."""
        if len(self.payload) < _CLOCKS.size:
            raise ProtocolError(f"a PONG frame of {len(self.payload)} bytes")
        return Clocks(*_CLOCKS.unpack_from(self.payload))

    def _unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        if len(self.payload) != layout.size:
            raise ProtocolError(f"a {self.type.name} frame of {len(self.payload)} bytes, {layout.size} belong in it")
        return layout.unpack(self.payload)


@dataclass(frozen=True)
class Clocks:
    """The guest's clocks in nanoseconds."""

    monotonic: int
    boottime: int
    realtime: int


class Decoder:
    """Cuts a stream of bytes into the frames that a guest may send."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream and return the frames that they complete.

        Raises ProtocolError for bytes that cannot be a frame; the stream is lost then.
        """
        self._buffer += data
        frames: list[Frame] = []
        at = 0
        while len(self._buffer) - at >= HEADER.size:
            length, identity, number = HEADER.unpack_from(self._buffer, at)
            kind = _guest_frame_type(number)
            if length > MAX_PAYLOAD:
                raise ProtocolError(f"a {kind.name} frame claims {length} bytes; {MAX_PAYLOAD} is the most")
            end = at + HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append(Frame(identity, kind, bytes(self._buffer[at + HEADER.size : end])))
            at = end
        del self._buffer[:at]
        return frames


def _guest_frame_type(number: int) -> FrameType:
    try:
        kind = FrameType(number)
    except ValueError:
        raise ProtocolError(f"a frame of unknown type {number}") from None
    if kind < FrameType.HELLO:
        raise ProtocolError(f"a {kind.name} frame from the guest")
    return kind


def encode_start(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> bytes:
    """Return the payload of EXEC and FILES. Raises SamepageError for what no program can be given."""
    if not argv or not argv[0]:
        raise SamepageError("there is no program to run: argv is empty")
    strings = [*argv, *(f"{name}={value}" for name, value in env.items()), cwd]
    for text in strings:
        if "\0" in text:
            raise SamepageError("arguments and variables cannot contain a NUL byte", where=repr(text[:80]))
    # surrogateescape: a path that is not UTF-8 passes as it is.
    encoded = [text.encode(errors="surrogateescape") + b"\0" for text in strings]
    payload = struct.pack("<II", len(argv), len(env)) + b"".join(encoded)
    if len(payload) > MAX_PAYLOAD:
        raise SamepageError(
            f"arguments and variables take {len(payload)} bytes; {MAX_PAYLOAD} is the most",
            where=argv[0],
            hint="Give the program its data on stdin or in a file.",
        )
    return payload


def encode_number(value: int) -> bytes:
    """Return the payload of KILL and CREDIT."""
    return _U32.pack(value)


def encode_resume(realtime: int, random: bytes) -> bytes:
    """Return the payload of RESUME: the time in nanoseconds, and 1 to 256 bytes to be random with."""
    return _U64.pack(realtime) + random


def encode_paths(paths: Iterable[str]) -> bytes:
    """Return what the file operation `read` takes on stdin."""
    return b"".join(path.encode(errors="surrogateescape") + b"\0" for path in paths)


def decode_files(data: bytes) -> dict[str, bytes | int]:
    """Return what the file operation `read` gave: content by path, or errno where the file could not be read."""
    files: dict[str, bytes | int] = {}
    at = 0
    while at < len(data):
        if len(data) - at < _FILE.size:
            raise ProtocolError("the answer to `read` ends in the middle of a file's header")
        errno, name_length, length = _FILE.unpack_from(data, at)
        at += _FILE.size
        end = at + name_length + length
        if end > len(data):
            raise ProtocolError("the answer to `read` ends in the middle of a file")
        name = data[at : at + name_length].decode(errors="surrogateescape")
        files[name] = errno if errno else data[at + name_length : end]
        at = end
    return files
