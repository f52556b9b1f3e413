# SPDX-License-Identifier: MIT
"""Asks the module why the pages of a process are not merged (kmod/samepage_abi.h), and needs nothing but Python.

Usage: why.py PID [START END]
Prints a JSON object: how many pages for each reason.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys

DEVICE = "/dev/samepage"
REASONS = {
    "merged": "shares its page with others",
    "zero": "is the zero page, of which there is one",
    "not_registered": "in memory for which nobody said MADV_MERGEABLE or PR_SET_MEMORY_MERGE",
    "not_anonymous": "of a file, or of a device",
    "not_yet": "registered, but the scanner has not come to it",
    "volatile": "changes from pass to pass",
    "unique": "nobody has its equal",
    "forked": "the same page, shared by fork, stands for it: it is not there twice",
    "other_domain": "only another security domain has its equal",
    "chain_full": "its equals have max_page_sharing sharers already",
    "pinned": "a device may write to it",
    "huge_spared": "part of a huge page with fewer twins than huge_min_twins",
    "swapped": "swapped out",
    "over_budget": "the scanner has not come to it: its tenant has had its percent of a CPU",
    "excluded": "its cgroup takes no part in merging",
}
"""In the order of enum samepage_reason; what each says of a page."""
_WHY = struct.Struct(f"=iIQQ{len(REASONS)}Q")
_REQUEST = 3 << 30 | _WHY.size << 16 | ord("m") << 8 | 0x50


def why(pid: int, start: int = 0, end: int = 0) -> dict[str, int]:
    """Return how many pages of the process (0: this one) there are for each reason.

    `start` and `end` are addresses, on page boundaries; `end` 0 is the last one. Raises OSError: ENOENT without the
    module, ESRCH, EACCES or EPERM for a process that one may not look into, EINVAL.
    """
    asked = bytearray(_WHY.pack(pid, len(REASONS), start, end, *([0] * len(REASONS))))
    device = os.open(DEVICE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _REQUEST, asked)
    finally:
        os.close(device)
    return dict(zip(REASONS, _WHY.unpack(asked)[4:], strict=True))


if __name__ == "__main__":
    try:
        print(json.dumps(why(*(int(word, 0) for word in sys.argv[1:]))))
    except OSError as error:
        sys.exit(f"{error.strerror} ({error.errno})")
