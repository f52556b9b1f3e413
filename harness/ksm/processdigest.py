# SPDX-License-Identifier: MIT
"""Digests of any process's own pages, as `memwork digest` takes them: the proof that merging has changed nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import SamepageError
from harness.ksm.content import Digester
from harness.ksm.oracle import Candidates
from harness.ksm.processes import KPF_THP, KPF_ZERO_PAGE, PFN_MASK, merged_by_flags
from harness.ksm.protocol import PAGE_BYTES

RECORD = np.dtype([("address", "<u8"), ("digest", "<u8"), ("pagemap", "<u8"), ("flags", "<u8")])
"""Mirrors struct record in images/guest/memwork/digest.h."""

Records = NDArray[Any]

_END = np.uint64(2**64 - 1)
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")


def decode_digests(output: bytes) -> list[Records]:
    """Return the records of each process, in the order in which they were asked for."""
    if len(output) % RECORD.itemsize:
        raise SamepageError(f"memwork digest said {len(output)} bytes, which are no whole records")
    records = np.frombuffer(output, dtype=RECORD)
    ends = np.flatnonzero(records["address"] == _END)
    starts = np.concatenate([[0], ends + 1])
    parts = [records[start:end] for start, end in zip(starts[:-1], ends, strict=True)]
    if starts[-1] != len(records) or any(
        int(records["digest"][end]) != end - start for start, end in zip(starts[:-1], ends, strict=True)
    ):
        raise SamepageError("memwork digest ended in the middle of a process")
    return parts


def differing(before: Records, after: Records, digester: Digester) -> list[int]:
    """Return the addresses whose content differs.

    A page may come or go without a write while its process stands still (khugepaged fills holes, and takes out what is
    empty): one that is in only one of the readings must be zero.
    """
    zero = np.uint64(digester.of_bytes(bytes(PAGE_BYTES)))
    addresses = np.union1d(before["address"], after["address"])
    contents = [np.full(len(addresses), zero, np.uint64) for _ in range(2)]
    for content, records in zip(contents, (before, after), strict=True):
        content[np.searchsorted(addresses, records["address"])] = records["digest"]
    wrong: list[int] = addresses[contents[0] != contents[1]].tolist()
    return wrong


def mergeable_ranges(smaps: str) -> list[tuple[int, int]]:
    """Return (start, end) of each mapping that merging looks at, from /proc/PID/smaps."""
    ranges = []
    here = (0, 0)
    for line in smaps.splitlines():
        if match := _MAPPING.match(line):
            here = (int(match[1], 16), int(match[2], 16))
        elif line.startswith("VmFlags:") and "mg" in line.split():
            ranges.append(here)
    return ranges


def candidates(readings: Sequence[tuple[Records, list[tuple[int, int]]]]) -> Candidates:
    """Return what merging looks at, for `oracle.expect`: records of each process, with its mergeable ranges.

    A page that maps the zero page is left alone: it was only ever read, or was empty in a huge page that was split. So
    is part of a huge page: whether splitting that pays is the merger's to judge, and where it was split, it is none.
    """
    chosen = []
    for records, ranges in readings:
        inside = np.zeros(len(records), np.bool_)
        for start, end in ranges:
            inside |= (records["address"] >= np.uint64(start)) & (records["address"] < np.uint64(end))
        chosen.append(records[inside & (records["flags"] & (KPF_ZERO_PAGE | KPF_THP) == 0)])
    pages = np.concatenate(chosen)
    frames = (pages["pagemap"] & PFN_MASK).astype(np.int64)
    merged = merged_by_flags(pages["flags"])
    return Candidates(pages["digest"].astype(np.uint64), frames, merged, np.zeros(len(pages), np.bool_))


def copies(before: Records, after: Records) -> tuple[int, int]:
    """Return how many pages that were merged `before` have another content after it, and how many a frame of their own.

    The two numbers differ when a write went into a page that others share.
    """
    merged = before[merged_by_flags(before["flags"])]
    _, mine, its = np.intersect1d(merged["address"], after["address"], return_indices=True)
    written = merged["digest"][mine] != after["digest"][its]
    moved = (merged["pagemap"][mine] ^ after["pagemap"][its]) & PFN_MASK != 0
    return int(written.sum()), int((written & moved).sum())
