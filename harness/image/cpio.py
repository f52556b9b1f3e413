# SPDX-License-Identifier: MIT
"""The initramfs archive: cpio in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).

Written here because cpio(1) copies times, owners and inode numbers of the machine that it runs on.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"


def newc_archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return an archive of `files` (path: mode and content), with the folders they are in; the same for the same input.

    Paths are relative to the root. Owner is root, time is 0.
    """
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
    entries: dict[str, tuple[int, bytes]] = dict.fromkeys(folders, (stat.S_IFDIR | 0o755, b""))
    entries |= {path: (stat.S_IFREG | mode, data) for path, (mode, data) in files.items()}
    # Sorted, a folder comes before what is in it, as the kernel wants.
    parts = [_entry(inode, path, *entries[path]) for inode, path in enumerate(sorted(entries), start=1)]
    return b"".join([*parts, _entry(0, _TRAILER, 0, b"")])


def _entry(inode: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    #         ino    mode  uid gid nlink  mtime size      device and rdevice  namesize   check
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
