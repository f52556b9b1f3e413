# SPDX-License-Identifier: MIT
"""Domains that somebody chose, judged by the frames that processes map: who may choose, and how long it lasts."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.inguest import domains as program
from harness.ksm.inguest.domains import ADMINISTRATOR, number_of
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Process
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, SAMEPAGE, Merger
from tests.guest.ksm.inguest import InGuest
from tests.guest.ksm.test_domains import CGROUPS, KEY, PAGES, become, cgroups, fill, shared_frames

pytestmark = pytest.mark.guest(memory_mib=768, cpus=2)
__all__ = ["cgroups"]

PROGRAM = "/run/domains.py"
PRCTL, PR_SET_DUMPABLE = 157, 4
UNSHARE, CLONE_NEWUSER = 272, 0x10000000
NO_ADMINISTRATOR = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]


class Chooser(InGuest):
    """Chooses domains in the guest, by `set` and `clear`, as root or as somebody else."""

    def listed(self) -> dict[tuple[str, int, int], int]:
        """Return how many pages are shared in each domain, by what made it, whose it is, and its number."""
        lines = json.loads(self("list"))
        return {(line["by"], line["who"], line["name"]): line["sharing"] for line in lines}


@pytest.fixture
def choose(merger: Merger, guest: Guest) -> Iterator[Chooser]:
    """The policy is `explicit`."""
    guest.write(SAMEPAGE + "domain_by", "explicit")
    yield Chooser(guest, program)
    if guest.running and merger.in_force:
        guest.write(SAMEPAGE + "domain_by", "user")


def users(work: MemWork, uid: int, count: int = 1) -> list[Process]:
    """Processes of a user who may change them, all with the same pages."""
    processes = [fill(work.process()) for _ in range(count)]
    for process in processes:
        become(process, uid)
        process.syscall(PRCTL, PR_SET_DUMPABLE, 1, 0, 0, 0)
    return processes


def together(guest: Guest, merger: Merger, *groups: list[Process]) -> None:
    """Each group, and nobody else, shares all of its frames once the scanner has come by."""
    merger["run"] = RUN
    merger.passes(4)
    for number, group in enumerate(groups):
        if len(group) > 1:
            assert shared_frames(guest, *group) == PAGES
        for other in groups[:number]:
            assert shared_frames(guest, group[0], other[0]) == 0


def test_a_choice_parts_and_joins(merger: Merger, guest: Guest, work: MemWork, choose: Chooser) -> None:
    first, second, other = users(work, 1001, 3)
    together(guest, merger, [first, second, other])
    choose("set", first.pid, 5, uid=1001)
    choose("set", second.pid, 5, uid=1001)
    together(guest, merger, [first, second], [other])
    assert choose.listed() == {("explicit", 1001, 5): PAGES, ("user", 1001, 0): 0}
    choose("set", second.pid, 6, uid=1001)
    together(guest, merger, [first], [second], [other])
    choose("clear", second.pid, uid=1001)
    together(guest, merger, [first], [second, other])
    choose("clear", second.pid, uid=1001, refused=errno.ENOENT)
    merger.check()
    work.check()


def test_names_are_each_user_s_own(merger: Merger, guest: Guest, work: MemWork, choose: Chooser) -> None:
    """No choice of theirs joins users. An administrator's does, and does not join what they chose."""
    one, other, joined, also = users(work, 1001)[0], users(work, 1002)[0], users(work, 1003)[0], users(work, 1004)[0]
    choose("set", one.pid, "web", uid=1001)
    choose("set", other.pid, "web", uid=1002)
    choose("set", joined.pid, "web")
    choose("set", also.pid, "web")
    together(guest, merger, [one], [other], [joined, also])
    web = number_of("web")
    assert choose.listed() == {
        ("explicit", 1001, web): 0,
        ("explicit", 1002, web): 0,
        ("explicit", ADMINISTRATOR, web): PAGES,
    }
    # What an administrator said stays.
    choose("set", joined.pid, 7, uid=1003, refused=errno.EPERM)
    choose("clear", joined.pid, uid=1003, refused=errno.EPERM)
    together(guest, merger, [one], [other], [joined, also])
    choose("clear", joined.pid)
    choose("set", joined.pid, 7, uid=1003)
    together(guest, merger, [joined], [also])
    merger.check()
    work.check()


