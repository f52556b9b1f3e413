# SPDX-License-Identifier: MIT
"""The module's checker finds nothing wrong where nothing is, and each thing that a test module makes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm.checker import CHECK
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule, build_module
from tests.guest.ksm.control import RUN, STOP, Merger

PAGES = 300
KEY = 37 << 40
SHARED, TURNS = 900, 12
PARAMETER = "/sys/module/samepage/parameters/check_passes"


@pytest.fixture(scope="module")
def spoil(config: Config, tmp_path_factory: pytest.TempPathFactory) -> BuiltModule:
    """Built with the headers of the module that it spoils."""
    source = tmp_path_factory.mktemp("spoil")
    kmod, ours = config.root / "kmod", config.root / "tests/guest/modules/spoil"
    shutil.copytree(kmod / "compat", source / "compat")
    for path in (*kmod.glob("*.h"), ours / "spoil.c", ours / "Kbuild"):
        shutil.copy(path, source)
    shutil.copy(kmod / "Kbuild", source / "kmod.Kbuild")
    return build_module(config, source, config.kernel)


def merged(merger: Merger, work: MemWork) -> None:
    for key in (KEY, KEY, KEY + (1 << 20)):
        area = work.process().map(pages=PAGES)
        area.fill(Kind.FILLED, key, step=1, pages=range(PAGES - 9))
        area.fill(Kind.FILLED, KEY + (2 << 20), pages=range(PAGES - 9, PAGES))
    merger["max_page_sharing"] = 10
    merger.merge(work)


def test_what_is_counted(merger: Merger, work: MemWork) -> None:
    """Pages shared by two, candidates, 27 equal ones in a chain of three; and a child that has no record yet."""
    merged(merger, work)
    counts = merger.check()
    assert counts["spaces"] == 3
    assert counts["tracked"] == 3 * PAGES
    assert counts["sharers"] == counts["mappings"] == 2 * (PAGES - 9) + 27
    assert counts["candidates"] == PAGES - 9
    assert counts["nodes"] == counts["compared"] == PAGES - 9 + 3
    assert {counts[name] for name in ("unreached", "missed", "unwalked", "stale")} == {0}
    merger["run"] = STOP
    work.processes[0].fork()
    assert merger.check()["mappings"] == 2 * (PAGES - 9) + 27 + PAGES
    merger["run"] = RUN


def test_what_is_left_behind_is_counted(merger: Merger, work: MemWork) -> None:
    """No fault: nodes without their pages, whose frames the same processes may have again for something else."""
    merged(merger, work)
    merger["run"] = STOP
    for area in work.areas[:2]:
        area.fill(Kind.FILLED, KEY + (3 << 20), step=1)
    counts = merger.check()
    assert counts["stale"] >= PAGES - 9, "and what of the chain was only theirs"
    assert counts["nodes"] == counts["compared"] + counts["stale"]
    work.processes[0].exit()
    assert merger.check()["stale"] == counts["stale"]
    merger["run"] = RUN
    merger.passes()
    assert merger.check()["stale"] == 0


def test_a_page_that_is_mapped_too_often_is_counted(merger: Merger, work: MemWork) -> None:
    merger["max_page_sharing"] = 2000
    work.process().map(pages=1100).fill(Kind.FILLED, KEY)
    merger.merge(work)
    counts = merger.check()
    assert (counts["nodes"], counts["unwalked"], counts["mappings"]) == (1, 1, 0)


def test_pages_that_are_written_meanwhile_are_no_fault(merger: Merger, guest: Guest, work: MemWork) -> None:
    """Of one merged page, by one sharer after another: that is faster than a walk over who maps it."""
    merger["max_page_sharing"] = 2 * SHARED
    area = work.process().map(pages=SHARED)
    looks = guest.spawn(["sh", "-c", f"while :; do cat {CHECK}; done | grep --line-buffered fault:"])
    for turn in range(TURNS):
        area.fill(Kind.FILLED, KEY + (4 + turn << 20))
        merger.merge(work)
        assert merger["pages_sharing"] == SHARED - 1
        merger["run"] = STOP
        area.fill(Kind.FILLED, KEY, step=1)
    looks.kill()
    assert looks.read_some(1000) == b""
    work.check()


@pytest.fixture
def unspoilt(guest: Guest) -> Iterator[None]:
    yield
    if guest.healthy and guest.run(["rmmod", "spoil"], check=False).exit_code == 0:
        raise AssertionError("the test left things spoilt")


FOUND = {
    "counts": [
        ("blocks", "blocks is"),
        ("tracked_pages", "pages_tracked is"),
        ("items", "items is"),
        ("stables", "stables is"),
        ("keeps", "kept is"),
        ("reserve", "unsound reserve is 1"),
        ("shared", "pages_shared is"),
        ("counter", "pages_sharing is"),
        ("candidates", "pages_unshared is"),
        ("set", "candidates is"),
        ("sharers", "sharers is"),
        ("chains", "stable_node_chains is"),
        ("dups", "stable_node_dups is"),
        ("tenant", "unsound tenants is 2"),
    ],
    "records": [
        ("profit", "ksm_merging_pages == sharers"),
        ("rmap_items", "ksm_rmap_items == tracked"),
        ("nr_blocks", "space->nr_blocks == blocks"),
        ("nr_seen", "space->nr_seen == seen"),
        ("owner", "block->owner == space"),
        ("place", "block->base >> SP_BLOCK_SHIFT == at"),
        ("id", "sp_known_block(sp_page_number(block, 0)) == block"),
        ("lost", "blocks is"),
        ("tracked", "!(known & ~block->tracked)"),
        ("settled", "!(block->sharers & ~block->settled)"),
        ("forked", "!(block->forked & ~block->candidates)"),
        ("set", "!(block->candidates & block->sharers)"),
        ("number", "item->page == sp_page_number(block, index)"),
    ],
    "unstable": [
        ("bucket", "sp_unstable_bucket(stripe, signature) == bucket"),
        ("next", "is no candidate"),
        ("twice", "is no candidate"),
        ("candidates", "stripe->candidates == filed"),
    ],
    "stable": [
        ("order", "order <= 0"),
        ("stripe", "sp_stripe_of(sp_brief(&stable->key)) == stripe"),
        ("red", "rb_is_black(node) || (parent && rb_is_black(parent))"),
        ("colour", "sp_black_above(node) == *height"),
        ("held", "stable->pfn && !stable->holds"),
        ("buried", "stable->pfn && !stable->holds"),
        ("orphan", "list_empty(&stable->orphan) == !!count"),
        ("sharers", "count == stable->nr_sharers"),
        ("cycle", "count == stable->nr_sharers"),
        ("stranger", "is no sharer"),
        ("prev", "item->prev == prev"),
        ("node", "item->stable == stable"),
        ("domain", "stable->key.domain == block->owner->domain"),
        ("timing", "stable->timing_safe || !sp_timing_safe(block->owner)"),
    ],
    "pages": [
        ("key", "signature == stable->key.signature"),
        ("everybody", "sp_is_common(page, sp_sample(page))"),
        ("pfn", "says != sp_folio_ksm_mapping(stable)"),
        ("buried", "says != sp_folio_ksm_mapping(stable)"),
        ("mapping", "says && says != sp_folio_ksm_mapping(NULL)"),
        ("large", "!folio_test_large(folio)"),
        ("fewer", "(int)found->count <= most"),
        ("anon_vma", "the reverse map misses"),
        ("index", "the reverse map misses"),
    ],
}
"""What the test module spoils, and what the checker says of it."""


def spoilt(guest: Guest, merger: Merger, spoil: BuiltModule, what: str) -> str:
    """Return the faults that the checker finds while something is spoilt, and none when it is no more."""
    guest.insmod(spoil.ko, f"what={what}")
    try:
        merger.check()
        faults = "nothing"
    except CheckFailed as error:
        faults = str(error)
    finally:
        guest.rmmod("spoil")
    merger.check()
    return faults


@pytest.mark.parametrize("kind", FOUND)
def test_what_is_wrong_is_found(
    guest: Guest, merger: Merger, work: MemWork, spoil: BuiltModule, unspoilt: None, kind: str
) -> None:
    merged(merger, work)
    merger["run"] = STOP
    merger.check()
    said = {(what, found): spoilt(guest, merger, spoil, what) for what, found in FOUND[kind]}
    missed = [f"{what}: {faults}" for (what, found), faults in said.items() if found not in faults]
    assert not missed, "\n".join(missed)
    merger["run"] = RUN


def test_a_mapping_too_few_is_shown(
    guest: Guest, merger: Merger, work: MemWork, spoil: BuiltModule, unspoilt: None
) -> None:
    """It is no fault: a process may have it by fork from one that is gone."""
    merged(merger, work)
    merger["run"] = STOP
    guest.insmod(spoil.ko, "what=unreached")
    counts = merger.check()
    guest.rmmod("spoil")
    assert (counts["unreached"], counts["missed"]) == (1, 0)
    merger["run"] = RUN


def test_it_keeps_no_page(guest: Guest, merger: Merger, work: MemWork, spoil: BuiltModule, unspoilt: None) -> None:
    """Other walks of the reverse map would, of one that is timing-safe and was let go of."""
    merger.set_samepage("timing_safe", 1)
    try:
        for _ in range(2):
            work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
        merger["run"] = RUN
        merger.passes(4)
        merger["run"] = STOP
        kept = merger.samepage("kept")
        guest.insmod(spoil.ko, "what=unkept")
        merger.check()
        now = merger.samepage("kept")
        guest.rmmod("spoil")
        assert (kept, now) == (PAGES, PAGES - 1)
    finally:
        merger.set_samepage("timing_safe", 0)


def test_after_each_pass(guest: Guest, merger: Merger, work: MemWork, spoil: BuiltModule, unspoilt: None) -> None:
    """A fault in a pass is a warning, so that whoever waits for the log's complaints hears of it."""
    merged(merger, work)
    guest.write(PARAMETER, "1")
    merger.passes(3)
    with guest.log.expect("faults found after a pass"):
        guest.insmod(spoil.ko, "what=counter")
        merger.passes(2)
    assert guest.read(PARAMETER) == "N", "it does not repeat itself"
    guest.rmmod("spoil")
    merger.check()


def test_only_root_may_read_it(guest: Guest, merger: Merger) -> None:
    assert guest.run(["stat", "-c", "%a %u", CHECK]).text.split() == ["400", "0"]
