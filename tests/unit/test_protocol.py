# SPDX-License-Identifier: MIT
"""Frames of the command channel."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import PACKAGE_PARENT
from harness.errors import SamepageError
from harness.guest import protocol
from harness.guest.errors import ProtocolError
from harness.guest.protocol import MAX_PAYLOAD, Decoder, Frame, FrameType, decode_files, encode_paths, encode_start

HEADER = PACKAGE_PARENT / "images/guest/protocol.h"
GUEST_TYPES = [kind for kind in FrameType if kind >= FrameType.HELLO]

guest_frames = st.builds(Frame, st.integers(0, 2**32 - 1), st.sampled_from(GUEST_TYPES), st.binary(max_size=200))


def test_the_guests_header_says_the_same() -> None:
    text = HEADER.read_text()
    constants = dict(re.findall(r"#define (\w+)\s+([\w\".]+)", text))
    for name in ("PROTOCOL_VERSION", "MAX_PAYLOAD", "MAX_DATA", "WINDOW"):
        assert int(constants[name]) == getattr(protocol, name), name
    assert int(constants["HEADER_SIZE"]) == protocol.HEADER.size
    assert constants["CHANNEL_NAME"].strip('"') == protocol.CHANNEL_NAME
    for name in ("LOCKSTEP_BELL", "LOCKSTEP_GATE", "LOCKSTEP_BYTES", "LOCKSTEP_ROOM"):
        assert int(constants[name], 0) == getattr(protocol, name), name
    assert protocol.LOCKSTEP_IN + protocol.LOCKSTEP_ROOM == protocol.LOCKSTEP_BYTES
    types = {name: int(value) for name, value in re.findall(r"FRAME_(\w+) = (\d+)", text)}
    assert types == {kind.name: kind.value for kind in FrameType}


@given(st.lists(guest_frames, max_size=8), st.lists(st.integers(1, 100), max_size=40))
def test_frames_survive_any_cutting(frames: list[Frame], cuts: list[int]) -> None:
    data = b"".join(frame.encode() for frame in frames)
    decoder, got = Decoder(), []
    for size in [*cuts, len(data)]:
        got += decoder.feed(data[:size])
        data = data[size:]
    assert got == frames


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    try:
        for frame in Decoder().feed(data):
            assert frame.type in GUEST_TYPES
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (struct.pack("<IIB", 0, 1, 99), "unknown type 99"),
        (struct.pack("<IIB", 0, 1, FrameType.EXEC), "EXEC frame from the guest"),
        (struct.pack("<IIB", MAX_PAYLOAD + 1, 1, FrameType.STDOUT), "claims 65537 bytes"),
    ],
)
def test_bad_frames(data: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        Decoder().feed(data)


@pytest.mark.parametrize(
    ("frame", "method"),
    [
        (Frame(1, FrameType.EXIT, b"abc"), "exit_code"),
        (Frame(1, FrameType.EXIT, b"abcde"), "exit_code"),
        (Frame(1, FrameType.STDIN_CREDIT, b""), "number"),
        (Frame(1, FrameType.FAILED, b"ab"), "failure"),
        (Frame(1, FrameType.PONG, b"ab"), "clocks"),
    ],
)
def test_bad_payloads(frame: Frame, method: str) -> None:
    with pytest.raises(ProtocolError, match=frame.type.name):
        getattr(frame, method)()


def test_payloads() -> None:
    assert Frame(1, FrameType.EXIT, struct.pack("<i", -9)).exit_code() == -9
    assert Frame(1, FrameType.FAILED, struct.pack("<i", 2) + b"x: no").failure() == (2, "x: no")
    assert Frame(1, FrameType.PONG, struct.pack("<QQQ", 1, 2, 3) + b"echo").clocks() == protocol.Clocks(1, 2, 3)


def test_a_start_request() -> None:
    payload = encode_start(["a", "b c"], {"X": "1"}, "/tmp")
    assert payload == struct.pack("<II", 2, 1) + b"a\0b c\0X=1\0/tmp\0"
    # Names of files need not be UTF-8.
    assert b"\xff\0" in encode_start(["cat", b"\xff".decode(errors="surrogateescape")], {}, "")


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [([], "argv is empty"), ([""], "argv is empty"), (["a\0b"], "NUL byte"), (["x" * MAX_PAYLOAD], "is the most")],
)
def test_start_requests_that_cannot_be(argv: list[str], complaint: str) -> None:
    with pytest.raises(SamepageError, match=complaint):
        encode_start(argv, {}, "")


def test_files() -> None:
    data = struct.pack("<iII", 0, 2, 3) + b"/aabc" + struct.pack("<iII", 2, 2, 0) + b"/b"
    assert decode_files(data) == {"/a": b"abc", "/b": 2}
    assert encode_paths(["/a", "/b"]) == b"/a\0/b\0"
    for size in range(1, len(data)):
        if size != 17:
            with pytest.raises(ProtocolError, match="ends in the middle"):
                decode_files(data[:size])
