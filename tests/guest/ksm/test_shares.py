# SPDX-License-Identifier: MIT
"""Turns, weights, limits, and cgroups that take no part: judged by the scanners' time, and by who gets merged."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.inguest import shares as program
from harness.ksm.inguest import why
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Process
from tests.guest.ksm.control import RUN, SAMEPAGE, Merger
from tests.guest.ksm.inguest import InGuest
from tests.guest.ksm.test_domains import CGROUPS, PAGES, become, cgroups, shared_frames
from tests.guest.ksm.test_why import Ask, ask

pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2)
__all__ = ["ask", "cgroups"]

SOON = """
import json, sys, time
from types import SimpleNamespace
sys.path.insert(0, "/run")
import shares, why
def read(name):
    with open("/sys/kernel/mm/ksm/" + name) as file:
        return int(file.read())
def write(name, value):
    with open("/sys/kernel/mm/ksm/" + name, "w") as file:
        file.write(str(value))
def tenants():
    found = {}
    for line in shares.tenants():
        found.setdefault(line["by"], []).append(SimpleNamespace(**line))
    return found
def until(true):
    ends = time.monotonic() + 120
    while not true():
        if time.monotonic() > ends:
            sys.exit("it did not come to pass")
passes = read("full_scans")
"""
"""What the host would be too slow to see is seen in the guest."""
BIG = 30_000
"""Pages that a scanner is busy with for a while."""
KEY = 67 << 40
FIRST, SECOND = 1001, 1002


@dataclass(frozen=True)
class Tenant:
    """A line of what the module lists."""

    by: str
    who: int
    processes: int
    weight: int
    percent: int
    excluded: int
    timing_safe: int
    held: int
    scan_ns: int


class Shares(InGuest):
    """Gives cgroups of the guest their shares, by `set` and `clear`; lists tenants."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest, program)
        InGuest(guest, why)

    def give(
        self, cgroup: str, weight: int = 100, percent: int = 0, excluded: bool = False, timing_safe: bool = False
    ) -> None:
        self("set", cgroup, weight, percent, int(excluded), int(timing_safe))

    def soon(self, script: str, *arguments: object) -> dict[str, float]:
        """Return the `answer` of a script in the guest that sees and acts within a millisecond."""
        line = ["python3", "-c", f"{SOON}{script}print(json.dumps(answer))", *map(str, arguments)]
        found: dict[str, float] = json.loads(self.guest.run(line, timeout=200).text)
        return found

    def tenants(self) -> list[Tenant]:
        return [Tenant(**line) for line in json.loads(self("list"))]

    def user(self, uid: int) -> Tenant:
        (tenant,) = [tenant for tenant in self.tenants() if (tenant.by, tenant.who) == ("user", uid)]
        return tenant

    def cgroup(self, path: str) -> Tenant:
        number = int(self.guest.run(["stat", "-c", "%i", path]).text)
        (tenant,) = [tenant for tenant in self.tenants() if (tenant.by, tenant.who) == ("cgroup", number)]
        return tenant


@pytest.fixture
def shares(merger: Merger, guest: Guest, work: MemWork, cgroups: list[str]) -> Iterator[Shares]:
    """Nothing is said of any cgroup at the end, and nobody is in them."""
    assert merger.in_force
    shares = Shares(guest)
    yield shares
    if guest.healthy:
        for process in list(work.processes):
            process.exit()
        for path in (CGROUPS, f"{CGROUPS}/a", *cgroups):
            guest.run(["python3", shares.path, "clear", path], check=False)


def fill(process: Process, pages: int = PAGES, key: int = 0) -> Process:
    process.map(pages=pages).fill(Kind.FILLED, KEY + (key << 20), step=1)
    return process


def unique(work: MemWork, uid: int, pages: int = BIG) -> Process:
    """A user's process that keeps the scanners busy and saves nothing."""
    process = fill(work.process(), pages, uid)
    become(process, uid)
    return process


def enter(guest: Guest, cgroup: str, *processes: Process) -> None:
    for process in processes:
        guest.write(f"{cgroup}/cgroup.procs", str(process.pid))


