# SPDX-License-Identifier: MIT
"""Loaded, unloaded and loaded again while processes fork, execute programs and change what may be merged.

SAMEPAGE_RELOADS=100 makes it the long run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from harness.guest.guest import Guest
from harness.guest.stream import Stream
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, SAMEPAGE, STOP, UNMERGE, Merger

RELOADS = int(os.environ.get("SAMEPAGE_RELOADS", "3"))
PAGES = 400
KEY = 37 << 40
STORMS = 3
PATCH_SECONDS = 400  # a host with three other guests on its two CPUs was seen to take 100 for one transition
STORM_PAUSE = 0.02  # seconds between forks: 6.12 cannot patch a kernel whose tasks never sleep

pytestmark = pytest.mark.timeout(600 + 60 * RELOADS)

# Children compare and change what they inherited, give up merging for some of it, then execute a program. Prints how
# many there were once stdin ends; any wrong byte ends it at once.
STORM = """
import mmap, os, select, sys, time

PAGES = 48
def content(page, generation):
    return bytes([page % 7 + 1, generation % 3]) * 2048
def wrong(memory, generations):
    return any(memory[p * 4096:(p + 1) * 4096] != content(p, g) for p, g in enumerate(generations))

memory = mmap.mmap(-1, PAGES * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
generations = [0] * PAGES
for page in range(PAGES):
    memory[page * 4096:(page + 1) * 4096] = content(page, 0)
turns = 0
while not select.select([sys.stdin], [], [], float(sys.argv[1]))[0]:
    turns += 1
    memory.madvise((12, 12, 13)[turns % 3], 0, PAGES // 2 * 4096)
    memory.madvise(12, PAGES // 2 * 4096, PAGES // 2 * 4096)
    child = os.fork()
    if child == 0:
        code = 3 if wrong(memory, generations) else 0
        for page in range(turns % 5, PAGES, 5):
            generations[page] += 1
            memory[page * 4096:(page + 1) * 4096] = content(page, generations[page])
        memory.madvise((13, 12)[turns % 2])
        code = code or (4 if wrong(memory, generations) else 0)
        if code or turns % 2:
            os._exit(code)
        os.execv("/bin/true", ["true"])
    for page in range(turns % 4, PAGES, 4):
        generations[page] += 1
        memory[page * 4096:(page + 1) * 4096] = content(page, generations[page])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status or wrong(memory, generations):
        sys.exit(f"wrong content: child {status}, turn {turns}")
print(turns)
"""


@pytest.fixture
def storms(guest: Guest) -> Iterator[list[Stream]]:
    guest.put(STORM.encode(), "/tmp/storm.py")
    streams = [guest.spawn(["python3", "/tmp/storm.py", str(STORM_PAUSE)]) for _ in range(STORMS)]
    yield streams
    for stream in streams:
        stream.kill()


def test_reloaded_under_a_storm(
    merger: Merger, guest: Guest, module: BuiltModule, work: MemWork, storms: list[Stream]
) -> None:
    for _ in range(3):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger["run"] = RUN  # what comes later inherits it: in-tree KSM merges while ours is away
    slowest = {"load": 0.0, "unload": 0.0}
    for turn in range(RELOADS):
        for storm in storms:
            assert storm.running, storm.stderr.decode(errors="replace")
        started = time.monotonic()
        guest.rmmod("samepage", PATCH_SECONDS)
        unloaded = time.monotonic()
        assert guest.read_files([SAMEPAGE + "merges"]) == {SAMEPAGE + "merges": None}
        work.areas[turn % 3].poke_each([(page, 24, turn) for page in range(turn % 9, PAGES, 9)])
        work.check()
        if turn % 3 == 0:
            merger.hurry()
            merger["run"] = RUN
            merger.passes(3)
            assert merger["pages_sharing"] > 0, "it is loaded over pages that in-tree KSM has merged"
        loading = time.monotonic()
        guest.insmod(module.ko, timeout=PATCH_SECONDS)
        slowest["load"] = max(slowest["load"], time.monotonic() - loading)
        slowest["unload"] = max(slowest["unload"], unloaded - started)
        merger.passes(1)
        work.check()
    print(f"{RELOADS} reloads, slowest (s): {slowest}")
    for storm in storms:
        storm.close_stdin()
    assert all(storm.wait(timeout=60) == 0 for storm in storms)
    # Ours, then in-tree KSM as if nothing had been.
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    guest.rmmod("samepage")
    work.check()
    merger["run"] = UNMERGE
    assert merger.counts()[:2] == (0, 0)
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == merger.expected(work)
    work.check()
    merger["run"] = UNMERGE
    merger["run"] = STOP
    work.check()
    guest.insmod(module.ko)
