# SPDX-License-Identifier: MIT
"""Allocations of the module's fail, each in turn and all of them: that costs savings, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from harness.guest.errors import GuestFileError
from harness.guest.faults import failing, module_code, module_functions
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.link import WorkError
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, UNMERGE, Merger

PAGES = 400
KEY = 67 << 40
EVERY = (1, 3, 5, 7, 9, 11, 17, 23)
"""Of the allocations below any function of the module, every so manieth fails. An even one would be kmemleak's in each
case, which makes a record below each of them and can do without."""
SITES = ("sp_block_new", "sp_block_id_get", "sp_item_new", "sp_stable_alloc")
"""Functions of the scanner's that allocate; inlined ones belong to who calls them."""

pytestmark = [pytest.mark.guest(memory_mib=512, cpus=2), pytest.mark.usefixtures("watches_memory")]


def fill(work: MemWork) -> None:
    for number in range(3):
        area = work.process().map(pages=PAGES)
        area.fill(Kind.FILLED, KEY, step=1, pages=range(150))
        area.fill(Kind.FILLED, KEY - 1, pages=range(150, 200))
        area.fill(Kind.ZERO, pages=range(200, 250))
        area.fill(Kind.FILLED, KEY + (number + 1 << 20), step=1, pages=range(250, PAGES))


def merge_and_break(merger: Merger, work: MemWork) -> None:
    """What is in reach of a scanner: merging, copies, candidates that change, pages that come by fork and go."""
    merger["run"] = RUN
    merger.passes()
    work.check()
    for number, process in enumerate(work.processes):
        process.areas[0].poke_each([(page, 40, page) for page in range(number, PAGES, 9)])
    merger.passes()
    with suppress(GuestFileError):  # copies need memory
        merger["run"] = UNMERGE
    work.check()
    merger["run"] = RUN
    merger.passes()
    work.check()


@contextmanager
def short_of_memory(guest: Guest, code: range, *, probability: int = 100, interval: int = 1) -> Iterator[None]:
    """Allocations fail, some at least. The kernel tells of those whose failure it does not expect: of copies."""
    with guest.log.allow("page allocation failure"):
        with failing(guest, code, probability=probability, interval=interval) as failures:
            yield
        guest.run(["true"])  # the log is read up to here
    assert failures.count > 0


def merges_all(merger: Merger, work: MemWork) -> None:
    """As if nothing had been."""
    merger.check()
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()


@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("every", EVERY)
def test_many_fail(guest: Guest, merger: Merger, work: MemWork, every: int, zero: int) -> None:
    merger["use_zero_pages"] = zero
    fill(work)
    with short_of_memory(guest, module_code(guest, "samepage"), interval=every):
        merge_and_break(merger, work)
    merges_all(merger, work)


@pytest.mark.parametrize("site", SITES)
def test_one_fails_always(guest: Guest, module: BuiltModule, merger: Merger, work: MemWork, site: str) -> None:
    guest.rmmod(module.name)  # what it has made room for, it keeps
    guest.insmod(module.ko)
    merger.hurry()
    fill(work)
    with short_of_memory(guest, module_functions(guest, "samepage")[site]):
        merge_and_break(merger, work)
    merges_all(merger, work)


def test_registering_fails(guest: Guest, merger: Merger, work: MemWork) -> None:
    """Both of what it allocates; test_nth.py fails one of them."""
    fill(work)
    area = work.process().map(pages=PAGES, merge=False)
    area.fill(Kind.FILLED, KEY, step=1)
    function = module_functions(guest, "samepage")["sp_enter"]
    with failing(guest, function) as failures, pytest.raises(WorkError, match="ENOMEM"):
        area.process.merge_any()
    assert failures.count == 2
    merges_all(merger, work)


def test_a_fork_that_is_not_registered(guest: Guest, module: BuiltModule, merger: Merger, work: MemWork) -> None:
    """Linux forks all the same: the child has merged pages that only a search of all processes finds."""
    fill(work)
    merger.merge(work)
    function = module_functions(guest, "samepage")["sp_enter"]
    with failing(guest, function) as failures:
        child = work.processes[0].fork()
    assert failures.count == 2
    merger.passes()
    assert merger.check()["spaces"] == 3
    child.areas[0].poke_each([(page, 40, page) for page in range(0, PAGES, 7)])
    work.check()
    guest.rmmod(module.name)
    work.check()
    child.areas[0].poke_each([(page, 41, page) for page in range(0, PAGES, 5)])
    guest.insmod(module.ko)
    merger.hurry()
    work.check()
    child.exit()
    merges_all(merger, work)


def test_with_several_scanners(guest: Guest, merger: Merger, work: MemWork) -> None:
    fill(work)
    merger.set_samepage("threads", 3)
    with short_of_memory(guest, module_code(guest, "samepage"), probability=30):
        merge_and_break(merger, work)
    merger.set_samepage("threads", 1)
    merges_all(merger, work)
