# SPDX-License-Identifier: MIT
"""What a debug kernel has counted of the lines of modules (gcov): copied out of a guest before it ends.

https://docs.kernel.org/dev-tools/gcov.html
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness.guest.guest import Guest

_COUNTS = "/sys/kernel/debug/gcov"


def save_coverage(guest: Guest, folder: Path) -> int:
    """Copy the counts to a new folder in `folder`, under their paths; return how many files there were.

    There are none where the kernel does not count. They include those of modules that are not loaded any more.
    """
    if not guest.run(["find", _COUNTS, "-maxdepth", "0"], check=False).text.strip():
        return 0
    names = guest.run(["find", _COUNTS, "-name", "*.gcda"]).text.split()
    folder.mkdir(parents=True, exist_ok=True)
    top = Path(tempfile.mkdtemp(prefix="guest-", dir=folder))
    for name in names:
        path = top / name.removeprefix(f"{_COUNTS}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(guest.get(name))
    return len(names)