def test_who_may_choose(merger: Merger, guest: Guest, work: MemWork, choose: Chooser) -> None:
    mine, theirs, sealed = users(work, 1001)[0], users(work, 1002)[0], users(work, 1001)[0]
    sealed.syscall(PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0)
    before = choose.listed()
    for pid, error in ((theirs.pid, errno.EACCES), (sealed.pid, errno.EACCES), (1, errno.EACCES), (2, errno.ESRCH)):
        choose("set", pid, 5, uid=1001, refused=error)
        choose("clear", pid, uid=1001, refused=error)
    # Root of a user namespace of one's own is no administrator, and stays the user that it is outside.
    cells = "import os, sys; sys.path.insert(0, '/run'); import domains; domains.set_domain((0, int(sys.argv[1])), 5)"
    unshare = ["setpriv", "--reuid=1001", "--clear-groups", "unshare", "--user", "--map-root-user"]
    guest.run([*unshare, "python3", "-c", cells, "0"])
    refused = guest.run([*unshare, "python3", "-c", cells, str(theirs.pid)], check=False)
    assert b"PermissionError" in refused.stderr
    ruled = guest.run([*unshare, "python3", PROGRAM, "set", CGROUPS, "5"], check=False)
    assert ruled.stderr.decode().strip().endswith(f"({errno.EPERM})")
    together(guest, merger, [mine, sealed], [theirs])
    assert choose.listed().keys() == before.keys() | {("user", 1001, 0), ("user", 1002, 0)}


def test_cgroups(merger: Merger, guest: Guest, work: MemWork, choose: Chooser, cgroups: list[str]) -> None:
    """The nearest cgroup with a rule counts, for every user in it, and before what they choose."""
    x, y, z = (users(work, 1001 + number)[0] for number in range(3))
    for process, cgroup in zip((x, y, z), cgroups, strict=True):
        guest.write(f"{cgroup}/cgroup.procs", str(process.pid))
    choose("set", f"{CGROUPS}/a", "a", uid=1001, refused=errno.EPERM)
    choose("clear", f"{CGROUPS}/a", refused=errno.ENOENT)
    together(guest, merger, [x], [y], [z])
    choose("set", f"{CGROUPS}/a", "a")
    together(guest, merger, [x, y], [z])
    assert choose.listed() == {("explicit", ADMINISTRATOR, number_of("a")): PAGES, ("user", 1003, 0): 0}
    choose("set", y.pid, 5, uid=1002)
    together(guest, merger, [x, y], [z])
    choose("set", cgroups[1], "y")
    together(guest, merger, [x], [y], [z])
    choose("set", z.pid, "y")
    together(guest, merger, [x], [y, z])
    guest.write(f"{cgroups[0]}/cgroup.procs", str(z.pid))
    together(guest, merger, [x], [y, z])
    choose("clear", z.pid)
    together(guest, merger, [x, z], [y])
    choose("clear", cgroups[1])
    together(guest, merger, [x, y, z])
    choose("clear", f"{CGROUPS}/a")
    together(guest, merger, [x], [y], [z])
    assert ("explicit", 1002, 5) in choose.listed(), "what y's owner said counts now"
    choose("set", cgroups[1], "y")  # left to a cgroup that will be removed
    merger.check()
    work.check()
    for process in list(work.processes):
        process.exit()


def test_fork_takes_it_along_and_exec_does_not(merger: Merger, guest: Guest, work: MemWork, choose: Chooser) -> None:
    parent, plain = users(work, 1001, 2)
    choose("set", parent.pid, 5, uid=1001)
    child = parent.fork()
    together(guest, merger, [parent, child], [plain])
    grandchild = child.fork()
    choose("clear", child.pid, uid=1001)
    together(guest, merger, [parent, grandchild], [child, plain])
    for process in (parent, child, grandchild):
        process.merge_any()
    parent.exec()
    fill(parent)
    together(guest, merger, [parent, child, plain], [grandchild])
    merger.check()
    work.check()


def test_a_process_that_has_nothing_to_merge_yet(merger: Merger, guest: Guest, work: MemWork, choose: Chooser) -> None:
    """Its choice lasts while passes go by, its children have it, and by none of this it merges anything."""
    other = fill(work.process())
    early = work.process()
    choose("set", early.pid, 5)
    early.map(pages=PAGES, merge=False).fill(Kind.FILLED, KEY, step=1)
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (0, 0, 0)
    child = early.fork()
    early.areas.clear()
    child.areas.clear()
    fill(early)
    fill(child)
    together(guest, merger, [early, child], [other])
    merger.check()


