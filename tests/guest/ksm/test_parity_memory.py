# SPDX-License-Identifier: MIT
"""Merged memory when memory itself fails, goes away, is charged, runs out; and when processes multiply."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.guest.stream import Stream
from harness.ksm.content import Kind
from harness.ksm.link import WorkError
from harness.ksm.memwork import MemWork
from harness.ksm.processes import PFN_MASK
from tests.guest.ksm.control import RUN, UNMERGE, Merger

PAGES = 3000
KEY = 29 << 40
PAGE_BYTES = 4096
SIGBUS = 7
CGROUP = "/sys/fs/cgroup/parity"
MEMORY = "/sys/devices/system/memory/"

# Half of memory may only hold what can be moved away: it can be taken offline.
pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2, append=("movablecore=512M",))


def merged(merger: Merger, work: MemWork, processes: int = 2) -> None:
    for _ in range(processes):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (PAGES, (processes - 1) * PAGES, 0)


def test_memory_goes_offline(merger: Merger, guest: Guest, work: MemWork) -> None:
    merged(merger, work)
    block_pages = int(guest.read(f"{MEMORY}block_size_bytes"), 16) // PAGE_BYTES

    def blocks() -> Counter[int]:
        frames = (work.areas[0].frames()["pagemap"] & PFN_MASK).tolist()
        return Counter(int(frame) // block_pages for frame in frames)

    (block, _), *_ = blocks().most_common(1)
    state = f"{MEMORY}memory{block}/state"
    guest.write(state, "offline", timeout=120)
    assert guest.read(state) == "offline"
    assert block not in blocks(), "every merged page has left it"
    work.check()
    assert merger.counts() == (PAGES, PAGES, 0)
    merger.passes(2)
    assert merger.counts() == (PAGES, PAGES, 0)
    guest.write(state, "online_movable")
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    work.check()


@pytest.fixture
def cgroup(guest: Guest) -> Iterator[str]:
    """A memory cgroup."""
    guest.write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    guest.run(["mkdir", CGROUP])
    yield CGROUP
    if not guest.running:
        return
    deadline = time.monotonic() + 30
    while guest.run(["rmdir", CGROUP], check=False).exit_code != 0:
        assert time.monotonic() < deadline, "the cgroup stays busy"
        time.sleep(0.2)


def test_merging_lowers_the_charge(merger: Merger, guest: Guest, work: MemWork, cgroup: str) -> None:
    for _ in range(2):
        guest.write(f"{cgroup}/cgroup.procs", str(work.process().pid))
    for process in work.processes:
        process.map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)

    def charged() -> int:
        return int(guest.read(f"{cgroup}/memory.current")) // PAGE_BYTES

    before = charged()
    assert before >= 2 * PAGES
    merger.merge(work)
    # Each CPU keeps up to 64 pages' charge in hand.
    assert abs(before - charged() - PAGES) < 256
    merger["run"] = UNMERGE
    assert abs(before - charged()) < 256
    work.check()
    for process in list(work.processes):
        process.exit()


@pytest.mark.parametrize("outsider_first", [True, False])
def test_copies_are_charged_to_who_maps_them(
    merger: Merger, guest: Guest, work: MemWork, cgroup: str, outsider_first: bool
) -> None:
    """Whoever is left with a merged page keeps it only where it pays for it already."""
    for number in range(2):
        process = work.process()
        if (number == 0) != outsider_first:
            guest.write(f"{cgroup}/cgroup.procs", str(process.pid))
        process.map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    charged = int(guest.read(f"{cgroup}/memory.current")) // PAGE_BYTES
    assert PAGES - 256 <= charged < 2 * PAGES
    work.check()
    for process in list(work.processes):
        process.exit()
    assert int(guest.read(f"{cgroup}/memory.current")) // PAGE_BYTES < PAGES / 2


def test_copies_that_exceed_a_limit(merger: Merger, guest: Guest, work: MemWork, cgroup: str) -> None:
    """A write to merged pages needs memory: who has none left is killed, and nobody else is touched."""
    merged(merger, work)
    limited = work.process()
    guest.write(f"{cgroup}/cgroup.procs", str(limited.pid))
    limited.map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    guest.write(f"{cgroup}/memory.max", str(PAGES * PAGE_BYTES // 2))
    program = f"""
import os
try:
    with open("/proc/{limited.pid}/mem", "r+b", 0) as memory:
        for page in range({PAGES}):
            memory.seek({limited.areas[0].address()} + page * 4096)
            memory.write(b"x")
except OSError as error:
    print(error.errno)
