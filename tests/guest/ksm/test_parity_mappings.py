# SPDX-License-Identifier: MIT
"""Mappings that merging leaves alone, and merged ones that are locked, protected, moved, or written by a debugger."""

from __future__ import annotations

import errno

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.link import WorkError
from harness.ksm.memwork import MemWork
from harness.ksm.processes import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    Advice,
    Area,
    Process,
    Syscall,
)
from tests.guest.ksm.control import RUN, UNMERGE, Merger

PAGES = 256
BYTES = PAGES * 4096
HUGE_BYTES = 2 << 20
KEY = 23 << 40
MAP_SHARED, MAP_DROPPABLE, MAP_HUGETLB = 1, 8, 0x40000
PROT_NONE = 0


def merged(merger: Merger, work: MemWork) -> list[Area]:
    mapped = [work.process().map(pages=PAGES) for _ in range(2)]
    for area in mapped:
        area.fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
    return mapped


def vma_flags(guest: Guest, process: Process, address: int) -> set[str]:
    """Return the two-letter flags of the mapping at an address."""
    inside = False
    for line in guest.read(f"/proc/{process.pid}/smaps").splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, stop = (int(part, 16) for part in first.split("-"))
            inside = start <= address < stop
        elif inside and first == "VmFlags:":
            return set(line.split()[1:])
    raise AssertionError(f"nothing is mapped at {address:#x}")


@pytest.mark.usefixtures("merger")
@pytest.mark.parametrize(
    ("flags", "size", "marked"),
    [
        (MAP_PRIVATE | MAP_ANONYMOUS, BYTES, True),
        (MAP_SHARED | MAP_ANONYMOUS, BYTES, False),
        (MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, HUGE_BYTES, False),
        (MAP_DROPPABLE | MAP_ANONYMOUS, BYTES, False),
    ],
    ids=["private", "shared", "hugetlb", "droppable"],
)
def test_kinds_of_mappings(guest: Guest, work: MemWork, flags: int, size: int, marked: bool) -> None:
    if flags & MAP_HUGETLB:
        guest.write("/proc/sys/vm/nr_hugepages", "4")
    process = work.process()
    try:
        address = process.syscall(Syscall.MMAP, 0, size, PROT_READ | PROT_WRITE, flags, -1, 0)
    except WorkError as error:
        if flags & 0xF == MAP_DROPPABLE and error.errno == errno.EINVAL:
            pytest.skip("this kernel has no MAP_DROPPABLE")
        raise
    assert process.syscall(Syscall.MADVISE, address, size, Advice.MERGEABLE) == 0
    assert ("mg" in vma_flags(guest, process, address)) == marked
    assert process.syscall(Syscall.MADVISE, address, size, Advice.UNMERGEABLE) == 0
    assert "mg" not in vma_flags(guest, process, address)
    process.syscall(Syscall.MUNMAP, address, size)
    guest.write("/proc/sys/vm/nr_hugepages", "0")


@pytest.mark.usefixtures("merger")
def test_device_memory_is_left_alone(guest: Guest, work: MemWork) -> None:
    """The kernel's own data page of every process: a mapping of page frames (VM_PFNMAP, VM_MIXEDMAP in Linux 7)."""
    process = work.process()
    lines = guest.read(f"/proc/{process.pid}/maps").splitlines()
    address = next(int(line.partition("-")[0], 16) for line in lines if line.split()[-1].startswith("[vvar"))
    assert {"pf", "mm"} & vma_flags(guest, process, address)
    assert process.syscall(Syscall.MADVISE, address, 4096, Advice.MERGEABLE) == 0
    assert "mg" not in vma_flags(guest, process, address)


def test_locked_memory_merges_and_stays_locked(merger: Merger, guest: Guest, work: MemWork) -> None:
    mapped = merged(merger, work)
    for area in mapped:
        area.process.syscall(Syscall.MLOCK, area.address(), BYTES)
    work.check()
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
    for area in mapped:
        assert f"VmLck:\t    {BYTES >> 10} kB" in guest.read(f"/proc/{area.process.pid}/status")
        assert {"lo", "mg"} <= vma_flags(guest, area.process, area.address())
    mapped[0].poke_each([(page, 8, 1) for page in range(PAGES)])
    work.check()
    for area in mapped:
        area.process.syscall(Syscall.MUNLOCK, area.address(), BYTES)
    merger.passes(2)
    work.check()


def test_inaccessible_memory_unmerges(merger: Merger, work: MemWork) -> None:
    mapped = merged(merger, work)
    mapped[0].protect(PROT_NONE)
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    mapped[0].protect(PROT_READ | PROT_WRITE)
    assert not mapped[0].merged_pages().any()
    work.check()


def test_read_only_memory_merges(merger: Merger, work: MemWork) -> None:
    mapped = [work.process().map(pages=PAGES) for _ in range(2)]
    for area in mapped:
        area.fill(Kind.FILLED, KEY, step=1)
        area.protect(PROT_READ)
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
    mapped[0].protect(PROT_READ | PROT_WRITE)
    mapped[0].poke_each([(page, 8, 1) for page in range(PAGES)])
    work.check()


def test_debugger_writes_break_one_copy(merger: Merger, guest: Guest, work: MemWork) -> None:
    mapped = merged(merger, work)
    for page in (0, 7, PAGES - 1):
        address = mapped[0].address(page) + 123
        program = f"f = open('/proc/{mapped[0].process.pid}/mem', 'r+b', 0); f.seek({address}); f.write(b'debugger')"
        guest.run(["python3", "-c", program])
        mapped[0].model.poke(page, 123, b"debugger")
    work.check()
    merger.passes(2)
    assert merger.counts() == (PAGES, PAGES - 3, 0)
    work.check()


def test_moved_memory_stays_merged(merger: Merger, work: MemWork) -> None:
    mapped = merged(merger, work)
    for pages in (None, 2 * PAGES, PAGES):
        mapped[0].remap(pages)
        work.check()
        merger.passes(2)
        assert merger.counts() == (PAGES, PAGES, 0)
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    work.check()
    merger["run"] = RUN
    merger.passes()
    assert merger.counts() == (PAGES, PAGES, 0)
    work.check()


def test_discarded_memory_is_forgotten(merger: Merger, work: MemWork) -> None:
    mapped = merged(merger, work)
    mapped[0].advise(Advice.DONTNEED, range(100))
    work.check()
    merger.passes(2)
    assert merger.counts() == (PAGES, PAGES - 100, 0)
    mapped[1].unmap()
    merger.passes(2)
    assert merger.counts()[1] == 0
    work.check()