def test_who_becomes_another_user_joins_nobody(merger: Merger, guest: Guest, work: MemWork, choose: Chooser) -> None:
    mine, theirs = users(work, 1001)[0], users(work, 1002)[0]
    # Of root that is no administrator: who may change users, and gives a number as any user does.
    changing = fill(work.process())
    guest.run([*NO_ADMINISTRATOR, "python3", PROGRAM, "set", str(changing.pid), "5"])
    for process, uid in ((mine, 1001), (theirs, 1002)):
        choose("set", process.pid, 5, uid=uid)
    together(guest, merger, [mine], [theirs], [changing])
    assert choose.listed() == {("explicit", uid, 5): 0 for uid in (0, 1001, 1002)}
    become(changing, 1002)
    together(guest, merger, [mine], [theirs, changing])
    merger.check()
    work.check()


def test_who_may_change_all_but_is_no_administrator_joins_nobody(
    merger: Merger, guest: Guest, work: MemWork, choose: Chooser
) -> None:
    """CAP_SYS_PTRACE lets one choose for others, among the numbers of each of them."""
    one, other = users(work, 1001)[0], users(work, 1002)[0]
    for process in (one, other):
        guest.run([*NO_ADMINISTRATOR, "python3", PROGRAM, "set", str(process.pid), "5"])
    together(guest, merger, [one], [other])
    assert choose.listed() == {("explicit", uid, 5): 0 for uid in (1001, 1002)}
    ruled = guest.run([*NO_ADMINISTRATOR, "python3", PROGRAM, "set", CGROUPS, "5"], check=False)
    assert ruled.stderr.decode().strip().endswith(f"({errno.EPERM})")


def test_user_namespaces_are_apart(merger: Merger, guest: Guest, work: MemWork, choose: Chooser) -> None:
    """The same user and the same number, but in a namespace of its own."""
    first, second, inside = users(work, 1001, 3)
    inside.syscall(UNSHARE, CLONE_NEWUSER)
    inside.syscall(PRCTL, PR_SET_DUMPABLE, 1, 0, 0, 0)
    for process in (first, second):
        choose("set", process.pid, 5, uid=1001)
    choose("set", inside.pid, 5, uid=1001)
    together(guest, merger, [first, second], [inside])


def test_policies_come_and_go(merger: Merger, guest: Guest, work: MemWork, choose: Chooser) -> None:
    first, second = users(work, 1001, 2)
    guest.write(SAMEPAGE + "domain_by", "user")
    choose("set", first.pid, 5, uid=1001)
    together(guest, merger, [first, second])
    guest.write(SAMEPAGE + "domain_by", "explicit")
    assert merger["pages_sharing"] == 0, "what may be shared no more is shared no more when the write returns"
    together(guest, merger, [first], [second])
    guest.write(SAMEPAGE + "domain_by", "none")
    together(guest, merger, [first, second])
    guest.write(SAMEPAGE + "domain_by", "explicit")
    together(guest, merger, [first], [second])
    work.check()


def test_many_choices_and_exits(merger: Merger, guest: Guest, work: MemWork, choose: Chooser) -> None:
    """Each process in a domain of its own; when they are gone, so are the domains."""
    processes = users(work, 1001, 20)
    pids = ",".join(str(process.pid) for process in processes)
    script = f"""
import sys; sys.path.insert(0, "/run"); import domains
for number, pid in enumerate(({pids})): domains.set_domain((0, pid), number)
"""
    guest.run(["setpriv", "--reuid=1001", "--clear-groups", "python3", "-c", script])
    together(guest, merger, *([process] for process in processes[:4]))
    assert merger.counts() == (0, 0, 0)
    assert choose.listed() == {("explicit", 1001, number): 0 for number in range(20)}
    merger.check()
    for process in list(work.processes):
        process.exit()
    deadline = time.monotonic() + 60
    while choose.listed():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_choosing_without_end_keeps_nobody_from_merging(
    merger: Merger, guest: Guest, work: MemWork, choose: Chooser
) -> None:
    """One process is given a new number all the time, and forks meanwhile."""
    busy = users(work, 1001)[0]
    script = f"""
import sys; sys.path.insert(0, "/run"); import domains
number = 0
while True:
    number += 1
    domains.set_domain((0, {busy.pid}), number)
    if number % 3 == 0: domains.clear_domain((0, {busy.pid}))
"""
    endless = guest.spawn(["setpriv", "--reuid=1001", "--clear-groups", "python3", "-c", script])
    first, second = users(work, 1002, 2)
    together(guest, merger, [first, second])
    for _ in range(5):
        busy.fork().exit()
    endless.kill()
    merger.check()
    work.check()