"""
    # The writer stands outside of the cgroup, but the copies are charged to the process that they are for.
    with guest.log.expect("invoked oom-killer"):
        guest.run(["python3", "-c", program], check=False)
        deadline = time.monotonic() + 30
        while f"/proc/{limited.pid}/stat" in _existing(guest, limited.pid) and time.monotonic() < deadline:
            time.sleep(0.2)
    limited.areas.clear()  # it is gone
    assert "oom_kill 1" in guest.read(f"{cgroup}/memory.events")
    merger.passes(2)
    assert merger.counts() == (PAGES, PAGES, 0)
    work.check()


def _existing(guest: Guest, pid: int) -> set[str]:
    path = f"/proc/{pid}/stat"
    content = guest.read_files([path])[path]
    return set() if content is None or b") Z " in content else {path}


def test_a_merging_process_is_killed_for_memory(merger: Merger, guest: Guest, work: MemWork, cgroup: str) -> None:
    merged(merger, work)
    guest.write(f"{cgroup}/memory.max", str(32 << 20))
    for turn in range(3):
        greedy = work.process()
        guest.write(f"{cgroup}/cgroup.procs", str(greedy.pid))
        area = greedy.map(pages=20000)
        with guest.log.expect("invoked oom-killer"):
            with pytest.raises(WorkError):
                area.fill(Kind.FILLED, KEY * (turn + 2), step=1)
            guest.run(["true"])  # the log is read up to here
        greedy.areas.clear()  # it is gone, and its worker's number stays taken
        work.check()
    assert "oom_kill 3" in guest.read(f"{cgroup}/memory.events")
    merger.passes(3)
    assert merger.counts() == (PAGES, PAGES, 0)
    assert merger["pages_unshared"] == 0
    work.check()


def test_fork_storm(merger: Merger, work: MemWork) -> None:
    for _ in range(2):
        work.process().map(pages=300).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    for turn in range(4):
        first = work.processes[turn % 2]
        children = [first.fork() for _ in range(6)]
        children += [child.fork() for child in children[:6]]
        for number, child in enumerate(children):
            child.areas[0].poke_each([(page, 8, number) for page in range(turn, 300, 5 + number)])
        work.check()
        for child in children:
            child.exit()
    merger.passes(2)
    assert merger.counts() == (300, 300, 0)
    work.check()


def test_a_frame_of_no_memory_is_refused(merger: Merger, guest: Guest) -> None:
    """What the kernel cannot take offline stays, with merging none the wiser."""
    merger["run"] = RUN
    with pytest.raises(GuestFileError) as refused:
        guest.write(f"{MEMORY}memory0/state", "offline", timeout=120)
    assert refused.value.errno in (errno.EBUSY, errno.EINVAL, errno.EPERM)


# One page; `f` on stdin prints its frame number, `r` its first byte.
MEMBER = """
import ctypes, mmap, struct, sys
memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(12)
memory[:] = sys.argv[1].encode() * 4096
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
while command := sys.stdin.buffer.raw.read(1):
    if command == b"f":
        with open("/proc/self/pagemap", "rb", 0) as pagemap:
            pagemap.seek(address // 4096 * 8)
            print("%016x" % (struct.unpack("Q", pagemap.read(8))[0] & ((1 << 55) - 1)), end="", flush=True)
    else:
        print(chr(memory[0]), end="", flush=True)
"""


def frame(member: Stream) -> int:
    member.write(b"f")
    return int(member.read(16), 16)


@pytest.fixture
def members(guest: Guest) -> Iterator[list[Stream]]:
    """Three processes that hold the same page, and one with another."""
    streams = [guest.spawn(["python3", "-c", MEMBER, letter]) for letter in "aaab"]
    yield streams
    for stream in streams:
        stream.kill()


def prepare_poison(guest: Guest, *, early: int) -> None:
    guest.run(["modprobe", "hwpoison-inject"])
    guest.run(["sh", "-c", "mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug"])
    guest.write("/proc/sys/vm/memory_failure_early_kill", str(early))


def poison(guest: Guest, frame: int) -> None:
    """Let a page frame fail."""
    guest.write("/sys/kernel/debug/hwpoison/corrupt-pfn", f"{frame:#x}")


# The pages that fail stay lost: in a guest of their own.
@pytest.mark.guest(memory_mib=768, cpus=2)
@pytest.mark.parametrize("early", [0, 1])
def test_memory_failure_reaches_who_shares_the_page(
    merger: Merger, guest: Guest, members: list[Stream], early: int
) -> None:
    if (
        " collect_procs_ksm"
        not in guest.run(["grep", "-m1", " collect_procs_ksm$", "/proc/kallsyms"], check=False).text
    ):
        pytest.skip("this kernel's memory failure leaves merged pages alone")
    *sharers, other = members
    merger["run"] = RUN
    deadline = time.monotonic() + 60
    while len({frame(member) for member in sharers}) > 1:
        assert time.monotonic() < deadline, "the three pages do not merge"
    prepare_poison(guest, early=early)
    poison(guest, frame(sharers[0]))
    if not early:
        for member in sharers:
            assert member.running
            member.write(b"r")
    assert [member.wait() for member in sharers] == 3 * [-SIGBUS]
    other.write(b"r")
    assert other.read(1) == b"b"
    merger.passes(2)
    assert merger.counts() == (0, 0, 0)
