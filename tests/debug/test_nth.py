# SPDX-License-Identifier: MIT
"""What processes ask the module for, and loading it: the first allocation fails, then the second, and so on.

By /proc/self/fail-nth, which counts every allocation of a task, the kernel's own among them
(https://docs.kernel.org/fault-injection/fault-injection.html).
"""

from __future__ import annotations

import errno
import json
import random

import pytest

from harness.guest.faults import count_all
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.inguest import contents, domains, shares, why
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, Merger
from tests.guest.ksm.inguest import InGuest

PAGES = 300
KEY = 69 << 40
LOADS = 8
"""At so many allocations of loading, chosen at random, one fails."""
MOST = 400
"""Of one request."""
TOLD = "page allocation failure|vmalloc error|kobject_add_internal failed|WARNING: .* kernel/jump_label.c"
"""What the kernel says of some allocations that fail, of its own for a module's static keys among them."""
FAILED = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *words):
    if libc.syscall(number, *words) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def failed(number, do):
    '''Let the number-th allocation fail; return how many more it would have been, and the errno of the request.'''
    code = 0
    nth = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
    os.pwrite(nth, str(number).encode(), 0)
    try:
        do()
    except OSError as error:
        code = error.errno
    left = int(os.pread(nth, 20, 0).rstrip(b"\\0\\n"))
    os.pwrite(nth, b"0", 0)
    os.close(nth)
    return left, code
"""
PROGRAM = f"""
{FAILED}
sys.path.insert(0, "/run")
import contents, domains, shares, why

def put(name, value):
    file = os.open("/sys/kernel/mm/" + name, os.O_WRONLY)
    try:
        os.write(file, value.encode())
    finally:
        os.close(file)

def get(path):
    with open(path) as file:
        file.read()

def registering():
    call(157, 67, 1, 0, 0, 0)

def nothing():
    pass

def forget(do):
    try:
        do()
    except OSError:
        pass  # there was nothing to undo

me = domains.PROCESS, os.getpid()
os.makedirs("/sys/fs/cgroup/nth", exist_ok=True)
group = shares.cgroup_id("/sys/fs/cgroup/nth")
do, undo = {{
    "threads": (lambda: put("samepage/threads", "3"), lambda: put("samepage/threads", "1")),
    "unmerge": (lambda: put("ksm/run", "2"), lambda: put("ksm/run", "1")),
    "policy": (lambda: put("samepage/domain_by", "none"), lambda: put("samepage/domain_by", "user")),
    "timing": (lambda: put("samepage/timing_safe", "1"), lambda: put("samepage/timing_safe", "0")),
    "reserve": (lambda: put("samepage/reserve_percent", "50"), lambda: put("samepage/reserve_percent", "0")),
    "share contents": (lambda: contents.share(["/run/contents.py"]), contents.clear),
    "clear contents": (contents.clear, lambda: contents.share(["/run/contents.py"])),
    "domain": (lambda: domains.set_domain(me, "nth"), lambda: forget(lambda: domains.clear_domain(me))),
    "share": (lambda: shares.set_share(group, 200), lambda: forget(lambda: shares.clear_share(group))),
    "register": (registering, nothing),
    "list": (lambda: get("/dev/samepage"), nothing),
    "tenants": (lambda: get(shares.TENANTS), nothing),
    "why": (lambda: why.why(0), nothing),
}}[sys.argv[1]]

def one(number):
    '''In a process of its own for what a process does once.'''
    if sys.argv[1] != "register":
        result = failed(number, do)
        undo()
        return result
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, json.dumps(failed(number, do)).encode())
        os._exit(0)
    os.close(writer)
    result = os.read(reader, 100)
    os.close(reader)
    os.waitpid(child, 0)
    return json.loads(result)

undo()
codes = []
for number in range(1, {MOST}):
    left, code = one(number)
    if left:
        break
    codes.append(code)
print(json.dumps([codes, code]))
"""
LOAD = f"""
{FAILED}
ko = os.open(sys.argv[1], os.O_RDONLY)
print(*failed(int(sys.argv[2]), lambda: call(313, ko, b"", 0)))
"""

pytestmark = [pytest.mark.guest(memory_mib=512, cpus=2), pytest.mark.usefixtures("watches_memory")]


@pytest.mark.parametrize(
    "what",
    [
        *("threads", "unmerge", "policy", "timing", "reserve", "share contents", "clear contents", "domain", "share"),
        *("register", "list", "tenants", "why"),
    ],
)
def test_each_allocation_fails(guest: Guest, merger: Merger, work: MemWork, what: str) -> None:
    for number in range(3):
        area = work.process().map(pages=PAGES)
        area.fill(Kind.FILLED, KEY, step=1, pages=range(200))
        area.fill(Kind.FILLED, KEY + (number + 1 << 20), step=1, pages=range(200, PAGES))
    merger.merge(work)
    for program in (contents, domains, shares, why):
        InGuest(guest, program)
    count_all(guest)
    with guest.log.allow(TOLD):
        codes, last = json.loads(guest.run(["python3", "-c", PROGRAM, what], timeout=600).text)
    assert 0 < len(codes) < MOST - 1, "each was failed, to the last"
    assert set(codes) <= {0, errno.ENOMEM}, codes
    assert last == 0, "with memory there is nothing to refuse"
    merger.check()
    work.check()
    merger["run"] = RUN
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()


def test_loading(guest: Guest, merger: Merger, module: BuiltModule, work: MemWork) -> None:
    """It is loaded or it is not, and in-tree merging goes on as before."""
    guest.rmmod(module.name)
    guest.put(module.ko.read_bytes(), "/run/samepage.ko")
    count_all(guest)
    chance = random.Random(5)

    def load(number: int) -> tuple[int, int]:
        with guest.log.allow(TOLD):
            left, code = map(int, guest.run(["python3", "-c", LOAD, "/run/samepage.ko", str(number)]).text.split())
        if code == 0:
            guest.rmmod(module.name)
        assert not merger.in_force
        return left, code

    left, code = load(1_000_000)
    assert code == 0
    total = 1_000_000 - left
    failed = 0
    for number in sorted(chance.sample(range(1, total + 1), LOADS)):
        left, code = load(number)
        failed += left == 0
        assert left == 0 or code == 0, "some loads make a few allocations less"
        assert code in (0, errno.ENOMEM, errno.ENOENT), f"allocation {number} of {total}: {code}"
    assert failed > LOADS // 2
    for _ in range(2):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.hurry()
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts()[:2] == (PAGES, PAGES), "in-tree merging works"
    guest.insmod(module.ko)
    merger.hurry()
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()
