# SPDX-License-Identifier: MIT
"""The host's side of lockstep, with this test in the guest's place."""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.guest.channel import Channel
from harness.guest.errors import ChannelClosed
from harness.guest.lockstep import Lockstep, LockstepChannel
from harness.guest.protocol import (
    HEADER,
    LOCKSTEP_BYTES,
    LOCKSTEP_IN,
    LOCKSTEP_OUT,
    LOCKSTEP_ROOM,
    MAX_DATA,
    PROTOCOL_VERSION,
    Frame,
    FrameType,
)
from harness.guest.stream import Stream

HELLO = Frame(0, FrameType.HELLO, struct.pack("<I", PROTOCOL_VERSION))


class Pretender:
    """Takes the guest's turns."""

    def __init__(self, ends: Lockstep) -> None:
        self._ends = ends
        with ends.memory.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), LOCKSTEP_BYTES)

    def turn(self, *frames: Frame) -> list[Frame]:
        """Say these, and return what the host says once its turn is over."""
        data = b"".join(frame.encode() for frame in frames)
        self._memory[LOCKSTEP_OUT : LOCKSTEP_OUT + len(data)] = data
        struct.pack_into("<III", self._memory, 0, len(data), LOCKSTEP_ROOM, 0)
        self._ends.theirs[0].send(b"\0")
        while True:  # as QEMU does
            try:
                self._ends.theirs[1].send(b"\0")
                break
            except BlockingIOError:
                time.sleep(0.0001)
        size = struct.unpack_from("<III", self._memory)[2]
        return split(self._memory[LOCKSTEP_IN : LOCKSTEP_IN + size])


def split(data: bytes) -> list[Frame]:
    frames = []
    while data:
        length, identity, kind = HEADER.unpack_from(data)
        frames.append(Frame(identity, FrameType(kind), data[HEADER.size : HEADER.size + length]))
        data = data[HEADER.size + length :]
    return frames


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Lockstep]:
    ends = Lockstep.prepare(tmp_path / "memory")
    yield ends
    ends.close()


@pytest.fixture
def channel(ends: Lockstep) -> Iterator[LockstepChannel]:
    console = SimpleNamespace(handled=0, ended=threading.Event())
    typing = SimpleNamespace(sendall=lambda data: None, close=lambda: None)
    channel = LockstepChannel(ends, cast("Any", console), cast("Any", typing))
    yield channel
    channel.close()


def program(channel: Channel) -> Stream:
    supervisor = SimpleNamespace(
        timeout_factor=1.0, finished=lambda stream: None, lost=lambda stream: ChannelClosed("x")
    )
    return Stream(channel, cast("Any", supervisor), FrameType.EXEC, ["x"], {}, "")


def test_what_is_done_hangs_on_turns_alone(
    channel: LockstepChannel, ends: Lockstep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four pieces of output and the end come in one turn: nobody acts on the first ones before all are there."""
    dispatch = Channel._dispatch

    def slowly(self: Channel, frame: Frame) -> None:
        dispatch(self, frame)
        time.sleep(0.05)

    monkeypatch.setattr(Channel, "_dispatch", slowly)
    said: list[list[Frame]] = []

    def guest() -> None:
        pretender = Pretender(ends)
        said.append(pretender.turn(HELLO))
        identity = said[0][0].id
        output = [Frame(identity, FrameType.STDOUT, bytes(MAX_DATA))] * 4
        said.append(pretender.turn(*output, Frame(identity, FrameType.EXIT, struct.pack("<i", 0))))

    thread = threading.Thread(target=guest, daemon=True)
    thread.start()
    assert channel.wait_ready(5)
    stream = program(channel)
    assert len(stream.communicate(b"", 5, 1 << 20)) == 4 * MAX_DATA
    channel.nudge(0.5)
    thread.join(5)
    assert not thread.is_alive()
    assert [[frame.type for frame in frames] for frames in said] == [[FrameType.EXEC, FrameType.STDIN_END], []]


def test_the_guest_stands_still_while_nobody_waits(channel: LockstepChannel, ends: Lockstep) -> None:
    turns: list[list[Frame]] = []
    pretender = Pretender(ends)
    thread = threading.Thread(target=lambda: turns.extend([pretender.turn(HELLO), pretender.turn()]), daemon=True)
    thread.start()
    assert channel.wait_ready(5)
    time.sleep(0.3)
    assert thread.is_alive()
    channel.nudge(5)
    time.sleep(0.1)
    assert thread.is_alive(), "one turn"
    channel.nudge(0.1)
    thread.join(5)
    assert not thread.is_alive()
    assert turns == [[], []]


def test_who_waits_learns_that_the_guest_is_gone(channel: LockstepChannel, ends: Lockstep) -> None:
    pretender = Pretender(ends)

    def guest() -> None:
        pretender.turn(HELLO)
        for end in ends.theirs:
            end.close()

    thread = threading.Thread(target=guest, daemon=True)
    thread.start()
    assert channel.wait_ready(5)
    stream = program(channel)
    with pytest.raises(ChannelClosed):
        stream.communicate(b"", 5, 100)
    thread.join(5)
    assert not thread.is_alive()
    with pytest.raises(ChannelClosed):
        program(channel)
