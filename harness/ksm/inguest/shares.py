# SPDX-License-Identifier: MIT
"""Gives cgroups their shares of the scanners' time, and lists tenants (kmod/samepage_abi.h); needs nothing but Python.

Usage: shares.py list | set CGROUP WEIGHT PERCENT EXCLUDED TIMING_SAFE | clear CGROUP
CGROUP is the path of a cgroup v2, /sys/fs/cgroup/x for one. `list` prints a JSON array: an object for each tenant.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import sys
from pathlib import Path

DEVICE = "/dev/samepage"
TENANTS = "/sys/kernel/debug/samepage/tenants"
WEIGHT, MOST_WEIGHT, MOST_PERCENT = 100, 10000, 1600
"""The weight of who has none, and the limits of both."""
_SHARE = struct.Struct("=QIIII")
_SET, _CLEAR = (1 << 30 | _SHARE.size << 16 | ord("m") << 8 | number for number in (0x53, 0x54))


def cgroup_id(path: str) -> int:
    """Return the id of a cgroup of version 2. Raises OSError."""
    folder = Path(path)
    if not (folder / "cgroup.procs").is_file() or not (folder / "cgroup.controllers").is_file():
        raise OSError(errno.ENOENT, "No such cgroup", path)
    return folder.stat().st_ino


def _ask(request: int, cgroup: int, weight: int, percent: int, excluded: bool, timing_safe: bool) -> None:
    device = os.open(DEVICE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, request, _SHARE.pack(cgroup, weight, percent, excluded, timing_safe))
    finally:
        os.close(device)


def set_share(
    cgroup: int, weight: int = WEIGHT, percent: int = 0, excluded: bool = False, timing_safe: bool = False
) -> None:
    """Say what share a cgroup and all below it have, together.

    `percent` is of one CPU, 0 for no limit. Raises OSError: ENOENT without the module or the cgroup, EPERM for whoever
    is not root, EINVAL.
    """
    _ask(_SET, cgroup, weight, percent, excluded, timing_safe)


def clear_share(cgroup: int) -> None:
    """Undo that. Raises OSError: as above, and ENOENT where nothing was said."""
    _ask(_CLEAR, cgroup, 0, 0, excluded=False, timing_safe=False)


def tenants() -> list[dict[str, int | str]]:
    """Return who takes turns. Raises OSError: ENOENT without the module or debugfs, EACCES for whoever is not root."""
    with Path(TENANTS).open(encoding="ascii") as file:
        head, *lines = (line.split() for line in file)
    found: list[dict[str, int | str]] = []
    for line in lines:
        columns = zip(head, line, strict=True)
        found.append({name: text if name == "by" else int(text) for name, text in columns})
    return found


def main(words: list[str]) -> str:
    """Do what the words say; return what is to be printed."""
    match words:
        case ["list"]:
            return json.dumps(tenants()) + "\n"
        case ["set", cgroup, weight, percent, excluded, safe]:
            set_share(cgroup_id(cgroup), int(weight), int(percent), bool(int(excluded)), bool(int(safe)))
        case ["clear", cgroup]:
            clear_share(cgroup_id(cgroup))
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
