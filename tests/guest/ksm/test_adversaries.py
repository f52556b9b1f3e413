# SPDX-License-Identifier: MIT
"""A tenant that makes its memory dear to scan stays within its share: others are merged nearly as soon as without it.

How soon is told by the scanners' time from when merging begins until the victim's pages are merged: a clock that no
other work of the machine moves. Without turns (the whole machine is one tenant) the adversary has its way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness.guest.guest import Guest
from harness.guest.stream import Stream
from harness.ksm.memwork import MemWork
from tests.guest.ksm.control import RUN, STOP, UNMERGE, Merger
from tests.guest.ksm.test_domains import CGROUPS, PAGES, become, cgroups
from tests.guest.ksm.test_shares import Shares, fill, shares

pytestmark = [pytest.mark.guest(memory_mib=1280, cpus=2), pytest.mark.usefixtures("stock_kernel")]
__all__ = ["cgroups", "shares"]

ADVERSARY, VICTIM = 1001, 1002
PRELUDE = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
def area(pages):
    address = libc.mmap(None, pages << 12, 3, 0x4022, -1, 0)
    for advice in (15, 12):
        assert libc.madvise(address, pages << 12, advice) == 0
    return address
def write(address, number):
    ctypes.c_uint64.from_address(address).value = number
def wait():
    print("ready", flush=True)
    time.sleep(1000)
"""
ADVERSARIES = {
    # Much memory.
    "unique": """
at = area(40000)
for page in range(40000):
    write(at + (page << 12), page + 1)
wait()
""",
    # Contents with the same sample: each is read to its end, and compared.
    "looks alike": """
at, base = area(20000), os.urandom(4096)
for page in range(20000):
    ctypes.memmove(at + (page << 12), base, 4096)
    write(at + (page << 12) + page % 512 * 8, page + 1)
wait()
""",
    # Merged again and again, as it writes what has just been merged.
    "churn": """
at, base = area(24000), os.urandom(4096)
for page in range(24000):
    ctypes.memmove(at + (page << 12), base, 4096)
    write(at + (page << 12), page // 2 + 1)
print("ready", flush=True)
while True:
    for page in range(24000):
        write(at + (page << 12), page // 2 + 1)
    time.sleep(0.05)
""",
    # As many mappings as a process may have.
    "areas of a page": """
at = area(60000)
for page in range(60000):
    write(at + (page << 12), page + 1)
for page in range(0, 60000, 2):
    assert libc.mprotect(at + (page << 12), 4096, 1) == 0
wait()
""",
    # A page here and there, each with page tables of its own.
    "sparse": """
at = area(1 << 28)
for page in range(0, 1 << 28, 1 << 14):
    write(at + (page << 12), page + 1)
wait()
""",
}
UNTIL_MERGED = f"""
def merged(pid):
    with open(f"/proc/{{pid}}/ksm_merging_pages") as file:
        return int(file.read())
def had():
    return {{f"{{one.by}} {{one.who}}": one.scan_ns for kind in tenants().values() for one in kind}}
before = had()
write("run", 1)
until(lambda: sum(map(merged, sys.argv[1:])) >= {2 * PAGES})
answer = {{name: (ns - before.get(name, 0)) / 1e9 for name, ns in had().items()}}
write("run", 0)
"""


@dataclass(frozen=True)
class Took:
    """Seconds of scanning until the victim's pages were merged."""

    victim: float
    others: float

    @property
    def all(self) -> float:
        return self.victim + self.others


def victims(merger: Merger, guest: Guest, work: MemWork, shares: Shares) -> Took:
    """Let new processes of the victim's be merged, from none at all."""
    merger["run"] = STOP
    for process in list(work.processes):
        process.exit()
    pair = [fill(work.process(), PAGES) for _ in range(2)]
    for process in pair:
        become(process, VICTIM)
    merger["run"] = UNMERGE
    took = shares.soon(UNTIL_MERGED, *(process.pid for process in pair))
    work.check()
    own = took.get(f"user {VICTIM}", 0.0)
    return Took(own, sum(took.values()) - own)


def begin(guest: Guest, name: str) -> Stream:
    user = ["setpriv", f"--reuid={ADVERSARY}", "--clear-groups"]
    program = guest.spawn([*user, "python3", "-c", PRELUDE + ADVERSARIES[name]])
    assert program.read(5, timeout=120) == b"ready", program.stderr
    return program


@pytest.mark.parametrize("name", ADVERSARIES)
def test_it_stays_within_its_share(
    merger: Merger,
    guest: Guest,
    work: MemWork,
    shares: Shares,
    name: str,
    record_property: Callable[[str, object], None],
) -> None:
    alone = victims(merger, guest, work, shares)
    program = begin(guest, name)
    beside = victims(merger, guest, work, shares)
    # One rule for all there is makes one tenant.
    shares.give(CGROUPS)
    unfair = victims(merger, guest, work, shares)
    shares("clear", CGROUPS)
    program.kill()
    program.wait()
    merger["run"] = RUN
    merger.passes(2)
    for what, took in (("alone", alone), ("beside", beside), ("without turns", unfair)):
        print(f"{name}, {what}: victim {1e3 * took.victim:.1f} ms, others {1e3 * took.others:.1f} ms")
        record_property(what, took.all)
    # Three looks at the victim's pages, each of which may come after a turn and a batch of the other's.
    assert beside.others < 2 * beside.victim + 3 * 0.005
    assert unfair.all > 2 * beside.all
