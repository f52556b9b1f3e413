# SPDX-License-Identifier: MIT
"""Says which contents all domains share (kmod/samepage_abi.h); needs nothing but Python.

Usage: contents.py share FILE... | clear | count
Every page of each FILE is meant, as it lies in memory: what is behind the end of the last one is zero.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import sys
from pathlib import Path

DEVICE = "/dev/samepage"
COUNT = "/sys/kernel/mm/samepage/common_contents"
_STRETCH = struct.Struct("=QQ")
_SHARE = 1 << 30 | _STRETCH.size << 16 | ord("m") << 8 | 0x55
_MAP_NORESERVE = 0x4000
_AT_ONCE = 1 << 26
"""Bytes, as many as the module takes in one request."""
_CLEAR = ord("m") << 8 | 0x56


def _share(device: int, path: str) -> None:
    # Writable for the sake of its address: nothing is written, and no memory is needed for it.
    with Path(path).open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return
        with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | _MAP_NORESERVE) as pages:
            first = ctypes.c_char.from_buffer(pages)
            try:
                start = ctypes.addressof(first)
                end = start + -(-len(pages) // mmap.PAGESIZE) * mmap.PAGESIZE
                for at in range(start, end, _AT_ONCE):
                    fcntl.ioctl(device, _SHARE, _STRETCH.pack(at, min(at + _AT_ONCE, end)))
            finally:
                del first  # else the mapping stays


def share(paths: list[str]) -> None:
    """Let all domains share the contents of these files' pages, as they are now, from now on; but for empty ones.

    Raises OSError: ENOENT without the module or a file, EPERM for whoever is not root, ENOSPC when there would be more
    than 262,144 contents.
    """
    device = os.open(DEVICE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for path in paths:
            _share(device, path)
    finally:
        os.close(device)


def clear() -> None:
    """Let domains share nothing any more. Raises OSError: as above, ENOMEM, EINTR."""
    device = os.open(DEVICE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _CLEAR)
    finally:
        os.close(device)


def count() -> int:
    """Return how many contents all domains share. Raises OSError."""
    return int(Path(COUNT).read_text("ascii"))


def main(words: list[str]) -> str:
    """Do what the words say; return what is to be printed."""
    match words:
        case ["share", _, *_]:
            share(words[1:])
        case ["clear"]:
            clear()
        case ["count"]:
            return f"{count()}\n"
        case _:
            raise ValueError(__doc__)
    return ""


if __name__ == "__main__":
    try:
        sys.stdout.write(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.strerror} ({error.errno})")
