# SPDX-License-Identifier: MIT
"""Processes in a guest and their mappings: every method does its work there, then says the same to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.ksm import protocol
from harness.ksm.content import Kind, Words
from harness.ksm.oracle import AreaModel
from harness.ksm.protocol import PAGE_BYTES, Op, Request

if TYPE_CHECKING:
    from harness.ksm.memwork import MemWork

HUGE_PAGES = 512
"""Base pages in a huge one."""

FIRST_ADDRESS = 0x10_0000_0000
GAP_BYTES = 2 << 20
"""Between areas, so that the kernel does not join them."""

# Linux 6.12 sets KPF_KSM for every anonymous page (fs/proc/page.c tests one bit of two); a merged page is never
# exclusive to an address space, which PG_mappedtodisk says of anonymous pages.
KPF_KSM = np.uint64(1 << 21)
KPF_EXCLUSIVE = np.uint64(1 << 34)
KPF_ZERO_PAGE = np.uint64(1 << 24)
KPF_THP = np.uint64(1 << 22)
PRESENT = np.uint64(1 << 63)
SWAPPED = np.uint64(1 << 62)
PFN_MASK = np.uint64((1 << 55) - 1)

PROT_READ, PROT_WRITE = 1, 2
MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_FIXED_NOREPLACE = 2, 0x20, 0x4000, 0x100000
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2


class Syscall(IntEnum):
    """Numbers on x86_64."""

    MMAP = 9
    MPROTECT = 10
    MUNMAP = 11
    MREMAP = 25
    MADVISE = 28
    KILL = 62
    SETRESUID = 117
    MLOCK = 149
    MUNLOCK = 150
    PRCTL = 157


class Advice(IntEnum):
    """madvise(2)'s; after FREE nobody knows what a page holds until it is written."""

    DONTNEED = 4
    FREE = 8
    MERGEABLE = 12
    UNMERGEABLE = 13
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    COLD = 20
    PAGEOUT = 21
    POPULATE_READ = 22
    POPULATE_WRITE = 23
    COLLAPSE = 25


