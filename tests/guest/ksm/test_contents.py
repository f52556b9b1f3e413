# SPDX-License-Identifier: MIT
"""Contents that an administrator lets all domains share: these and no others, and none by default."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind, page_bytes
from harness.ksm.inguest import contents as program
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Process
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, SAMEPAGE, STOP, Merger
from tests.guest.ksm.inguest import InGuest
from tests.guest.ksm.test_domains import PAGES, become, cgroups, domains, frames, shared_frames
from tests.guest.ksm.test_shares import FIRST, SECOND, Shares, enter, shares
from tests.guest.ksm.test_why import Ask, ask

pytestmark = pytest.mark.guest(memory_mib=768, cpus=2)
__all__ = ["ask", "cgroups", "shares"]

FILE = "/run/library"
COMMON = 100
KEY = 71 << 40
THIRD = 1003
ASK = """
import ctypes, errno, fcntl, mmap, struct, sys
pages = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
first, last, expected = (eval(word) for word in sys.argv[1:])
try:
    fcntl.ioctl(open("/dev/samepage"), 1 << 30 | 16 << 16 | ord("m") << 8 | 0x55, struct.pack("=QQ", first, last))
except OSError as error:
    assert error.errno == expected, error
else:
    sys.exit("it was not refused")
"""
BAD = (
    ("start", "start", "errno.EINVAL"),
    ("start + 4096", "start", "errno.EINVAL"),
    ("start + 1", "start + 4096", "errno.EINVAL"),
    ("start", "start + 4097", "errno.EINVAL"),
    ("0", "(1 << 64) - 4096", "errno.E2BIG"),
    ("start", "start + (1 << 26) + 4096", "errno.E2BIG"),
    ("4096", "8192", "errno.EFAULT"),
    ("(1 << 64) - 8192", "(1 << 64) - 4096", "errno.EFAULT"),
)


class Contents(InGuest):
    """Says what all domains of the guest share: `share`, `clear`, `count`."""

    def share(self, *pages: tuple[Kind, int]) -> None:
        """Let these pages be for all."""
        self.guest.put(b"".join(page_bytes(kind, key) for kind, key in pages), FILE)
        self("share", FILE)

    @property
    def count(self) -> int:
        return int(self("count"))


@pytest.fixture
def contents(merger: Merger, guest: Guest, work: MemWork) -> Iterator[Contents]:
    """None are for all at the end."""
    assert merger.in_force
    contents = Contents(guest, program)
    yield contents
    if guest.healthy:
        contents("clear")
        assert contents.count == 0


def filled(key: int, count: int) -> list[tuple[Kind, int]]:
    return [(Kind.FILLED, KEY + key + page) for page in range(count)]


def of_users(
    work: MemWork, *users: int, kind: Kind = Kind.FILLED, pages: int = PAGES, thp: bool = False
) -> list[Process]:
    processes = []
    for user in users:
        process = work.process()
        process.map(pages=pages, thp=thp).fill(kind, KEY, step=1)
        become(process, user)
        processes.append(process)
    return processes


def test_users_share_these_and_no_others(
    merger: Merger, guest: Guest, work: MemWork, contents: Contents, ask: Ask
) -> None:
    assert contents.count == 0
    first, second, third = of_users(work, FIRST, SECOND, THIRD)
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (0, 0, 0), "by default there are none"
    before = {frame for found in frames(guest, first, second, third) for frame in found}
    contents.share(*filled(0, COMMON))
    assert contents.count == COMMON
    merger.passes(4)
    assert merger.counts() == (COMMON, 2 * COMMON, 0)
    for one, other in ((first, second), (second, third), (first, third)):
        assert shared_frames(guest, one, other) == COMMON
    after = set(frames(guest, first)[0][:COMMON])
    assert len(after & before) < COMMON // 20, "more lie where somebody had them than chance allows"
    everybody = domains(guest)["everybody", 0]
    assert (everybody.processes, everybody.shared, everybody.sharing) == (0, COMMON, 2 * COMMON)
    assert domains(guest)["user", FIRST].sharing == 0
    assert ask(first.areas[0]) == {"merged": COMMON, "other_domain": PAGES - COMMON}
    merger.check()
    work.check()
    # Nobody's page changes with another's.
    first.areas[0].poke_each([(page, 8, 1) for page in range(0, COMMON, 2)])
    merger.passes(2)
    assert shared_frames(guest, first, second) == COMMON // 2
    assert shared_frames(guest, second, third) == COMMON
    merger.check()
    work.check()


def test_what_looks_alike_is_not_for_all(merger: Merger, guest: Guest, work: MemWork, contents: Contents) -> None:
    """Pages that differ in one word, which most samples do not show: one of them is for all."""
    first, second = of_users(work, FIRST, SECOND, kind=Kind.WORD, pages=64)
    contents.share((Kind.WORD, KEY + 7))
    merger["run"] = RUN
    merger.passes(6)
    assert merger.samepage("sample_collisions") > 0
    assert shared_frames(guest, first, second) == 1
    ours, theirs = frames(guest, first, second)
    assert ours[7] == theirs[7] != 0
    merger.check()
    work.check()


def test_a_page_that_is_alone(merger: Merger, guest: Guest, work: MemWork, contents: Contents, ask: Ask) -> None:
    """It is merged at once, with itself: who has it learns no sooner than by writing that nobody else has."""
    (first,) = of_users(work, FIRST)
    work.process().map(pages=1).fill(Kind.FILLED, KEY - 1)
    contents.share(*filled(0, COMMON))
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (COMMON, 0, 0)
    assert ask(first.areas[0]) == {"unique": PAGES}
    assert domains(guest)["everybody", 0].shared == COMMON
    first.exit()
    merger.passes(2)
    assert merger.counts() == (0, 0, 0)
    merger.check()


def test_forks_and_other_users(merger: Merger, guest: Guest, work: MemWork, contents: Contents) -> None:
    """A child that becomes another user keeps what is for all, and nothing else."""
    first, second = of_users(work, 0, 0)
    contents.share(*filled(0, COMMON))
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (PAGES, PAGES, 0)
    child = first.fork()
    become(child, SECOND)
    merger.passes(3)
    assert shared_frames(guest, first, child) == shared_frames(guest, second, child) == COMMON
    assert shared_frames(guest, first, second) == PAGES
    merger.check()
    work.check()


def test_none_any_more(merger: Merger, guest: Guest, work: MemWork, contents: Contents) -> None:
    first, second, third = of_users(work, FIRST, FIRST, SECOND)
    contents.share(*filled(0, COMMON))
    contents.share(*filled(COMMON // 2, COMMON))
    assert contents.count == COMMON * 3 // 2, "what was for all stays so; nothing is counted twice"
    merger["run"] = RUN
    merger.passes(4)
    assert shared_frames(guest, first, third) == COMMON * 3 // 2
    contents("clear")
    assert shared_frames(guest, first, third) == 0
    merger.passes(4)
    assert shared_frames(guest, first, third) == 0
    assert shared_frames(guest, first, second) == PAGES
    assert all(name != "everybody" for name, _ in domains(guest))
    merger.check()
    work.check()


def test_timing_safe_domains_take_no_part(
    merger: Merger, guest: Guest, work: MemWork, contents: Contents, shares: Shares, cgroups: list[str]
) -> None:
    first, second, safe = of_users(work, FIRST, SECOND, THIRD)
    enter(guest, cgroups[0], safe)
    contents.share(*filled(0, COMMON))
    shares.give(cgroups[0], timing_safe=True)
    merger["run"] = RUN
    merger.passes(4)
    assert shared_frames(guest, first, second) == COMMON
    assert shared_frames(guest, first, second, safe) == COMMON
    assert shared_frames(guest, first, safe) == shared_frames(guest, second, safe) == 0
    assert merger.samepage("kept") == PAGES
    shares("clear", cgroups[0])
    merger.passes(4)
    assert shared_frames(guest, first, safe) == COMMON
    assert merger.samepage("kept") == 0
    merger.check()
    work.check()


def test_huge_pages_of_nothing_else(merger: Merger, guest: Guest, work: MemWork, contents: Contents) -> None:
    """In its domain no part has a twin: it is worth a split all the same."""
    contents.share(*filled(0, 512))
    of_users(work, FIRST, SECOND, pages=512, thp=True)
    merger["run"] = RUN
    merger.passes(6)
    assert merger.samepage("huge_split") >= 2
    assert merger.counts() == (512, 512, 0)
    merger.check()
    work.check()


def test_more_sharers_than_one_frame_has(merger: Merger, guest: Guest, work: MemWork, contents: Contents) -> None:
    merger["max_page_sharing"] = 2
    processes = of_users(work, FIRST, SECOND, THIRD, FIRST, SECOND)
    contents.share(*filled(0, COMMON))
    merger.set_samepage("threads", 2)
    merger["run"] = RUN
    merger.passes(6)
    shared, sharing, _ = merger.counts()
    assert shared + sharing == 5 * COMMON + 4 * (PAGES - COMMON)
    assert sharing == 2 * COMMON + 2 * (PAGES - COMMON)
    merger.check()
    contents("clear")
    merger.check()
    assert shared_frames(guest, processes[0], processes[1], processes[2]) == 0
    merger.set_samepage("threads", 1)
    work.check()


def test_forks_while_there_are_none_any_more(merger: Merger, guest: Guest, work: MemWork, contents: Contents) -> None:
    """A child that nobody has looked at when they are cleared keeps nothing for long."""
    first, second = of_users(work, 0, SECOND)
    contents.share(*filled(0, COMMON))
    merger["run"] = RUN
    merger.passes(4)
    assert shared_frames(guest, first, second) == COMMON
    merger["run"] = STOP
    child = first.fork()
    contents("clear")
    assert shared_frames(guest, first, second) == 0
    assert merger.samepage("common_contents") == 0
    merger["run"] = RUN
    merger.passes(3)
    merger.check()
    assert shared_frames(guest, child, second) == 0
    assert domains(guest)["user", 0].sharing == COMMON, "mother and child, in their own domain"
    work.check()


def test_unloaded_and_loaded(
    merger: Merger, guest: Guest, work: MemWork, contents: Contents, module: BuiltModule
) -> None:
    """With the module goes what was said of contents."""
    first, second = of_users(work, FIRST, SECOND)
    contents.share(*filled(0, COMMON))
    merger["run"] = RUN
    merger.passes(4)
    assert shared_frames(guest, first, second) == COMMON
    guest.rmmod(module.name)
    work.check()
    guest.insmod(module.ko)
    assert contents.count == 0
    merger["run"] = RUN
    merger.passes(4)
    assert shared_frames(guest, first, second) == 0
    work.check()


def test_huge_pages_and_one_domain_for_all(merger: Merger, guest: Guest, work: MemWork, contents: Contents) -> None:
    guest.write(SAMEPAGE + "domain_by", "none")
    of_users(work, FIRST, SECOND, pages=1024, thp=True)
    contents.share(*filled(0, COMMON))
    merger["run"] = RUN
    merger.passes(6)
    assert merger.counts() == (1024, 1024, 0)
    assert domains(guest)["everybody", 0].sharing == COMMON
    merger.check()
    work.check()
    guest.write(SAMEPAGE + "domain_by", "user")
    merger.passes(4)
    assert merger.counts() == (COMMON, COMMON, 0)
    merger.check()
    work.check()


def test_it_is_the_administrator_who_says_so(guest: Guest, contents: Contents) -> None:
    contents.share(*filled(0, 2), (Kind.ZERO, 0))
    contents("share", FILE, uid=FIRST, refused=errno.EPERM)
    contents("clear", uid=FIRST, refused=errno.EPERM)
    contents("share", "/run/none", refused=errno.ENOENT)
    guest.run(["truncate", "--size=100M", "/run/large"])
    contents("share", "/run/large")
    assert contents.count == 2, "empty pages are no content"
    for words in BAD:
        guest.run(["python3", "-c", ASK, *words])
    guest.run(["truncate", "--size=0", "/run/large"])
    contents("share", "/run/large")
    guest.run(["rm", "/run/large"])
    assert contents.count == 2
