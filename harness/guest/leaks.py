# SPDX-License-Identifier: MIT
"""What a debug kernel knows of memory that nobody will free: kmemleak (slab, vmalloc) and page owner (pages).

And what any kernel knows of processes' pages: /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst).
"""

from __future__ import annotations

import re

import numpy as np

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
# A slab keeps a pointer where other pages say that they are anonymous.
_SLAB, _MAPPED, _ANON, _SWAPCACHE, _HEAD, _TAIL, _HWPOISON = (1 << bit for bit in (7, 11, 12, 13, 15, 16, 19))
# A frame that failed is kept for ever, as what it was.
_KINDS = _SLAB | _MAPPED | _ANON | _SWAPCACHE | _HEAD | _TAIL | _HWPOISON
_LOOKS = 3
_SHOWN_FRAMES = 8
_PAGES = re.compile(r"^nr_base_pages: (\d+)", re.MULTILINE)


def knows_leaks(guest: Guest) -> bool:
    """Whether the guest's kernel keeps account of that."""
    return guest.read_files([_KMEMLEAK])[_KMEMLEAK] is not None


def forget_leaks(guest: Guest) -> None:
    """What kmemleak has seen so far is not to be reported."""
    guest.write(_KMEMLEAK, "clear", timeout=_TIMEOUT)


def check_leaks(guest: Guest) -> None:
    """Let kmemleak look for objects that nothing points to. Raises CheckFailed with its report, KernelSplat before."""
    guest.pause(_MIN_AGE)
    look_for_leaks(guest)
    look_for_leaks(guest)


def look_for_leaks(guest: Guest) -> None:
    """As check_leaks, but let it look once, which takes it ten seconds.

    It reports what it saw the last time, too, and did not change since: what is lost now shows at the next look.
    """
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


def check_pages_of_nobody(guest: Guest) -> None:
    """Look for small anonymous pages, merged ones among them, that are in no page table and not in swap either.

    Their process has gone, and somebody holds a reference. Pages on their way (a batch for the LRU lists, a page just
    allocated) do not stay: what is reported was there at each of several looks. Raises CheckFailed with the frames.
    """
    lost: set[int] = set()
    for look in range(_LOOKS):
        guest.write("/proc/sys/vm/compact_memory", "1", timeout=_TIMEOUT)  # drains the batches
        flags = np.frombuffer(guest.get("/proc/kpageflags", timeout=_TIMEOUT), "<u8")
        seen = {int(frame) for frame in np.flatnonzero(flags & np.uint64(_KINDS) == _ANON)}
        lost = seen if look == 0 else lost & seen
        if not lost:
            return
    frames = ", ".join(f"frame {frame:x}" for frame in sorted(lost)[:_SHOWN_FRAMES])
    pages = "1 anonymous page" if len(lost) == 1 else f"{len(lost)} anonymous pages"
    raise CheckFailed(f"{pages} that no process maps: {frames}", where=str(guest.folder))


def check_left_behind(guest: Guest, module: str) -> None:
    """Unload a module where it is loaded: nothing of it may be left. Raises what the other checks here raise."""
    if guest.run(["test", "-d", f"/sys/module/{module}"], check=False).exit_code == 0:
        guest.rmmod(module)
    check_pages_of_unloaded(guest)
    check_pages_of_nobody(guest)
    check_leaks(guest)


def _of_unloaded(stack: str) -> bool:
    """Whether who asked for pages has no name any more."""
    callers = (line.strip() for line in stack.splitlines() if line.strip() and not _ALLOCATORS.match(line.strip()))
    return _UNNAMED.match(next(callers, "")) is not None
