# SPDX-License-Identifier: MIT
"""Merged memory that devices hold, that moves with its cgroup to another node, is given up, or swapped to a disk."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind, page_bytes
from harness.ksm.memwork import MemWork
from harness.ksm.processes import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE, SWAPPED, Advice, Area, Process
from tests.guest.ksm.control import RUN, STOP, Merger
from tests.guest.ksm.test_reclaim import page_frames, reclaim

PAGES = 256
BYTES = PAGES * 4096
KEY = 47 << 40
IO_URING_SETUP, IO_URING_REGISTER = 425, 427
REGISTER_BUFFERS, UNREGISTER_BUFFERS = 0, 1
MADV_FREE = 8
PROT_NONE = 0
CGROUP = "/sys/fs/cgroup/nodes"

pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2, numa_nodes=2)


def filled(work: MemWork) -> list[Area]:
    mapped = [work.process().map(pages=PAGES) for _ in range(2)]
    for area in mapped:
        area.fill(Kind.FILLED, KEY, step=1)
    return mapped


def merged(merger: Merger, work: MemWork) -> list[Area]:
    mapped = filled(work)
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
    return mapped


class Ring:
    """An io_uring of a process: its registered buffers are pinned for as long as the kernel likes (FOLL_LONGTERM)."""

    def __init__(self, process: Process) -> None:
        self.process = process
        flags = MAP_PRIVATE | MAP_ANONYMOUS
        parameters = process.syscall(9, 0, 4096, PROT_READ | PROT_WRITE, flags, -1, 0)
        self.vector = process.map(pages=1, merge=False)
        self.descriptor = process.syscall(IO_URING_SETUP, 4, parameters)

    def pin(self, area: Area) -> None:
        self.vector.poke_each([(0, 0, area.address()), (0, 8, area.pages * 4096)])
        self.process.syscall(IO_URING_REGISTER, self.descriptor, REGISTER_BUFFERS, self.vector.address(), 1)

    def unpin(self) -> None:
        self.process.syscall(IO_URING_REGISTER, self.descriptor, UNREGISTER_BUFFERS, 0, 0)


def test_pinned_pages_stay_where_they_are(merger: Merger, work: MemWork) -> None:
    first, second = filled(work)
    ring = Ring(first.process)
    ring.pin(first)
    frames = page_frames(first).tolist()
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (0, 0, 0)
    assert page_frames(first).tolist() == frames
    # Others with the same content merge all the same.
    third = work.process().map(pages=PAGES)
    third.fill(Kind.FILLED, KEY, step=1)
    for _ in range(20):  # as Merger.merge, which does not know of pins
        merger.passes(1)
        if merger.counts() == (PAGES, PAGES, 0):
            break
    assert merger.counts() == (PAGES, PAGES, 0)
    assert not first.merged_pages().any()
    assert second.merged_pages().all()
    assert page_frames(first).tolist() == frames
    work.check()
    ring.unpin()
    merger.merge(work)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)
    # Pinning merged pages gives the one who pins copies of its own first.
    ring.pin(first)
    assert not first.merged_pages().any()
    first.poke_each([(page, 8, 1) for page in range(PAGES)])
    work.check()
    merger.passes(3)
    assert merger.counts() == (PAGES, PAGES, 0)
    ring.unpin()
    work.check()


def on_nodes(guest: Guest, area: Area) -> dict[str, int]:
    """Return how many pages of an area are on which node (/proc/PID/numa_maps)."""
    for line in guest.read(f"/proc/{area.process.pid}/numa_maps").splitlines():
        address, *words = line.split()
        if int(address, 16) == area.address():
            pairs = (word.split("=") for word in words if word.startswith("N") and "=" in word)
            return {node: int(pages) for node, pages in pairs}
    raise AssertionError(f"no mapping at {area.address():#x}")


@pytest.fixture
def cpuset(guest: Guest) -> Iterator[str]:
    guest.write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset")
    guest.run(["mkdir", CGROUP])
    guest.write(f"{CGROUP}/cpuset.mems", "0")
    yield CGROUP
    if guest.healthy:
        deadline = time.monotonic() + 30
        while guest.run(["rmdir", CGROUP], check=False).exit_code != 0:
            assert time.monotonic() < deadline, "the cgroup stays busy"
            time.sleep(0.2)


def test_merged_pages_move_with_their_cpuset(merger: Merger, guest: Guest, work: MemWork, cpuset: str) -> None:
    mapped = [work.process().map(pages=PAGES) for _ in range(2)]
    for area in mapped:
        guest.write(f"{cpuset}/cgroup.procs", str(area.process.pid))
        area.fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
    merger["run"] = STOP  # while the scanner looks at a page, it cannot be moved
    for node in (1, 0):
        guest.write(f"{cpuset}/cpuset.mems", str(node))
        deadline = time.monotonic() + 30
        while any(on_nodes(guest, area) != {f"N{node}": PAGES} for area in mapped):
            assert time.monotonic() < deadline, [on_nodes(guest, area) for area in mapped]
            time.sleep(0.2)
        assert mapped[0].frames()["pagemap"].tolist() == mapped[1].frames()["pagemap"].tolist()
        work.check()
        assert merger.counts() == (PAGES, PAGES, 0)
    merger["run"] = RUN
    merger.passes(2)
    assert merger.counts() == (PAGES, PAGES, 0)
    for process in list(work.processes):
        process.exit()


def test_freed_lazily(merger: Merger, guest: Guest, work: MemWork) -> None:
    """MADV_FREE: whose page it is may find old contents or zeroes; the other one finds what was there."""
    first, second = merged(merger, work)
    first.process.syscall(28, first.address(), BYTES, MADV_FREE)
    reclaim(guest)
    for page in range(0, PAGES, 16):
        assert first.read(page) in (page_bytes(Kind.FILLED, KEY + page), bytes(4096))
    first.fill(Kind.FILLED, KEY + 7 * PAGES, step=1)
    work.check()
    merger.passes(3)
    assert merger.counts()[1] == 0
    first.fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
    work.check()
    assert second.merged_pages().all()


def test_inaccessible_memory_is_copied_on_write(merger: Merger, work: MemWork) -> None:
    first, _ = merged(merger, work)
    first.protect(PROT_NONE)
    child = first.process.fork()
    child.areas[0].protect(PROT_READ | PROT_WRITE)
    child.areas[0].poke_each([(page, 8, 5) for page in range(0, PAGES, 2)])
    first.protect(PROT_READ | PROT_WRITE)
    first.poke_each([(page, 16, 6) for page in range(0, PAGES, 3)])
    work.check()
    merger.merge(work)
    work.check()


DISK = "/dev/nullb0"
SWAP_FILE = "/run/swap/file"


@pytest.fixture(params=["disk", "file"])
def swap(guest: Guest, request: pytest.FixtureRequest) -> Iterator[str]:
    """Swap on a disk, or a file of ext4 there: unlike zram's, I/O takes a while and goes by way of the swap cache."""
    guest.run(["modprobe", "null_blk", "nr_devices=1", "memory_backed=1", "gb=1"])
    where = DISK
    if request.param == "file":
        where = SWAP_FILE
        script = (
            f"mkfs.ext4 -q {DISK} && mkdir -p /run/swap && mount -t ext4 {DISK} /run/swap && "
            f"dd if=/dev/zero of={where} bs=1M count=512 status=none && chmod 600 {where}"
        )
        guest.run(["sh", "-c", script], timeout=180)
    guest.run(["mkswap", where])
    guest.run(["swapon", where])
    yield where
    if guest.healthy:
        guest.run(["sh", "-c", f"swapoff {where} && {{ ! mountpoint -q /run/swap || umount /run/swap; }}"], timeout=180)
        guest.run(["rmmod", "null_blk"])


def test_swapped_out_and_in(merger: Merger, guest: Guest, work: MemWork, swap: str) -> None:
    mapped = merged(merger, work)
    merger["run"] = STOP
    reclaim(guest)
    swapped = sum(int(((area.frames()["pagemap"] & SWAPPED) != 0).sum()) for area in mapped)
    assert swapped > len(mapped) * PAGES // 2
    work.check()
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
    mapped[0].advise(Advice.PAGEOUT)
    work.check()
    reclaim(guest)
    guest.run(["swapoff", swap], timeout=180)
    work.check()
    guest.run(["swapon", swap])
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