def twins(work: MemWork, uid: int) -> list[Process]:
    processes = [fill(work.process()) for _ in range(2)]
    for process in processes:
        become(process, uid)
    return processes


def until(true: Callable[[], bool], timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def test_small_tenants_do_not_wait_for_big_ones(
    merger: Merger, guest: Guest, work: MemWork, shares: Shares, cgroups: list[str]
) -> None:
    """One that may use a hundredth of a CPU takes ages for a pass. Meanwhile the others' pages are merged."""
    big = unique(work, FIRST)
    enter(guest, cgroups[0], big)
    # One of them is looked at in 15 ms of a fast machine's, which are 1.5 s at this share.
    bigs = [big, *(big.fork() for _ in range(15))]
    shares.give(cgroups[0], percent=1)
    merger["run"] = RUN
    until(lambda: shares.cgroup(cgroups[0]).held == 1)
    passes = merger["full_scans"]
    pair = twins(work, SECOND)
    until(lambda: shared_frames(guest, *pair) == PAGES)
    assert merger["full_scans"] == passes
    # And what they change is noticed, and merged anew.
    for process in pair:
        process.areas[0].fill(Kind.FILLED, KEY, step=1)
    until(lambda: shared_frames(guest, *pair) == PAGES)
    assert merger["full_scans"] == passes
    for process in bigs[1:]:
        process.exit()
    shares("clear", cgroups[0])
    merger.passes(2)
    merger.check()
    work.check()


HELD = """
pid, start, end = map(int, sys.argv[1:])
write("run", 1)
until(lambda: tenants()["cgroup"][0].held)
answer = why.why(pid, start, end)
"""


def check_limit(shares: Shares, cgroup: str) -> int:
    """It has a hundredth of a CPU, and no more. Returns how many ns it had."""
    began, before = time.monotonic(), shares.cgroup(cgroup).scan_ns
    time.sleep(4)
    spent = shares.cgroup(cgroup).scan_ns - before
    # A turn may end late, where the host runs something else.
    assert spent < (time.monotonic() - began) * 1e9 * 0.015 + 2e6
    return spent


def test_a_limit_is_kept(
    merger: Merger, guest: Guest, work: MemWork, shares: Shares, cgroups: list[str], ask: Ask
) -> None:
    big = unique(work, FIRST)
    enter(guest, cgroups[0], big)
    shares.give(cgroups[0], percent=1)
    area = big.areas[0]
    told = shares.soon(HELD, big.pid, area.address(), area.address(BIG))
    assert told["over_budget"] > BIG / 10, told
    assert sum(told.values()) == BIG
    assert check_limit(shares, cgroups[0]) > 0
    shares.give(cgroups[0])
    merger.passes(3)
    assert ask(area) == {"unique": BIG}


BEG = """
import errno, sys
sys.path.insert(0, "/run")
import shares
cgroup = shares.cgroup_id(sys.argv[1])
while True:
    for ask in (shares.set_share, shares.clear_share):
        try:
            ask(cgroup)
        except OSError as error:
            assert error.errno == errno.EPERM
"""


def test_who_is_refused_lifts_no_limit(
    merger: Merger, guest: Guest, work: MemWork, shares: Shares, cgroups: list[str]
) -> None:
    """A change of shares forgives what tenants have had too much; its mere request, by one of them, must not."""
    big = unique(work, FIRST)
    enter(guest, cgroups[0], big)
    shares.give(cgroups[0], percent=1)
    merger["run"] = RUN
    until(lambda: shares.cgroup(cgroups[0]).held == 1)
    beggar = guest.spawn(["setpriv", f"--reuid={FIRST}", "--clear-groups", "python3", "-c", BEG, cgroups[0]])
    check_limit(shares, cgroups[0])
    assert beggar.running
    beggar.kill()
    assert beggar.wait() == -9
    shares.give(cgroups[0])
    merger.passes(2)
    merger.check()


BUSY = """
def had():
    return {one.weight: one.scan_ns for one in tenants()["cgroup"]}
write("run", 1)
until(lambda: read("full_scans") == passes + 1)
before, ratios = had(), []
def over():
    now = had()
    less, more = (now[weight] - before[weight] for weight in (100, 300))
    if less > 8e6:
        ratios.append(more / less)
    return less > 24e6
until(over)
answer = {"ratio": sorted(ratios)[len(ratios) // 2], "passes": read("full_scans") - passes}
"""


def test_weights(merger: Merger, guest: Guest, work: MemWork, shares: Shares, cgroups: list[str]) -> None:
    """In the second pass there is much to merge for both.

    What the host takes away in the middle of a turn, 15 ms now and then, counts as that tenant's; the other one gets as
    much in its turns after that. So it is the median that is judged.
    """
    for uid, cgroup in ((FIRST, cgroups[0]), (SECOND, cgroups[2])):
        enter(guest, cgroup, *(fill(work.process(), 16_000, uid) for _ in range(2)))
    shares.give(cgroups[0], weight=300)
    shares.give(cgroups[2], weight=100)
    merger["pages_to_scan"] = 200
    had = shares.soon(BUSY)
    assert had["passes"] == 1, "both were busy all the time"
    assert 2.4 < had["ratio"] < 3.6
    work.check()


def test_who_takes_no_part(
    merger: Merger, guest: Guest, work: MemWork, shares: Shares, cgroups: list[str], ask: Ask
) -> None:
    pair = twins(work, FIRST)
    enter(guest, cgroups[1], *pair)
    merger["run"] = RUN
    merger.passes(4)
    assert shared_frames(guest, *pair) == PAGES
    # For all below it, too.
    shares.give(f"{CGROUPS}/a", excluded=True)
    merger.passes(1)
    assert shared_frames(guest, *pair) == 0
    assert merger.counts() == (0, 0, 0)
    child = pair[0].fork()
    merger.passes(3)
    assert shared_frames(guest, *pair) == 0
    assert ask(pair[0].areas[0]) == {"excluded": PAGES}
    assert shares.cgroup(f"{CGROUPS}/a").excluded == 1
    # Who is excluded is no reason for another policy to fail.
    guest.write(SAMEPAGE + "domain_by", "none")
    guest.write(SAMEPAGE + "domain_by", "user")
    pair[0].areas[0].poke(0, 8, 1)
    child.exit()
    work.check()
    # The nearest one counts.
    shares.give(cgroups[1])
    merger.passes(4)
    assert shared_frames(guest, *pair) == PAGES - 1
    merger.check()
    work.check()


def test_a_timing_safe_cgroup(merger: Merger, guest: Guest, work: MemWork, shares: Shares, cgroups: list[str]) -> None:
    """It is a domain of its own, whoever the user is: each idle page of it is a merged one, and no others are."""
    inside, outside = twins(work, FIRST), twins(work, FIRST)
    lone = fill(work.process(), key=1)
    become(lone, FIRST)
    stranger = fill(work.process(), key=2)
    become(stranger, FIRST)
    enter(guest, cgroups[1], *inside, lone)
    shares.give(f"{CGROUPS}/a", timing_safe=True)
    merger["run"] = RUN
    merger.passes(4)
    assert shared_frames(guest, *inside) == shared_frames(guest, *outside) == PAGES
    assert shared_frames(guest, *inside, *outside) == 2 * PAGES
    assert merger.counts() == (3 * PAGES, 2 * PAGES, 0)
    assert merger.samepage("kept") == 2 * PAGES
    assert shares.cgroup(f"{CGROUPS}/a").timing_safe == 1
    listed = guest.run(["cat", "/dev/samepage"]).text.splitlines()[1:]
    assert sorted((int(line.split()[3]), int(line.split()[-1])) for line in listed) == [(3, 0), (3, 1)]
    merger.check()
    work.check()
    # Where all are timing-safe, it is no domain of its own.
    merger.set_samepage("timing_safe", 1)
    merger.passes(4)
    assert shared_frames(guest, *inside, *outside) == PAGES
    assert merger.samepage("kept") == 3 * PAGES
    merger.set_samepage("timing_safe", 0)
    merger.passes(4)
    assert merger.samepage("kept") == 2 * PAGES
    shares("clear", f"{CGROUPS}/a")
    merger.passes(4)
    assert shared_frames(guest, *inside, *outside) == PAGES
    assert merger.samepage("kept") == 0
    # And where all is one domain.
    guest.write(SAMEPAGE + "domain_by", "none")
    shares.give(f"{CGROUPS}/a", timing_safe=True)
    merger.passes(4)
    assert merger.samepage("kept") == 2 * PAGES
    guest.write(SAMEPAGE + "domain_by", "user")
    merger.check()
    work.check()


def test_who_moves_is_another_tenant(
    merger: Merger, guest: Guest, work: MemWork, shares: Shares, cgroups: list[str]
) -> None:
    pair = [fill(work.process()) for _ in range(2)]
    merger["run"] = RUN
    merger.passes(2)
    assert shares.user(0).processes == 2
    become(pair[0], SECOND)
    merger.passes(1)
    assert (shares.user(0).processes, shares.user(SECOND).processes) == (1, 1)
    shares.give(cgroups[0], weight=7)
    enter(guest, cgroups[0], pair[1])
    merger.passes(1)
    assert {(tenant.by, tenant.who) for tenant in shares.tenants()} == {
        ("user", SECOND),
        ("cgroup", shares.cgroup(cgroups[0]).who),
    }
    assert shares.cgroup(cgroups[0]).weight == 7
    child = pair[1].fork()
    assert shares.cgroup(cgroups[0]).processes == 2
    child.exit()
    # With the cgroup goes what was said of it.
    pair[1].exit()
    guest.write(f"{CGROUPS}/cgroup.procs", str(pair[0].pid))
    merger.passes(1)
    assert [(tenant.by, tenant.who) for tenant in shares.tenants()] == [("user", SECOND)]
    guest.write(SAMEPAGE + "domain_by", "none")
    assert [tenant.by for tenant in shares.tenants()] == ["all"]
    guest.write(SAMEPAGE + "domain_by", "cgroup")
    assert [tenant.by for tenant in shares.tenants()] == ["user"]
    guest.write(SAMEPAGE + "domain_cgroup_level", "1")
    assert [tenant.by for tenant in shares.tenants()] == ["cgroup"]
    guest.write(SAMEPAGE + "domain_by", "user")
    guest.write(SAMEPAGE + "domain_cgroup_level", "0")
    merger.check()


def test_user_namespaces_make_no_tenants(merger: Merger, guest: Guest, shares: Shares) -> None:
    """Whoever makes one has no share more; where root makes them, each is a tenant."""
    child = (
        "import ctypes, mmap, time; m = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); "
        "m.write(b'x' * (1 << 20)); m.madvise(12); time.sleep(600)"
    )
    unshare = ["unshare", "--user", "--map-root-user"]
    user = ["setpriv", f"--reuid={FIRST}", "--clear-groups"]
    merger["run"] = RUN
    lines = [[*user, *unshare], [*user, *unshare, *unshare], unshare, unshare]
    programs = [guest.spawn([*line, "python3", "-c", child]) for line in lines]
    until(lambda: sum(tenant.processes for tenant in shares.tenants()) == 4)
    found = sorted((tenant.by, tenant.processes) for tenant in shares.tenants())
    assert found == [("namespace", 1), ("namespace", 1), ("user", 2)]
    assert shares.user(FIRST).processes == 2
    for one in programs:
        one.kill()
        one.wait()


@pytest.mark.parametrize("threads", [1, 4])
def test_turns_under_churn(
    merger: Merger, guest: Guest, work: MemWork, shares: Shares, cgroups: list[str], threads: int
) -> None:
    """Spaces are set aside in their middle, change their tenants, fork and exit. Nothing is lost."""
    merger.set_samepage("threads", threads)
    for uid in (FIRST, SECOND):
        unique(work, uid, 8000)
    pairs = [[fill(work.process()) for _ in range(2)] for _ in range(3)]
    merger["run"] = RUN
    for turn in range(12):
        pair = pairs[turn % 3]
        child = pair[0].fork()
        enter(guest, cgroups[turn % 3], pair[1])
        shares.give(cgroups[turn % 3], weight=1 + 50 * turn, percent=turn % 4 * 20)
        pair[1].areas[0].fill(Kind.FILLED, KEY + turn, step=1)
        become(child, 1010 + turn)
        child.areas[0].poke_each([(page, 16, turn) for page in range(0, PAGES, 7)])
        if turn % 3 == 2:
            merger.check()
            work.check()
        child.exit()
    for cgroup in cgroups:
        shares("clear", cgroup)
    merger.passes(2, timeout=120)
    merger.check()
    work.check()
    merger.set_samepage("threads", 1)


BAD = r"""
import ctypes, errno, fcntl, os, struct, sys
SHARE = struct.Struct("=QIIII")
SET, CLEAR = (1 << 30 | SHARE.size << 16 | ord("m") << 8 | number for number in (0x53, 0x54))
cgroup = int(sys.argv[1])
device = os.open("/dev/samepage", os.O_RDONLY)
def expect(error, request, *fields):
    try:
        fcntl.ioctl(device, request, SHARE.pack(*fields))
    except OSError as caught:
        assert caught.errno == error, (caught, fields)
    else:
        raise AssertionError(fields)
BIG = (1 << 32) - 1
for weight in (0, 10001, 65636, BIG):
    expect(errno.EINVAL, SET, cgroup, weight, 0, 0, 0)
for percent in (1601, 65536, BIG):
    expect(errno.EINVAL, SET, cgroup, 100, percent, 0, 0)
for excluded in (2, 256, BIG):
    expect(errno.EINVAL, SET, cgroup, 100, 0, excluded, 0)
for timing_safe in (2, 256, BIG):
    expect(errno.EINVAL, SET, cgroup, 100, 0, 0, timing_safe)
for fields in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)):
    expect(errno.EINVAL, CLEAR, cgroup, *fields)
for id in (0, 1 << 40, (1 << 64) - 1):
    expect(errno.ENOENT, SET, id, 100, 0, 0, 0)
    expect(errno.ENOENT, CLEAR, id, 0, 0, 0, 0)
expect(errno.ENOENT, CLEAR, cgroup, 0, 0, 0, 0)
libc = ctypes.CDLL(None, use_errno=True)
for request in (SET, CLEAR):
    for address in (0, 8, 1 << 47, (1 << 64) - 8):
        assert libc.ioctl(device, ctypes.c_ulong(request), ctypes.c_ulong(address)) == -1
        assert ctypes.get_errno() == errno.EFAULT
os.seteuid(1001)
expect(errno.EPERM, SET, cgroup, 100, 0, 0, 0)
expect(errno.EPERM, CLEAR, cgroup, 0, 0, 0, 0)
"""


def test_bad_arguments_change_nothing(
    merger: Merger, guest: Guest, work: MemWork, shares: Shares, cgroups: list[str]
) -> None:
    pair = twins(work, FIRST)
    enter(guest, cgroups[0], *pair)
    guest.run(["python3", "-c", BAD, guest.run(["stat", "-c", "%i", cgroups[0]]).text.strip()])
    shares("set", cgroups[0], 100, 0, 0, 0, uid=FIRST, refused=errno.EPERM)
    merger["run"] = RUN
    merger.passes(4)
    assert shared_frames(guest, *pair) == PAGES
    assert [(tenant.by, tenant.who, tenant.weight) for tenant in shares.tenants()] == [("user", FIRST, 100)]
    unreadable = guest.run(
        ["setpriv", f"--reuid={FIRST}", "--clear-groups", "python3", shares.path, "list"], check=False
    ).stderr.decode()
    assert unreadable.strip().endswith(f"({errno.EACCES})")