def test_unload_ends_all_choices(
    merger: Merger, guest: Guest, module: BuiltModule, work: MemWork, choose: Chooser, cgroups: list[str]
) -> None:
    first, second, third = users(work, 1001, 3)
    empty = work.process()
    choose("set", first.pid, 5, uid=1001)
    choose("set", empty.pid, 5)
    choose("set", cgroups[0], "x")
    guest.write(f"{cgroups[0]}/cgroup.procs", str(third.pid))
    together(guest, merger, [first], [second], [third])
    guest.rmmod("samepage")
    work.check()
    guest.insmod(module.ko)
    assert guest.read(SAMEPAGE + "domain_by") == "user"
    guest.write(SAMEPAGE + "domain_by", "explicit")
    merger.hurry()
    together(guest, merger, [first, second, third])
    assert choose.listed() == {("user", 1001, 0): 2 * PAGES}
    choose("set", first.pid, 5, uid=1001)
    together(guest, merger, [first], [second, third])
    merger.check()
    for process in list(work.processes):
        process.exit()


BAD = r"""
import ctypes, errno, fcntl, os, struct, sys
DOMAIN = struct.Struct("=IIQQ")
SET, CLEAR = (1 << 30 | DOMAIN.size << 16 | ord("m") << 8 | number for number in (0x51, 0x52))
device = os.open("/dev/samepage", os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
pid, cgroup = int(sys.argv[1]), int(sys.argv[2])
TOP = (1 << 64) - 1
def expect(error, request, argument):
    try:
        fcntl.ioctl(device, request, argument)
        got = 0
    except OSError as raised:
        got = raised.errno
    assert got == error, (got, error, hex(request), argument)
def fields(whose=0, reserved=0, id=pid, name=0):
    return DOMAIN.pack(whose, reserved, id, name)
for request in (SET, CLEAR):
    for whose in (2, 3, 1 << 31, (1 << 32) - 1):
        expect(errno.EINVAL, request, fields(whose))
        expect(errno.EINVAL, request, fields(whose, id=cgroup))
    for reserved in (1, 1 << 31):
        expect(errno.EINVAL, request, fields(reserved=reserved))
        expect(errno.EINVAL, request, fields(1, reserved, cgroup))
    for id in (1 << 31, 1 << 32, 1 << 32 | pid, TOP):
        expect(errno.EINVAL, request, fields(id=id))
    for id in (1 << 22, (1 << 31) - 1, 2):
        expect(errno.ESRCH, request, fields(id=id))
    for id in (0, 1 << 40, TOP, cgroup | 1 << 63):
        expect(errno.ENOENT, request, fields(1, id=id))
    for bad in (request ^ 1 << 30, request ^ 1 << 16, request ^ 1 << 31, request ^ 0x80, request + 0x10):
        expect(errno.ENOTTY, bad, fields())
    for address in (0, 8, 1 << 47, TOP - 8):
        assert libc.ioctl(device, ctypes.c_ulong(request), ctypes.c_ulong(address)) == -1
        assert ctypes.get_errno() == errno.EFAULT
expect(errno.EINVAL, CLEAR, fields(name=1))
expect(errno.EINVAL, CLEAR, fields(1, id=cgroup, name=1))
expect(errno.ENOENT, CLEAR, fields(id=0))
"""


def test_bad_arguments_change_nothing(
    merger: Merger, guest: Guest, work: MemWork, choose: Chooser, cgroups: list[str]
) -> None:
    first, second, ruled = users(work, 1001, 3)
    choose("set", first.pid, 5)
    choose("set", cgroups[0], "x")
    guest.write(f"{cgroups[0]}/cgroup.procs", str(ruled.pid))
    inode = guest.run(["stat", "-c", "%i", cgroups[0]]).text.strip()
    guest.run(["python3", "-c", BAD, str(first.pid), inode])
    together(guest, merger, [first], [second], [ruled])
    listed = choose.listed()
    assert set(listed) == {
        ("explicit", ADMINISTRATOR, 5),
        ("explicit", ADMINISTRATOR, number_of("x")),
        ("user", 1001, 0),
    }
    for process in list(work.processes):
        process.exit()
