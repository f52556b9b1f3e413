# SPDX-License-Identifier: MIT
"""Nonsense as requests to /dev/samepage: each is answered as a small model of it says; what is refused changes nothing.

`why` is in test_bad_input.py; what sensible requests do is in test_explicit.py, test_shares.py and test_contents.py.
"""

from __future__ import annotations

import errno
import json
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.inguest import contents, domains, shares
from harness.ksm.memwork import MemWork
from tests.guest.ksm.control import RUN, STOP, Merger

PAGES = 300
KEY = 73 << 40
NUMBER = 400
"""Of requests with fields at random."""
PAGE, TOP = 4096, 1 << 64
CGROUP = "/sys/fs/cgroup/bad-requests"
NOBODY = 65534
HELD, HOLE, AT_ONCE = 64, 16, 16384
"""Pages of the asking process: how many there are, which are not, and as many as one request may name."""
LAYOUTS = {
    domains._SET: domains._DOMAIN, domains._CLEAR: domains._DOMAIN,
    shares._SET: shares._SHARE, shares._CLEAR: shares._SHARE,
    contents._SHARE: contents._STRETCH, contents._CLEAR: struct.Struct(""),
}  # fmt: skip

Value = int | tuple[str, int]
"""A number, or one that the guest knows: ("base", offset in bytes), ("pid", 0), ("cgroup", 0)."""

PROGRAM = r"""
import ctypes, json, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
PAGE, TOP = 4096, 1 << 64
asked, held, hole, user, cgroup = json.load(sys.stdin)
files = [open(path, "rb", 0) for path in (
    "/sys/kernel/debug/samepage/tenants", "/dev/samepage", "/sys/kernel/mm/samepage/common_contents")]
base = libc.mmap(*map(ctypes.c_ulong, (0, held * PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, TOP - 1, 0)))
for page in range(held):
    ctypes.memset(base + page * PAGE, 100 + page, PAGE)
libc.munmap(ctypes.c_ulong(base + hole * PAGE), ctypes.c_ulong(PAGE))
known = {"base": base, "pid": os.getpid(), "cgroup": os.stat(cgroup).st_ino}
device = os.open("/dev/samepage", os.O_RDONLY)
place = ctypes.create_string_buffer(64)
def number(value):
    return (value if isinstance(value, int) else known[value[0]] + value[1]) % TOP
def state():
    # All but how long each tenant was looked at, and whether it waits now.
    tenants, listed, shared = (os.pread(file.fileno(), 1 << 16, 0) for file in files)
    return [line.split()[:-2] for line in tenants.splitlines()], listed, shared
def ask(request, form, fields, address):
    data = struct.pack(form, *map(number, fields)) if form is not None else b""
    ctypes.memmove(place, data, len(data))
    at = ctypes.addressof(place) if address is None else number(address)
    before = state()
    os.setresuid(user, user, 0)
    ctypes.set_errno(0)
    libc.ioctl(device, ctypes.c_ulong(request), ctypes.c_ulong(at))
    code = ctypes.get_errno()
    os.setresuid(0, 0, 0)
    return code, state() != before
json.dump([ask(*one) for one in asked], sys.stdout)
"""


@dataclass(frozen=True)
class Request:
    """One ioctl."""

    number: int
    fields: tuple[Value, ...] = ()
    address: Value | None = None
    """Of the fields, where it is not a sound one."""

    @property
    def line(self) -> tuple[Any, ...]:
        layout = LAYOUTS.get(self.number)
        return self.number, layout.format if layout and self.address is None else None, self.fields, self.address


@dataclass
class Model:
    """What the module has been told so far, and what it answers. Order of refusals: fields, permission, existence."""

    root: bool
    chosen: set[str] = field(default_factory=set)

    def answer(self, request: Request) -> set[int]:
        """Return the answers that are right; 0 of them is noted as done."""
        if request.number not in LAYOUTS:
            return {errno.ENOTTY}
        if request.address is not None:
            return {errno.EFAULT}
        if request.number == contents._CLEAR:
            return {0 if self.root else errno.EPERM}
        if request.number == contents._SHARE:
            return {self._contents(*request.fields)}
        kind = self._share if request.number in (shares._SET, shares._CLEAR) else self._domain
        return kind(request.number in (shares._SET, domains._SET), *request.fields)

    def _contents(self, start: Value, end: Value) -> int:
        if not self.root:
            return errno.EPERM
        relative = isinstance(start, tuple)
        first, last = (value if isinstance(value, int) else value[1] for value in (start, end))
        if first >= last or first % PAGE or last % PAGE:
            return errno.EINVAL
        if last - first > AT_ONCE * PAGE:
            return errno.E2BIG
        inside = relative and first >= 0 and last <= HELD * PAGE and not first <= HOLE * PAGE < last
        return 0 if inside else errno.EFAULT

    def _known(self, put: bool, name: str) -> int:
        if put:
            self.chosen.add(name)
            return 0
        found = name in self.chosen
        self.chosen.discard(name)
        return 0 if found else errno.ENOENT

    def _domain(self, put: bool, whose: Value, reserved: Value, id: Value, name: Value) -> set[int]:
        if reserved or (not put and name) or whose not in (0, 1):
            return {errno.EINVAL}
        if whose == 1:
            if not self.root:
                return {errno.EPERM}
            return {self._known(put, "cgroup's domain") if id == ("cgroup", 0) else errno.ENOENT}
        if id in (0, ("pid", 0)):
            return {self._known(put, "its own domain")}
        if isinstance(id, int) and id > 2**31 - 1:
            return {errno.EINVAL}
        return {errno.ESRCH} if id != 1 else {errno.EPERM, errno.EACCES}

    def _share(self, put: bool, cgroup: Value, weight: Value, percent: Value, excluded: Value, safe: Value) -> set[int]:
        numbers = [value for value in (weight, percent, excluded, safe) if isinstance(value, int)]
        limits = zip(numbers, (1, 0, 0, 0), (10000, 1600, 1, 1), strict=True)
        if not all(low <= value <= high for value, low, high in limits) if put else any(numbers):
            return {errno.EINVAL}
        if not self.root:
            return {errno.EPERM}
        return {self._known(put, "share") if cgroup == ("cgroup", 0) else errno.ENOENT}


