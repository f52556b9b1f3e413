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
    assert counts["unreached"] == 0
    merger["run"] = STOP
    work.processes[0].fork()
    assert merger.check()["mappings"] == 2 * (PAGES - 9) + 27 + PAGES
    merger["run"] = RUN


@pytest.fixture
def unspoilt(guest: Guest) -> Iterator[None]:
    yield
    if guest.healthy and guest.run(["rmmod", "spoil"], check=False).exit_code == 0:
        raise AssertionError("the test left things spoilt")


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("counter", "pages_sharing is"),
        ("profit", "ksm_merging_pages == sharers"),
        ("key", "signature == stable->key.signature"),
        ("order", "order <= 0"),
        ("colour", "sp_black_above(node) == *height"),
        ("sharers", "count == stable->nr_sharers"),
        ("set", "!(block->candidates & block->sharers)"),
        ("tenant", "unsound tenants is 2"),
        ("number", "item->page == sp_page_number(block, index)"),
    ],
)
def test_what_is_wrong_is_found(
    guest: Guest, merger: Merger, work: MemWork, spoil: BuiltModule, unspoilt: None, what: str, found: str
) -> None:
    merged(merger, work)
    merger["run"] = STOP
    merger.check()
    guest.insmod(spoil.ko, f"what={what}")
    try:
        with pytest.raises(CheckFailed) as error:
            merger.check()
    finally:
        guest.rmmod("spoil")
    assert found in str(error.value)
    merger.check()
    merger["run"] = RUN


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
