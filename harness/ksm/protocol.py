# SPDX-License-Identifier: MIT
"""What the host and `memwork` say to each other: mirrors images/guest/memwork/protocol.h, which explains it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

MAX_WORKERS = 512
DRIVER = 0xFFFFFFFF
MAX_PAYLOAD = 4 << 20
QUEUED_BYTES = 32 << 10
PAGE_BYTES = 4096
PAGE_WORDS = PAGE_BYTES // 8

HEADER = struct.Struct("<IIII")

RUN = np.dtype([("address", "<u8"), ("key", "<u8"), ("step", "<u8"), ("kind", "<u4"), ("pages", "<u4")])
POKE = np.dtype([("address", "<u8"), ("value", "<u8"), ("size", "<u8")])
RANGE = np.dtype([("address", "<u8"), ("pages", "<u8")])
FRAME = np.dtype([("pagemap", "<u8"), ("flags", "<u8")])
REWRITE = struct.Struct("<QQQQII")


class Op(IntEnum):
    """What a request asks for."""

    SPAWN = 1
    FORK = 2
    EXIT = 3
    SYSCALL = 4
    MERGE_ANY = 5
    FILL = 6
    POKE = 7
    DIGEST = 8
    FRAMES = 9
    REWRITE = 10
    REWRITE_STOP = 11
    READ = 12
    MOVE = 13
    SECRET = 14
    EXEC = 15


_SHORT_ANSWERS = frozenset({Op.SYSCALL, Op.MERGE_ANY, Op.FILL, Op.POKE, Op.SECRET, Op.REWRITE})


@dataclass(frozen=True)
class Request:
    """One request to a worker, or to the driver."""

    worker: int
    op: Op
    payload: bytes = b""
    argument: int = 0

    def encode(self) -> bytes:
        """Return the bytes for the driver's stdin."""
        assert len(self.payload) <= MAX_PAYLOAD, "the caller splits longer work"
        return HEADER.pack(len(self.payload), self.worker, self.op, self.argument) + self.payload

    @property
    def size(self) -> int:
        """Bytes that it takes in the stream."""
        return HEADER.size + len(self.payload)

    @property
    def is_short(self) -> bool:
        """Whether its answer is short and comes from the worker itself: several such may wait for one worker."""
        return self.op in _SHORT_ANSWERS

    @property
    def answered_by(self) -> int:
        """The worker whose answer settles the request: a new process speaks for itself."""
        return self.argument if self.op in (Op.SPAWN, Op.FORK) else self.worker
