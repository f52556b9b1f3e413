# SPDX-License-Identifier: MIT
"""Security domains: pages merge only within one, whatever processes become, and whatever the policy becomes."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Process, Syscall
from tests.guest.ksm.control import RUN, SAMEPAGE, UNMERGE, Merger

PAGES = 300
KEY = 47 << 40
CGROUPS = "/sys/fs/cgroup"

pytestmark = pytest.mark.guest(memory_mib=768, cpus=2)


@dataclass(frozen=True)
class Domain:
    """A line of /dev/samepage."""

    id: int
    by: str
    who: int
    processes: int
    shared: int
    sharing: int
    zero: int
    scan_ns: int
    copies: int
    profit: int
    name: int
    timing_safe: int


def domains(guest: Guest) -> dict[tuple[str, int], Domain]:
    head, *lines = guest.run(["cat", "/dev/samepage"]).text.splitlines()
    assert head.split() == list(Domain.__dataclass_fields__)
    found = []
    for line in lines:
        id_, by, *numbers = line.split()
        found.append(Domain(int(id_), by, *map(int, numbers)))
    return {(domain.by, domain.who): domain for domain in found}


@pytest.fixture(autouse=True)
def policy(merger: Merger, guest: Guest) -> Iterator[None]:
    yield
    if guest.running and merger.in_force:
        guest.write(SAMEPAGE + "domain_by", "user")
        guest.write(SAMEPAGE + "domain_cgroup_level", "0")


def become(process: Process, uid: int) -> None:
    process.syscall(Syscall.SETRESUID, uid, uid, uid)


def fill(process: Process) -> Process:
    process.map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    return process


def frames(guest: Guest, *processes: Process) -> list[list[int]]:
    """Return, for each of these processes, of any users, the frames of its areas' pages in order; 0: none."""
    program = """
import struct, sys
for argument in sys.argv[1:]:
    pid, *areas = argument.split(":")
    with open(f"/proc/{pid}/pagemap", "rb") as pagemap:
        for address, pages in zip(map(int, areas[::2]), map(int, areas[1::2])):
            pagemap.seek(address // 4096 * 8)
            for entry, in struct.iter_unpack("Q", pagemap.read(8 * pages)):
                print(entry & (1 << 55) - 1 if entry >> 63 else 0, end=" ")
    print()
"""
    where = [
        ":".join([str(process.pid), *(f"{area.address()}:{area.pages}" for area in process.areas)])
        for process in processes
    ]
    lines = guest.run(["python3", "-c", program, *where]).text.splitlines()
    return [[int(word) for word in line.split()] for line in lines]


def shared_frames(guest: Guest, *processes: Process) -> int:
    """How many frames more than one of these processes maps where its areas are."""
    mapped = Counter(frame for found in frames(guest, *processes) for frame in set(found) - {0})
    return sum(count > 1 for count in mapped.values())


def test_users_are_apart(merger: Merger, guest: Guest, work: MemWork) -> None:
    first, second, stranger = (fill(work.process()) for _ in range(3))
    become(first, 1001)
    become(second, 1001)
    become(stranger, 1002)
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (PAGES, PAGES, 0)
    assert shared_frames(guest, first, second) == PAGES
    assert shared_frames(guest, first, stranger) == shared_frames(guest, second, stranger) == 0
    listed = domains(guest)
    one, other = listed["user", 1001], listed["user", 1002]
    assert (one.processes, one.shared, one.sharing) == (2, PAGES, PAGES)
    assert (other.processes, other.shared, other.sharing) == (1, 0, 0)
    assert one.id != other.id
    assert one.scan_ns > 0
    assert one.profit > PAGES * 4096 / 2 > 0 > other.profit
    merger.check()
    work.check()
    first.areas[0].poke_each([(page, 8, 1) for page in range(100)])
    merger.passes(2)
    assert domains(guest)["user", 1001].copies == 100


def test_who_becomes_another_user_takes_nothing_along(merger: Merger, guest: Guest, work: MemWork) -> None:
    first, second = (fill(work.process()) for _ in range(2))
    merger["run"] = RUN
    merger.passes(4)
    assert shared_frames(guest, first, second) == PAGES
    child = first.fork()
    become(child, 1003)
    merger.passes(2)
    assert shared_frames(guest, first, second) == PAGES
    assert shared_frames(guest, first, child) == 0
    become(second, 1003)
    merger.passes(3)
    assert shared_frames(guest, first, second) == 0
    assert shared_frames(guest, child, second) == PAGES
    merger.check()
    work.check()


