# SPDX-License-Identifier: MIT
"""What a debug kernel knows of memory that nobody will free: kmemleak (slab, vmalloc) and page owner (pages)."""

from __future__ import annotations

import re
import time

from harness.errors import CheckFailed
from harness.guest.guest import Guest

_KMEMLEAK = "/sys/kernel/debug/kmemleak"
_MIN_AGE = 5.0
"""Seconds that kmemleak gives an object to be stored somewhere (MSECS_MIN_AGE in mm/kmemleak.c, 6.12)."""
_STACKS = "/sys/kernel/debug/page_owner_stacks/show_stacks"
_TIMEOUT = 120.0
# Where modules are, behind the kernel's image of 512 MiB; what is unloaded has no name any more.
_UNNAMED = re.compile(r"0xffffffff[a-f][0-9a-f]{7}")
# Functions that hand out pages. Slabs are not among them: others' objects lie beside a module's.
_ALLOCATORS = re.compile(
    r"(post_alloc_hook|get_page_from_freelist|\w*(alloc_(pages|folio)|folio_alloc|free_page)\w*)[+.]"
)
_PAGES = re.compile(r"^nr_base_pages: (\d+)", re.MULTILINE)


def knows_leaks(guest: Guest) -> bool:
    """Whether the guest's kernel keeps account of that."""
    return guest.read_files([_KMEMLEAK])[_KMEMLEAK] is not None


def forget_leaks(guest: Guest) -> None:
    """What kmemleak has seen so far is not to be reported."""
    guest.write(_KMEMLEAK, "clear", timeout=_TIMEOUT)


def check_leaks(guest: Guest) -> None:
    """Let kmemleak look for objects that nothing points to. Raises CheckFailed with its report, KernelSplat before."""
    time.sleep(_MIN_AGE)
    for _ in range(2):  # it reports what did not change between two looks
        guest.write(_KMEMLEAK, "scan", timeout=_TIMEOUT)
    report = guest.read(_KMEMLEAK, timeout=_TIMEOUT)
    if report:
        raise CheckFailed(f"kmemleak found objects that nothing points to:\n{report}", where=str(guest.folder))


def check_pages_of_unloaded(guest: Guest) -> None:
    """Look for pages that a module allocated which is gone. Raises CheckFailed with the stacks that allocated them."""
    stacks = guest.read(_STACKS, timeout=_TIMEOUT).split("\n\n")
    left = [stack for stack in stacks if _of_unloaded(stack) and any(int(n) for n in _PAGES.findall(stack))]
    if left:
        raise CheckFailed("pages of an unloaded module are left:\n" + "\n\n".join(left), where=str(guest.folder))


def _of_unloaded(stack: str) -> bool:
    """Whether who asked for pages has no name any more."""
    callers = (line.strip() for line in stack.splitlines() if line.strip() and not _ALLOCATORS.match(line.strip()))
    return _UNNAMED.match(next(callers, "")) is not None