def at_random(chance: random.Random, root: bool) -> Request:
    """Fields that are hardly what anybody means, and some that are."""
    wide = (0, 1 << 31, 1 << 32, 1 << 63, TOP - 1)
    small = (0, 0, 0, 1, 1, 2, 100, 1600, 1601, 10000, 10001, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
    number = chance.choice(list(LAYOUTS))
    if number == contents._CLEAR:
        return Request(number)
    if number == contents._SHARE:
        ends = (0, 1, PAGE - 1, PAGE, HOLE * PAGE, (HOLE + 1) * PAGE, HELD * PAGE, (AT_ONCE + 1) * PAGE)
        inside: Sequence[Value] = [("base", end) for end in ends]
        places = chance.choice([inside, inside, (0, PAGE, 1 << 63, TOP - PAGE)])
        return Request(number, (chance.choice(places), chance.choice(places)))
    group: Value = chance.choice([("cgroup", 0)] * 8 + [*wide])
    if number in (shares._SET, shares._CLEAR):
        return Request(number, (group, *(chance.choice(small) for _ in range(4))))
    # 1 is the guest's init: root may choose for it, and this is not about that. 2 is a thread of the kernel.
    pids: list[Value] = [0, ("pid", 0), 2, 1 << 22, (1 << 31) - 1, 1 << 31, 1 << 32, TOP - 1, *([] if root else [1])]
    whose = chance.choice((0, 0, 1, 1, 2, (1 << 32) - 1))
    names = (0, 0, 1, *wide)
    return Request(
        number, (whose, chance.choice((0, 0, 0, 1)), chance.choice(pids) if not whose else group, chance.choice(names))
    )


def twisted() -> list[Request]:
    """Numbers that are no request's, and addresses that hold none."""
    numbers = [number ^ 1 << bit for number in LAYOUTS for bit in range(32)]
    hole = HOLE * PAGE
    addresses: list[Value] = [0, 8, 1 << 47, 1 << 63, TOP - 8, TOP - PAGE, ("base", hole), ("base", hole - 8)]
    return [
        *(Request(number) for number in numbers if number not in LAYOUTS),
        *(Request(it, (), address) for it in LAYOUTS if it != contents._CLEAR for address in addresses),
    ]


def undone() -> list[Request]:
    """Whatever was accepted is taken back."""
    return [
        Request(domains._CLEAR, (0, 0, 0, 0)),
        Request(domains._CLEAR, (1, 0, ("cgroup", 0), 0)),
        Request(shares._CLEAR, (("cgroup", 0), 0, 0, 0, 0)),
        Request(contents._CLEAR),
    ]


@pytest.mark.parametrize("user", [0, NOBODY])
def test_requests(merger: Merger, guest: Guest, work: MemWork, user: int) -> None:
    chance, model = random.Random(user), Model(root=user == 0)
    for _ in range(2):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    merger["run"] = STOP
    guest.run(["mkdir", "-p", CGROUP])
    asked = [*twisted(), *(at_random(chance, model.root) for _ in range(NUMBER)), *undone()]
    sent = json.dumps([[request.line for request in asked], HELD, HOLE, user, CGROUP]).encode()
    answers = json.loads(guest.run(["python3", "-c", PROGRAM], stdin=sent, timeout=300).stdout)
    wrong = []
    for request, (code, changed) in zip(asked, answers, strict=True):
        right = model.answer(request)
        if code not in right or (code and changed):
            said = errno.errorcode.get(code, "accepted"), [errno.errorcode.get(it, "accepted") for it in right]
            wrong.append((request, *said, "it changed something" if changed else ""))
    assert wrong == []
    kinds = {code for code, _ in answers}
    refusals = {errno.EINVAL, errno.ENOTTY, errno.EFAULT, errno.ESRCH, errno.EPERM if user else errno.ENOENT}
    assert {0, *refusals} <= kinds
    shown = sum(1 for code, changed in answers if not code and changed)
    assert shown >= (3 if model.root else 1), "what is accepted shows"
    guest.run(["rmdir", CGROUP])
    merger["run"] = RUN
    merger.passes()
    assert merger.counts() == merger.expected(work)
    work.check()
    merger.check()