@pytest.fixture
def cgroups(guest: Guest) -> Iterator[list[str]]:
    """Three memory cgroups: a/x, a/y, b/z."""
    guest.write(f"{CGROUPS}/cgroup.subtree_control", "+memory")
    names = ["a", "b", "a/x", "a/y", "b/z"]
    for name in names[:2]:
        guest.run(["mkdir", f"{CGROUPS}/{name}"])
        guest.write(f"{CGROUPS}/{name}/cgroup.subtree_control", "+memory")
    for name in names[2:]:
        guest.run(["mkdir", f"{CGROUPS}/{name}"])
    yield [f"{CGROUPS}/{name}" for name in names[2:]]
    guest.run(
        [
            "sh",
            "-c",
            f"cd {CGROUPS}; for i in $(seq 100); do rmdir a/x a/y b/z a b; [ -d a ] || exit 0; sleep 0.1; done; exit 1",
        ]
    )


def test_cgroups_are_apart(merger: Merger, guest: Guest, work: MemWork, cgroups: list[str]) -> None:
    members = [fill(work.process()) for _ in range(3)]
    for process, cgroup in zip(members, cgroups, strict=True):
        guest.write(f"{cgroup}/cgroup.procs", str(process.pid))
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)
    guest.write(SAMEPAGE + "domain_by", "cgroup")
    assert merger.counts() == (0, 0, 0), "what may be shared no more is shared no more when the write returns"
    merger.passes(4)
    assert merger.counts() == (0, 0, 0)
    guest.write(SAMEPAGE + "domain_cgroup_level", "1")
    merger.passes(4)
    assert merger.counts() == (PAGES, PAGES, 0)
    assert shared_frames(guest, *members[:2]) == PAGES
    assert shared_frames(guest, members[0], members[2]) == shared_frames(guest, members[1], members[2]) == 0
    guest.write(f"{cgroups[0]}/cgroup.procs", str(members[2].pid))
    merger.passes(4)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)
    guest.write(SAMEPAGE + "domain_by", "none")
    merger.passes(4)
    assert merger.counts() == (PAGES, 2 * PAGES, 0)
    assert set(domains(guest)) == {("none", 0)}
    merger.check()
    work.check()
    for process in list(work.processes):
        process.exit()


def test_one_content_of_many_users(merger: Merger, guest: Guest, work: MemWork) -> None:
    """Equal pages of forty users: none meets another, and each user's own are merged."""
    for number in range(80):
        become(fill(work.process()), 2000 + number // 2)
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (40 * PAGES, 40 * PAGES, 0)
    listed = domains(guest)
    assert {listed["user", 2000 + user].sharing for user in range(40)} == {PAGES}
    merger.check()
    work.check()
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    for process in list(work.processes):
        process.exit()
    merger["run"] = RUN
    assert not [who for by, who in domains(guest) if by == "user" and who >= 2000]


@pytest.mark.parametrize("text", ["users", "user cgroup", "7", "explicitly"])
def test_no_other_policy(merger: Merger, guest: Guest, text: str) -> None:
    assert merger.in_force
    with pytest.raises(GuestFileError) as refused:
        guest.write(SAMEPAGE + "domain_by", text)
    assert refused.value.errno == errno.EINVAL
    assert guest.read(SAMEPAGE + "domain_by") == "user"


def test_nobody_but_root_may_look(merger: Merger, guest: Guest) -> None:
    assert merger.in_force
    for path in ("/dev/samepage", SAMEPAGE + "merges"):
        looked = guest.run(["setpriv", "--reuid=1001", "--clear-groups", "cat", path], check=False)
        assert looked.exit_code
        assert looked.stderr.split(b":")[-1].strip() in (b"Permission denied", b"Operation not permitted")


def test_sums_over_all_domains_are_for_root_where_there_are_several(merger: Merger, guest: Guest) -> None:
    """Who may read pages_sharing hears of what others merge."""

    def readable() -> list[str]:
        script = "cd /sys/kernel/mm/ksm; for file in *; do cat $file >/dev/null 2>&1 && echo $file; done"
        return guest.run(["setpriv", "--reuid=1001", "--clear-groups", "sh", "-c", script]).text.split()

    counters = {"pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "pages_scanned", "full_scans"}
    for policy in ("user", "none", "cgroup"):
        merger.guest.write(SAMEPAGE + "domain_by", policy)
        seen = set(readable())
        assert {"run", "pages_to_scan"} <= seen
        assert seen & counters == (counters if policy == "none" else set())
        assert merger.counts() == (0, 0, 0), "root reads them all"
