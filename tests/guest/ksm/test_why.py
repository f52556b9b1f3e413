# SPDX-License-Identifier: MIT
"""The module says of each page why it is not merged: one test for each reason, and for who may ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.inguest import why as program
from harness.ksm.inguest.why import REASONS
from harness.ksm.machine import LOAD_KVM
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Advice, Area
from tests.guest.ksm.control import RUN, STOP, Merger
from tests.guest.ksm.test_domains import become
from tests.guest.ksm.test_parity_pins import Ring
from tests.guest.ksm.test_reclaim import zram

PAGES = 64
HUGE = 512
KEY = 53 << 40
PROGRAM = "/run/why.py"
KVM_CREATE_VM = 0xAE01
OWN = """
import ctypes, fcntl, json, mmap, os, sys, time
sys.path.insert(0, "/run")
import why
memory = mmap.mmap(-1, 6 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
"""
"""The begin of a program that asks about its own memory."""

# As where the tests of pins and of swap are from.
pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2, numa_nodes=2)
__all__ = ["zram"]

Ask = Callable[..., dict[str, int]]


@pytest.fixture
def ask(guest: Guest) -> Ask:
    """Return what the module says of an area, without the reasons that no page has."""
    guest.put(Path(program.__file__).read_bytes(), PROGRAM)

    def ask(area: Area) -> dict[str, int]:
        argv = ["python3", PROGRAM, str(area.process.pid), str(area.address()), str(area.address(area.pages))]
        answer: dict[str, int] = json.loads(guest.run(argv).text)
        assert list(answer) == list(REASONS)
        return {reason: count for reason, count in answer.items() if count}

    return ask


def filled(work: MemWork, *, key: int = KEY, pages: int = PAGES, merge: bool = True, thp: bool = False) -> Area:
    area = work.process().map(pages=pages, merge=merge, thp=thp)
    area.fill(Kind.FILLED, key, step=1)
    return area


def scan(merger: Merger, passes: int = 4) -> None:
    merger["run"] = RUN
    merger.passes(passes)


def test_merged(merger: Merger, work: MemWork, ask: Ask) -> None:
    areas = [filled(work) for _ in range(2)]
    scan(merger)
    assert [ask(area) for area in areas] == [{"merged": PAGES}] * 2


def test_zero(merger: Merger, work: MemWork, ask: Ask) -> None:
    merger["use_zero_pages"] = 1
    area = work.process().map(pages=PAGES)
    area.fill(Kind.ZERO)
    scan(merger)
    assert ask(area) == {"zero": PAGES}


@pytest.mark.usefixtures("ask")
def test_zero_by_a_read(merger: Merger, guest: Guest) -> None:
    """Nobody merged it, and it takes no memory."""
    assert merger.in_force
    script = """
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory[0], memory[4096]
print(json.dumps(why.why(0, address, address + 3 * 4096)))
"""
    found = json.loads(guest.run(["python3", "-c", OWN + script]).text)
    assert {reason: pages for reason, pages in found.items() if pages} == {"zero": 2}


def test_not_registered(merger: Merger, work: MemWork, ask: Ask) -> None:
    plain = filled(work, merge=False)
    other = plain.process.map(pages=PAGES)
    other.fill(Kind.FILLED, KEY * 2, step=1)
    assert ask(plain) == {"not_registered": PAGES}
    other.advise(Advice.UNMERGEABLE)
    filled(work)  # else there is nothing to scan
    scan(merger)
    assert ask(other) == {"not_registered": PAGES}


def test_not_anonymous(merger: Merger, guest: Guest, work: MemWork, ask: Ask) -> None:
    """The text of a program is of a file."""
    process = filled(work).process
    assert merger.in_force
    assert ask(process.areas[0])
    whole = json.loads(guest.run(["python3", PROGRAM, str(process.pid)]).text)
    assert whole["not_anonymous"] > 10


def test_not_yet(merger: Merger, work: MemWork, ask: Ask) -> None:
    merger["run"] = STOP
    assert ask(filled(work)) == {"not_yet": PAGES}


def test_volatile(merger: Merger, work: MemWork, ask: Ask) -> None:
    area = filled(work)
    scan(merger)
    merger["run"] = STOP
    area.poke_each([(page, 8, 1) for page in range(10)])
    assert ask(area) == {"volatile": 10, "unique": PAGES - 10}
    area.rewrite(KEY, per_second=50_000)
    scan(merger, 2)
    assert ask(area)["volatile"] > PAGES / 2
    area.process.stop_rewriting()


def test_unique(merger: Merger, work: MemWork, ask: Ask) -> None:
    areas = [filled(work, key=KEY * (2 + number)) for number in range(2)]
    scan(merger)
    assert [ask(area) for area in areas] == [{"unique": PAGES}] * 2


def test_forked(merger: Merger, work: MemWork, ask: Ask) -> None:
    area = filled(work)
    child = area.process.fork()
    scan(merger)
    assert sorted(map(list, (ask(area), ask(child.areas[0])))) == [["forked"], ["unique"]]


def test_other_domain(merger: Merger, guest: Guest, work: MemWork, ask: Ask) -> None:
    first, second = filled(work), filled(work)
    become(second.process, 1001)
    scan(merger)
    assert ask(first) == ask(second) == {"other_domain": PAGES}
    third = filled(work)
    scan(merger)
    assert ask(first) == ask(third) == {"merged": PAGES}
    assert ask(second) == {"other_domain": PAGES}
    # Who is not root does not learn what others hold.
    argv = ["setpriv", "--reuid=1001", "--clear-groups", "python3", PROGRAM, str(second.process.pid)]
    assert guest.run(argv, check=False).stderr.decode().strip() == "Permission denied (13)", (
        "setuid() made it undumpable"
    )
    owned = guest.run(["setpriv", "--reuid=1001", "--clear-groups", "python3", PROGRAM, "0"])
    assert json.loads(owned.text)["not_registered"] > 100


def test_who_is_not_root_learns_nothing_of_others(merger: Merger, guest: Guest, work: MemWork, ask: Ask) -> None:
    """A process of a user's has the page of another user's: to itself it says that it is unique."""
    page = filled(work, pages=1)
    own = f"""{OWN}
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory.madvise(mmap.MADV_MERGEABLE)
memory[:4096] = bytes.fromhex("{page.read(0).hex()}")
deadline = time.monotonic() + 60
while not (found := why.why(0, address, address + 4096))["unique"] + found["other_domain"]:
    assert time.monotonic() < deadline, found
    time.sleep(0.05)
print(found["unique"], found["other_domain"])
"""
    merger["run"] = RUN
    assert guest.run(["setpriv", "--reuid=1002", "--clear-groups", "python3", "-c", own]).text.split() == ["1", "0"]
    capable = ["setpriv", "--reuid=1002", "--clear-groups", "--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"]
    assert guest.run([*capable, "python3", "-c", own]).text.split() == ["0", "1"]
    assert ask(page)


def test_chain_full(merger: Merger, work: MemWork, ask: Ask) -> None:
    merger["max_page_sharing"] = 2
    areas = [filled(work) for _ in range(3)]
    scan(merger)
    assert sorted(map(list, (ask(area) for area in areas))) == [["chain_full"], ["merged"], ["merged"]]


def test_pinned(merger: Merger, work: MemWork, ask: Ask) -> None:
    areas = [filled(work) for _ in range(2)]
    ring = Ring(areas[0].process)
    ring.pin(areas[0])
    scan(merger)
    assert ask(areas[0]) == {"pinned": PAGES}
    ring.unpin()
    scan(merger)
    assert ask(areas[0]) == {"merged": PAGES}


def test_huge_spared(merger: Merger, work: MemWork, ask: Ask) -> None:
    area = filled(work, pages=HUGE, thp=True)
    scan(merger)
    assert ask(area) == {"huge_spared": HUGE}


@pytest.mark.usefixtures("ask")
def test_a_huge_page_that_a_virtual_machine_may_write_to(merger: Merger, guest: Guest) -> None:
    """KVM's writes leave no mark in the process's page table: what stands there is no sign that it changes."""
    merger["run"] = RUN
    guest.run(["sh", "-c", LOAD_KVM])
    script = f"""
machine = fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), {KVM_CREATE_VM}, 0)
memory.madvise(mmap.MADV_HUGEPAGE)
memory.madvise(mmap.MADV_MERGEABLE)
memory[:] = os.urandom(len(memory))
start = -(-address // {HUGE << 12}) * {HUGE << 12}
deadline = time.monotonic() + 60
while (found := why.why(0, start, start + {HUGE << 12}))["huge_spared"] < {HUGE}:
    assert time.monotonic() < deadline, found
    time.sleep(0.05)
"""
    assert guest.run(["python3", "-c", OWN + script]).text == ""


@pytest.mark.usefixtures("zram")
def test_swapped(merger: Merger, work: MemWork, ask: Ask) -> None:
    area = filled(work)
    scan(merger)
    merger["run"] = STOP
    area.advise(Advice.PAGEOUT)
    assert ask(area).get("swapped", 0) > PAGES / 2
    work.check()


def test_over_a_large_area(merger: Merger, work: MemWork, ask: Ask) -> None:
    """More than is looked at in one go, with holes."""
    area = work.process().map(pages=60_000, reserve=False)
    for first in (0, 20_000, 59_900):
        area.fill(Kind.FILLED, KEY + first, step=1, pages=range(first, first + 100))
    scan(merger)
    assert ask(area) == {"unique": 300}


@pytest.mark.usefixtures("ask")
def test_bad_questions(merger: Merger, guest: Guest, work: MemWork) -> None:
    pid = str(filled(work).process.pid)
    assert merger.in_force
    for words, errno in (
        (["99999999"], 3),
        (["-1"], 22),
        ([pid, "1", "0"], 22),
        ([pid, "8192", "4096"], 22),
        ([pid, "0", "0xffffffffff000000"], 22),
    ):
        answer = guest.run(["python3", PROGRAM, *words], check=False)
        assert answer.exit_code == 1
        assert f"({errno})" in answer.stderr.decode()
    bad_request = "import fcntl, os; fcntl.ioctl(os.open('/dev/samepage', os.O_RDONLY), 0x1234)"
    assert b"Inappropriate ioctl" in guest.run(["python3", "-c", bad_request], check=False).stderr
