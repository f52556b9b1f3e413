# SPDX-License-Identifier: MIT
"""Counts the pages of processes' mergeable memory that are the zero page, and needs nothing but Python.

Usage: zeros.py PID...
Prints a JSON object: how many for each process.
"""

from __future__ import annotations

import json
import mmap
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PRESENT = 1 << 63
FRAME = (1 << 55) - 1
KPF_ZERO_PAGE = 1 << 24


def mergeable(pid: int) -> Iterator[tuple[int, int]]:
    """Yield first address and end of each mapping that is registered (flag mg)."""
    area = (0, 0)
    with Path(f"/proc/{pid}/smaps").open() as file:
        for line in file:
            first, *rest = line.split()
            if first == "VmFlags:":
                if "mg" in rest:
                    yield area
            elif not first.endswith(":"):
                start, end = (int(word, 16) for word in first.split("-"))
                area = (start, end)


def words(file: IO[bytes], first: int, count: int) -> array[int]:
    """Return so many 64-bit words of a file, from the word `first` on."""
    file.seek(first * 8)
    return array("Q", file.read(count * 8))


def zeros(pid: int, kpageflags: IO[bytes]) -> int:
    """Return how many pages of the process are the zero page. Raises OSError."""
    entries: Counter[int] = Counter()
    with Path(f"/proc/{pid}/pagemap").open("rb") as pagemap:
        for start, end in mergeable(pid):
            entries.update(words(pagemap, start // mmap.PAGESIZE, (end - start) // mmap.PAGESIZE))
    mapped = Counter[int]()
    for entry, count in entries.items():
        # What is mapped only once is not worth the look.
        if entry & PRESENT and count > 1:
            mapped[entry & FRAME] += count
    return sum(count for frame, count in mapped.items() if words(kpageflags, frame, 1)[0] & KPF_ZERO_PAGE)


if __name__ == "__main__":
    with Path("/proc/kpageflags").open("rb") as flags:
        print(json.dumps({word: zeros(int(word), flags) for word in sys.argv[1:]}))
