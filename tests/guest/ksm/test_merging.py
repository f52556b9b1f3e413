# SPDX-License-Identifier: MIT
"""What merges, to the page: counters equal the model for every class of content, and every byte is right."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.config import Config
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.ksm.processes import Advice, Area
from harness.ksm.protocol import PAGE_BYTES
from harness.module.build import BuiltModule
from tests.guest.ksm.changed import changed
from tests.guest.ksm.control import PASSES_TO_MERGE, RUN, STOP, UNMERGE, Merger

PAGES = 700  # in four processes: more than max_page_sharing allows for one page
KEY = 1 << 40
WORDS_OF_A_LINE = 8


def areas(work: MemWork, processes: int = 4, pages: int = PAGES, *, thp: bool = False) -> list[Area]:
    return [work.process().map(pages=pages, thp=thp) for _ in range(processes)]


def test_same_content_everywhere_fills_chains(merger: Merger, work: MemWork) -> None:
    for area in areas(work):
        area.fill(Kind.FILLED, KEY)
    counters = merger.merge(work)
    frames = -(-4 * PAGES // 256)
    assert merger.counts() == (frames, 4 * PAGES - frames, 0) == merger.expected(work)
    assert counters["stable_node_chains"] == 1
    assert counters["stable_node_dups"] == frames
    assert counters["pages_unshared"] == counters["pages_volatile"] == 0
    work.check()


def test_groups(merger: Merger, work: MemWork) -> None:
    """Each content is there four times, spread over processes."""
    for area in areas(work):
        area.fill(Kind.FILLED, KEY, step=1)
    counters = merger.merge(work)
    assert merger.counts() == (PAGES, 3 * PAGES, 0) == merger.expected(work)
    assert counters["stable_node_chains"] == 0
    work.check()


@pytest.mark.parametrize("kind", [Kind.FILLED, Kind.PREFIX])
def test_unique_content_stays_apart(merger: Merger, work: MemWork, kind: Kind) -> None:
    for number, area in enumerate(areas(work)):
        area.fill(kind, KEY + number * PAGES, step=1)
    counters = merger.merge(work)
    assert merger.counts() == (0, 0, 0)
    assert counters["pages_unshared"] == 4 * PAGES
    assert counters["pages_volatile"] == 0
    work.check()


@pytest.mark.parametrize("use_zero_pages", [0, 1])
def test_zero_pages(merger: Merger, work: MemWork, use_zero_pages: int) -> None:
    merger["use_zero_pages"] = use_zero_pages
    for area in areas(work):
        area.fill(Kind.ZERO)
    merger.merge(work)
    frames = -(-4 * PAGES // 256)
    goal = (0, 0, 4 * PAGES) if use_zero_pages else (frames, 4 * PAGES - frames, 0)
    assert merger.counts() == goal == merger.expected(work)
    work.check()


def test_zero_pages_are_counted_to_their_end(merger: Merger, work: MemWork) -> None:
    """Whatever takes one away takes it from the count; those that may not be written get pages of their own, too."""
    merger["use_zero_pages"] = 1
    one, other = (work.process() for _ in range(2))
    area, kept = one.map(pages=PAGES), other.map(pages=100)
    area.fill(Kind.ZERO)
    kept.fill(Kind.ZERO)
    merger.merge(work)
    assert merger["ksm_zero_pages"] == PAGES + 100
    area.poke_each([(page, 8, 1) for page in range(10)])
    area.advise(Advice.DONTNEED, range(10, 30))
    assert merger["ksm_zero_pages"] == PAGES - 30 + 100
    child = one.fork()
    assert merger["ksm_zero_pages"] == 2 * (PAGES - 30) + 100
    child.exit()
    assert merger["ksm_zero_pages"] == PAGES - 30 + 100
    work.check()  # reads what was discarded: the kernel's own zero pages, which are not counted
    kept.protect(mmap.PROT_READ)
    area.advise(Advice.UNMERGEABLE, range(PAGES // 2, PAGES))
    assert merger["ksm_zero_pages"] == PAGES // 2 - 30 + 100
    merger["run"] = UNMERGE
    assert merger["ksm_zero_pages"] == 0
    work.check()


def test_huge_pages_are_split_and_merged(merger: Merger, guest: Guest, work: MemWork) -> None:
    mapped = areas(work, processes=2, pages=1024, thp=True)
    for area in mapped:
        area.fill(Kind.FILLED, KEY, step=1)
    smaps = guest.read(f"/proc/{mapped[0].process.pid}/smaps_rollup")
    assert "AnonHugePages:      4096 kB" in smaps
    merger.merge(work)
    assert merger.counts() == (1024, 1024, 0) == merger.expected(work)
    work.check()


def test_pages_that_keep_changing_are_left_alone(merger: Merger, work: MemWork) -> None:
    quiet, busy = work.process().map(pages=128), work.process().map(pages=32)
    quiet.fill(Kind.FILLED, KEY)
    busy.fill(Kind.FILLED, KEY)
    busy.rewrite(KEY + 1000, per_second=2000)
    merger["sleep_millisecs"] = 50
    merger["run"] = RUN
    merger.passes()
    deadline = time.monotonic() + 60
    # On a busy host a pass may be over before the guest has come to its next write.
    while merger.counts() != (1, 127, 0) or merger["pages_volatile"] == 0:
        assert time.monotonic() < deadline, merger.counters()
        time.sleep(0.1)
    busy.process.stop_rewriting()
    work.check()


# Not on a debug kernel: KASAN keeps freed records for a while, and each has red zones and stacks beside it.
@pytest.mark.usefixtures("stock_kernel")
def test_memory_is_really_given_back(merger: Merger, guest: Guest, work: MemWork) -> None:
    for area in areas(work, pages=8192):
        area.fill(Kind.FILLED, KEY, step=1)
    before = free_pages(guest)
    merger.merge(work)
    assert merger.counts() == (8192, 3 * 8192, 0)
    saved = free_pages(guest) - before
    kept = merger.samepage("metadata_bytes") / 4096
    assert saved > 3 * 8192 - 2 * kept - 512, "512 pages for all else that goes on in the guest"


def free_pages(guest: Guest) -> int:
    """Free pages, those on per-CPU lists included."""
    guest.write("/proc/sys/vm/compact_memory", "1")
    free = 0
    for line in guest.read("/proc/zoneinfo").splitlines():
        words = line.split()
        if words[:1] == ["count:"] or words[:2] == ["pages", "free"]:
            free += int(words[-1])
    return free


def test_only_registered_memory_is_merged(merger: Merger, work: MemWork) -> None:
    first, second = work.process(), work.process()
    for process in (first, second):
        process.map(pages=64, merge=True).fill(Kind.FILLED, KEY, step=1)
        process.map(pages=64, merge=False).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (64, 64, 0)


def test_prctl_registers_all_memory(merger: Merger, work: MemWork) -> None:
    processes = [work.process() for _ in range(2)]
    for process in processes:
        process.merge_any()
        process.map(pages=64, merge=False).fill(Kind.FILLED, KEY, step=1)
    merger["run"] = RUN
    merger.passes()
    assert all(area.merged_pages().all() for area in work.areas)
    for process in processes:
        process.merge_any(False)
    assert not any(area.merged_pages().any() for area in work.areas)
    work.check()


def test_stopped_scanner_does_nothing(merger: Merger, work: MemWork) -> None:
    merger["run"] = STOP
    scanned = merger["pages_scanned"]
    for area in areas(work, pages=64):
        area.fill(Kind.FILLED, KEY)
    assert merger["pages_scanned"] == scanned
    assert merger.counts() == (0, 0, 0)


def test_unmergeable_gives_back_private_pages(merger: Merger, work: MemWork) -> None:
    mapped = areas(work, pages=256)
    for area in mapped:
        area.fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    mapped[0].advise(Advice.UNMERGEABLE, range(100))
    assert not mapped[0].merged_pages(range(100)).any()
    assert mapped[0].merged_pages(range(100, 256)).all()
    assert all(area.merged_pages().all() for area in mapped[1:])
    merger.passes(1)
    assert merger.counts() == (256, 3 * 256 - 100, 0)
    work.check()


def test_run_2_unmerges_everything(merger: Merger, work: MemWork) -> None:
    merger["use_zero_pages"] = 1
    for area in areas(work, pages=256):
        area.fill(Kind.FILLED, KEY, step=1, pages=range(200))
        area.fill(Kind.ZERO, pages=range(200, 256))
    merger.merge(work)
    assert merger.counts() == (200, 600, 4 * 56)
    merger["run"] = 2
    assert merger.counts() == (0, 0, 0)
    assert merger["pages_unshared"] == merger["pages_volatile"] == merger["full_scans"] == 0
    assert merger.samepage("metadata_bytes") == 0
    assert not any(area.merged_pages().any() for area in work.areas)
    work.check()
    merger["run"] = RUN
    merger.passes(PASSES_TO_MERGE)
    assert merger.counts() == (200, 600, 4 * 56)


def test_per_process_counters(merger: Merger, guest: Guest, work: MemWork) -> None:
    merger["use_zero_pages"] = 1
    mapped = areas(work, processes=2, pages=200)
    for number, area in enumerate(mapped):
        area.fill(Kind.FILLED, KEY, step=1, pages=range(100))
        area.fill(Kind.ZERO, pages=range(100, 150))
        area.fill(Kind.FILLED, KEY + 1000 * (number + 1), step=1, pages=range(150, 200))
    merger.merge(work)
    for area in mapped:
        stat = dict(line.split() for line in guest.read(f"/proc/{area.process.pid}/ksm_stat").splitlines())
        assert int(stat["ksm_merging_pages"]) == 100
        assert int(stat["ksm_zero_pages"]) == 50
        assert int(stat["ksm_rmap_items"]) == 150
        assert int(stat["ksm_process_profit"]) > 140 * 4096
        assert int(guest.read(f"/proc/{area.process.pid}/ksm_merging_pages")) == 100


def test_records_that_differ_in_one_field_do_not_look_alike(merger: Merger, work: MemWork) -> None:
    """A sample has every word of a cache line, of some line: one field of each record is enough to tell pages apart."""
    collisions = merger.samepage("sample_collisions")
    pages = WORDS_OF_A_LINE
    first, second = (work.process().map(pages=pages) for _ in range(2))
    for area in (first, second):
        area.fill(Kind.FILLED, KEY, step=1)
    records = range(0, PAGE_BYTES, 8 * WORDS_OF_A_LINE)
    second.poke_each([(word, at + 8 * word, KEY + at) for word in range(pages) for at in records])
    merger["run"] = RUN
    merger.passes(5)
    assert merger.counts() == (0, 0, 0)
    assert merger.samepage("sample_collisions") == collisions
    work.check()


@pytest.fixture
def load_changed(
    config: Config, merger: Merger, guest: Guest, module: BuiltModule, tmp_path: Path
) -> Iterator[Callable[[str, str, str], None]]:
    """Load the module with one text replaced in a file of its sources; the module itself is back afterwards."""

    def load(file: str, old: str, new: str) -> None:
        other = changed(config, tmp_path, file, old, new)
        guest.rmmod("samepage")
        guest.insmod(other.ko)
        merger.hurry()

    yield load
    if guest.healthy:
        guest.rmmod("samepage")
        guest.insmod(module.ko)


def test_equal_brief_keys_keep_nobody_from_merging(
    merger: Merger, work: MemWork, load_changed: Callable[[str, str, str], None]
) -> None:
    """Two candidates of one brief key each took the other for one that had changed, and neither found its twin.

    Of 8192 contents two have the same 32 bits once in a hundred loads; of these 1024 some 30 pairs have the same 14.
    """
    brief = "upper_32_bits(key->signature)"
    load_changed("samepage.h", f"return {brief} +", f"return ({brief} & 0x3fff) +")
    for _ in range(3):
        work.process().map(pages=1024).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (1024, 2048, 0) == merger.expected(work)
    work.check()


def test_the_table_of_blocks_grows_under_merged_pages(
    merger: Merger, work: MemWork, load_changed: Callable[[str, str, str], None]
) -> None:
    """One page in each of 2 x 2048 blocks, 512 in a leaf of a table that begins with room for one leaf."""
    load_changed("blockids.c", "#define SP_LEAVES	512U", "#define SP_LEAVES	1U")
    for count in (64, 2048):
        for _ in range(2):
            area = work.process().map(pages=64 * count, reserve=False)
            area.poke_each([(64 * block, 8, count + block) for block in range(count)])
        merger.merge(work)
        assert merger.counts() == merger.expected(work)
    assert merger.counts()[:2] == (64 + 2048, 64 + 2048)
    work.areas[0].advise(Advice.DONTNEED)
    merger.passes(2)
    assert merger.counts() == merger.expected(work)
    work.check()
