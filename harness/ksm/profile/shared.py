# SPDX-License-Identifier: MIT
"""What the plugin leaves: struct shared of images/plugin/profile.c."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import CheckFailed

MAGIC = 0x31464F5250504153
INTERRUPTS = 1
"""The context in which interrupts begin; 0 is the thread's own."""
MAX_CONTEXTS, MAX_COUNTS = 1 << 16, 1 << 19
_HEAD = np.dtype([("magic", "<u8"), ("task", "<u8"), ("switches", "<u8"), ("lost", "<u8"), ("used", "<u4", 2)])
CONTEXT = np.dtype([("return_address", "<u8"), ("parent", "<u4"), ("unused", "<u4")])
COUNT = np.dtype([("block", "<u8"), ("instructions", "<u8"), ("context", "<u4"), ("unused", "<u4")])
SHARED = np.dtype([("head", _HEAD), ("context", CONTEXT, MAX_CONTEXTS), ("count", COUNT, MAX_COUNTS)])


@dataclass(frozen=True)
class Counted:
    """Instructions by block and calls."""

    counts: tuple[tuple[int, int, int], ...]
    """(context, address of the block, instructions)."""
    contexts: tuple[tuple[int, int], ...]
    """(context of the caller, return address) of each context by its number."""

    def calls(self, context: int) -> list[int]:
        """Return the return addresses that led to a context, the outermost first."""
        found = []
        while context > INTERRUPTS:
            context, address = self.contexts[context]
            found.append(address)
        return found[::-1]

    def in_interrupt(self, context: int) -> bool:
        """Whether a context is an interrupt's."""
        while context > INTERRUPTS:
            context = self.contexts[context][0]
        return context == INTERRUPTS


def read_counted(path: Path) -> Counted:
    """Read the plugin's file. Raises CheckFailed where the thread never ran, or a table was too small."""
    if path.stat().st_size != SHARED.itemsize:
        raise CheckFailed("the plugin did not begin", where=path)
    data = np.fromfile(path, SHARED)[0]
    head = data["head"]
    if head["magic"] != MAGIC:
        raise CheckFailed("was not written by our plugin", where=path)
    if not head["task"]:
        raise CheckFailed("the merging thread never came to be", where=path)
    if head["lost"] or head["used"][0] == MAX_CONTEXTS:
        raise CheckFailed("the plugin's tables are too small for this", where=path)
    counts = data["count"]
    rows = counts[counts["instructions"] > 0]
    return Counted(
        tuple((int(row["context"]), int(row["block"]), int(row["instructions"])) for row in rows),
        tuple((int(row["parent"]), int(row["return_address"])) for row in data["context"][: head["used"][0]]),
    )