class Area:
    """One anonymous private mapping of a process, and what each of its pages must hold."""

    def __init__(self, process: Process, model: AreaModel) -> None:
        self.process = process
        self.model = model

    @property
    def pages(self) -> int:
        """How many pages it has."""
        return self.model.pages

    def address(self, page: int = 0) -> int:
        """Return a page's address."""
        return self.model.address + page * PAGE_BYTES

    def fill(self, kind: Kind, key: int = 0, *, step: int = 0, pages: range | None = None) -> None:
        """Write whole pages (all when None): the i-th of them holds (kind, key + i * step)."""
        chosen = self._whole(pages)
        keys = np.uint64(key) + np.arange(len(chosen), dtype=np.uint64) * np.uint64(step)
        self.fill_each(np.full(len(chosen), kind, np.uint8), keys, first=chosen.start)

    def fill_each(self, kinds: NDArray[np.uint8], keys: Words, *, first: int = 0) -> None:
        """Write pages from `first` on, each with a kind and a key of its own."""
        runs = _runs(self.address(first), kinds, keys)
        self.process.post_parts(Op.FILL, runs)
        self.model.fill(first, kinds, keys)

    def poke(self, page: int, offset: int, value: int, size: int = 8) -> None:
        """Write `value`, little-endian, in `size` bytes (1 to 8) at `offset` of a page."""
        self.poke_each([(page, offset, value)], size=size)

    def poke_each(self, pokes: Sequence[tuple[int, int, int]], *, size: int = 8) -> None:
        """Write each (page, offset, value)."""
        for _, offset, _ in pokes:
            assert 0 <= offset <= PAGE_BYTES - size, "a poke stays within its page"
        table = np.array(
            [(self.address(page) + offset, value, size) for page, offset, value in pokes], dtype=protocol.POKE
        )
        self.process.post_parts(Op.POKE, table)
        for page, offset, value in pokes:
            self.model.poke(page, offset, value.to_bytes(8, "little")[:size])

    def advise(self, advice: Advice, pages: range | None = None) -> None:
        """madvise(2) on some pages (all when None)."""
        chosen = self._whole(pages)
        where = slice(chosen.start, chosen.stop)
        self.process.post_syscall(Syscall.MADVISE, self.address(chosen.start), len(chosen) * PAGE_BYTES, advice)
        if advice is Advice.MERGEABLE:
            self.model.mergeable[where] = True
        elif advice is Advice.UNMERGEABLE:
            self.model.mergeable[where] = False
            self.model.unmerge(where)
        elif advice is Advice.DONTNEED:
            self.model.discard(where)

    def protect(self, protection: int, pages: range | None = None) -> None:
        """mprotect(2) on some pages (all when None)."""
        chosen = self._whole(pages)
        self.process.post_syscall(Syscall.MPROTECT, self.address(chosen.start), len(chosen) * PAGE_BYTES, protection)

    def unmap(self) -> None:
        """munmap(2) the whole area."""
        self.process.post_syscall(Syscall.MUNMAP, self.address(), self.pages * PAGE_BYTES)
        self.process.areas.remove(self)

    def remap(self, pages: int | None = None) -> None:
        """mremap(2) the whole area to another address, growing or shrinking it to `pages`."""
        count = self.pages if pages is None else pages
        address = self.process.reserve(count)
        flags = MREMAP_MAYMOVE | MREMAP_FIXED
        sizes = (self.pages * PAGE_BYTES, count * PAGE_BYTES)
        self.process.post_syscall(Syscall.MREMAP, self.address(), *sizes, flags, address)
        self.model = self.model.resized(count)
        self.model.address = address

    def rewrite(self, key: int, *, per_second: float, kind: Kind = Kind.FILLED, pages: range | None = None) -> None:
        """Have pages rewritten one after the other until the process is told to stop (Process.stop_rewriting)."""
        chosen = self._whole(pages)
        # Not more than 200 wake-ups a second: what is faster goes in bursts.
        burst = max(1, round(per_second / 200))
        plan = protocol.REWRITE.pack(
            self.address(chosen.start), len(chosen), key, round(1e6 * burst / per_second), kind, burst
        )
        self.process.post(Op.REWRITE, plan)
        self.process.rewriting = (self, chosen, kind, key)

    def frames(self, pages: range | None = None) -> NDArray[Any]:
        """Return what the kernel says of each page: a `pagemap` entry and /proc/kpageflags' `flags`."""
        chosen = self._whole(pages)
        parts = [
            self.process.send(Op.FRAMES, encode_ranges([(self.address(start), stop - start)]))
            for start, stop in split(chosen, protocol.MAX_PAYLOAD // protocol.FRAME.itemsize)
        ]
        return np.frombuffer(b"".join(parts), dtype=protocol.FRAME)

    def merged_pages(self, pages: range | None = None) -> NDArray[np.bool_]:
        """Return for each page whether the kernel has merged it (MemWork.merged)."""
        return np.array(self.process.work.merged([Place(self, page) for page in self._whole(pages)]), np.bool_)

    def move_to_node(self, node: int, pages: range | None = None) -> NDArray[np.int32]:
        """move_pages(2) with MPOL_MF_MOVE_ALL: return for each page its node or a negative errno."""
        chosen = self._whole(pages)
        payload = encode_ranges([(self.address(chosen.start), len(chosen))])
        return np.frombuffer(self.process.send(Op.MOVE, payload, argument=node), dtype="<i4")

    def read(self, page: int) -> bytes:
        """Return a page's bytes as the process itself sees them."""
        return self.process.send(Op.READ, encode_ranges([(self.address(page), PAGE_BYTES)]))

    def _whole(self, pages: range | None) -> range:
        chosen = range(self.pages) if pages is None else pages
        assert chosen.step == 1, "a contiguous range"
        assert 0 <= chosen.start <= chosen.stop <= self.pages, "a range within the area"
        return chosen


@dataclass(frozen=True)
class Place:
    """One page of one process."""

    area: Area
    page: int

    @property
    def address(self) -> int:
        """Where it is in its process."""
        return self.area.address(self.page)

    @property
    def frame(self) -> int:
        """The model's number of its frame."""
        return int(self.area.model.frames[self.page])

    @property
    def known_merged(self) -> bool:
        """Whether the model knows it to be merged."""
        return bool(self.area.model.merged[self.page])


class Process:
    """A process in the guest with nothing in it but what it is told to map."""

    def __init__(self, work: MemWork, worker: int, pid: int, name: str) -> None:
        self.work = work
        self.worker = worker
        self.pid = pid
        self.name = name
        self.areas: list[Area] = []
        self.rewriting: tuple[Area, range, Kind, int] | None = None
        self.merges_any = False
        self._next_address = FIRST_ADDRESS

    def map(
        self, pages: int, *, merge: bool = True, thp: bool = False, address: int | None = None, reserve: bool = True
    ) -> Area:
        """Map anonymous private memory; `merge` says MADV_MERGEABLE, `thp` MADV_HUGEPAGE or MADV_NOHUGEPAGE.

        With `reserve` false nothing is set aside for it (MAP_NORESERVE): for areas larger than memory.
        """
        chosen = self.reserve(pages) if address is None else address
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | (0 if reserve else MAP_NORESERVE)
        self.post_syscall(Syscall.MMAP, chosen, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0)
        area = Area(self, AreaModel.untouched(chosen, pages))
        self.areas.append(area)
        area.advise(Advice.HUGEPAGE if thp else Advice.NOHUGEPAGE)
        if merge:
            area.advise(Advice.MERGEABLE)
        elif self.merges_any:
            area.model.mergeable[:] = True
        return area

    def merge_any(self, on: bool = True) -> None:
        """prctl(PR_SET_MEMORY_MERGE) for all areas, present and future (but not for memwork's own memory)."""
        self.post(Op.MERGE_ANY, argument=int(on))
        self.merges_any = on
        for area in self.areas:
            area.model.mergeable[:] = on
            if not on:
                area.model.unmerge(slice(None))

    def fork(self) -> Process:
        """Fork: the child holds what this process holds, in the same order of areas."""
        worker, name = self.work.new_name(f"{self.name}.child")
        pid = self.work.ask([Request(self.worker, Op.FORK, argument=worker)])[0]
        child = Process(self.work, worker, int.from_bytes(pid, "little"), name)
        child.areas = [Area(child, area.model.forked()) for area in self.areas]
        child.merges_any = self.merges_any
        child._next_address = self._next_address
        self.work.processes.append(child)
        return child

    def exec(self) -> None:
        """Let the process execute its program anew: it is as empty as a new one."""
        self.send(Op.EXEC)
        self.areas.clear()
        self.give_secret()

    def give_secret(self) -> None:
        """Tell it the digests' key."""
        self.send(Op.SECRET, self.work.digester.secret.to_bytes(8, "little"))

    def exit(self) -> int:
        """Let the process end and wait until its memory is gone; return its wait(2) status."""
        status = self.send(Op.EXIT)
        self.work.processes.remove(self)
        return int.from_bytes(status, "little")

    def stop_rewriting(self) -> int:
        """End what Area.rewrite began; return how many writes there were."""
        assert self.rewriting is not None, "Area.rewrite comes first"
        area, pages, kind, key = self.rewriting
        written = int.from_bytes(self.send(Op.REWRITE_STOP), "little")
        area.model.rewrite(pages.start, len(pages), kind, key, written)
        self.rewriting = None
        return written

    def syscall(self, number: int, *arguments: int) -> int:
        """Make any system call in the process; return its result, raise WorkError with its errno.

        What it does to contents or mappings the model does not learn.
        """
        answer = self.send(Op.SYSCALL, _encode_syscall(number, arguments))
        return int.from_bytes(answer, "little", signed=True)

    def post_syscall(self, number: int, *arguments: int) -> None:
        """As syscall, where only an error would matter; see post."""
        self.post(Op.SYSCALL, _encode_syscall(number, arguments))

    def send(self, op: Op, payload: bytes = b"", *, argument: int = 0) -> bytes:
        """Make one request and return the answer."""
        return self.work.ask([Request(self.worker, op, payload, argument)])[0]

    def post(self, op: Op, payload: bytes = b"", *, argument: int = 0) -> None:
        """Make one request whose answer says no more than that it was done; within MemWork.together it waits."""
        self.work.post(Request(self.worker, op, payload, argument))

    def post_parts(self, op: Op, table: NDArray[Any]) -> None:
        """Make as many requests as a long table needs."""
        rows = protocol.MAX_PAYLOAD // table.dtype.itemsize
        for start in range(0, len(table), rows):
            self.post(op, table[start : start + rows].tobytes())

    def reserve(self, pages: int) -> int:
        """Return the address for the next area: the same in every run, aligned for huge pages."""
        address = self._next_address
        huge = HUGE_PAGES * PAGE_BYTES
        self._next_address += -(-pages * PAGE_BYTES // huge) * huge + GAP_BYTES
        return address


def _encode_syscall(number: int, arguments: Sequence[int]) -> bytes:
    values = np.zeros(7, dtype="<i8")
    values[: 1 + len(arguments)] = (number, *arguments)
    return values.tobytes()


def _slice(chosen: range) -> slice:
    return slice(chosen.start, chosen.stop)


def split(chosen: range, most: int) -> list[tuple[int, int]]:
    """Cut a range into (start, stop) of at most `most` each."""
    return [(start, min(start + most, chosen.stop)) for start in range(chosen.start, chosen.stop, most)]


def encode_ranges(ranges: Sequence[tuple[int, int]]) -> bytes:
    """Encode (address, pages) of each."""
    return np.array(ranges, dtype=protocol.RANGE).tobytes()


def _runs(address: int, kinds: NDArray[np.uint8], keys: Words) -> NDArray[Any]:
    """Describe pages by runs of equal kind whose keys are equally spaced, as few as one goes through them."""
    runs: list[tuple[int, int, int, int, int]] = []
    start = 0
    kind_list, key_list = kinds.tolist(), keys.tolist()
    while start < len(key_list):
        stop = start + 1
        step = (key_list[stop] - key_list[start]) % 2**64 if stop < len(key_list) else 0
        while (
            stop < len(key_list)
            and kind_list[stop] == kind_list[start]
            and (key_list[stop] - key_list[stop - 1]) % 2**64 == step
        ):
            stop += 1
        runs.append((address + start * PAGE_BYTES, key_list[start], step, kind_list[start], stop - start))
        start = stop
    return np.array(runs, dtype=protocol.RUN)


def merged_by_flags(flags: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell from /proc/kpageflags which anonymous pages are merged into a shared one.

    A page that a fork shares and that is not merged looks the same before Linux 6.15.
    """
    merged: NDArray[np.bool_] = (flags & KPF_KSM != 0) & (flags & KPF_EXCLUSIVE == 0)
    return merged
