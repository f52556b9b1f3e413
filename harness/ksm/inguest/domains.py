# SPDX-License-Identifier: MIT
"""Lists security domains and chooses those of processes and cgroups (kmod/samepage_abi.h); needs nothing but Python.

Usage: domains.py list | set WHOSE NAME | clear WHOSE
WHOSE is a pid (0: one's own) or the path of a cgroup v2, /sys/fs/cgroup/x for one. NAME is a number, or a word of up to
eight characters: it stands for the number that has its bytes, and the list shows it again.
`list` prints a JSON array: an object for each domain, with the columns of /dev/samepage.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import struct
import sys
from pathlib import Path

DEVICE = "/dev/samepage"
POLICY = "/sys/kernel/mm/samepage/domain_by"
ADMINISTRATOR = -1
"""`who` of a domain that an administrator chose."""
PROCESS, CGROUP = 0, 1
_DOMAIN = struct.Struct("=IIQQ")
_SET, _CLEAR = (1 << 30 | _DOMAIN.size << 16 | ord("m") << 8 | number for number in (0x51, 0x52))
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,7}", re.ASCII)
_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,20}", re.ASCII)


def number_of(name: str | int) -> int:
    """Return the number that the module knows a name by. Raises ValueError."""
    number = name
    if isinstance(number, str):
        if _WORD.fullmatch(number):
            return int.from_bytes(number.encode(), "little")
        if not _NUMBER.fullmatch(number):
            raise ValueError(f"{name!r:.60} is neither a number nor a word of up to eight characters")
        number = int(number, 0 if number.startswith("0x") else 10)
    if not 0 <= number < 1 << 64:
        raise ValueError("a number of more than 64 bits is no domain's")
    return number


def name_of(number: int) -> str:
    """Return the word that stands for a number, or its digits."""
    word = number.to_bytes(8, "little").rstrip(b"\0").decode("latin-1")
    return word if _WORD.fullmatch(word) else str(number)


def target(whose: str) -> tuple[int, int]:
    """Return whether this is a process or a cgroup, and its pid or its id. Raises ValueError and OSError."""
    if re.fullmatch(r"[0-9]{1,10}", whose, re.ASCII):
        return PROCESS, int(whose)
    if not whose.startswith("/"):
        raise ValueError(f"{whose!r:.60} is neither a pid nor the path of a cgroup")
    folder = Path(whose)
    if not (folder / "cgroup.controllers").is_file():  # of version 2
        raise OSError(errno.ENOENT, "No such cgroup", whose)
    return CGROUP, folder.stat().st_ino


def _ask(request: int, whose: tuple[int, int], number: int) -> None:
    device = os.open(DEVICE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, request, _DOMAIN.pack(whose[0], 0, whose[1], number))
    finally:
        os.close(device)


def set_domain(whose: tuple[int, int], name: str | int) -> None:
    """Choose the domain of a process, (PROCESS, pid), or a cgroup, (CGROUP, id).

    Raises OSError: ENOENT without the module or the cgroup, ESRCH, EACCES or EPERM for a process that one may not
    change, EPERM where an administrator has chosen.
    """
    _ask(_SET, whose, number_of(name))


def clear_domain(whose: tuple[int, int]) -> None:
    """Undo that. Raises OSError: as above, and ENOENT where nothing was chosen."""
    _ask(_CLEAR, whose, 0)


def domains() -> list[dict[str, int | str]]:
    """Return every domain that the module knows. Raises OSError: EPERM for whoever is not root."""
    with Path(DEVICE).open(encoding="ascii") as device:
        head, *lines = (line.split() for line in device)
    found: list[dict[str, int | str]] = []
    for line in lines:
        columns = zip(head, line, strict=True)
        found.append({name: text if name == "by" else int(text) for name, text in columns})
    return found


def main(words: list[str]) -> str:
    """Do what the words say; return what is to be printed."""
    match words:
        case ["list"]:
            return json.dumps(domains()) + "\n"
        case ["set", whose, name]:
            set_domain(target(whose), name)
        case ["clear", whose]:
            clear_domain(target(whose))
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
