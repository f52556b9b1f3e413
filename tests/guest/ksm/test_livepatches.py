# SPDX-License-Identifier: MIT
"""Other livepatches in the same kernel: each goes its own way, and none may take the module's functions away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule, build_module
from tests.guest.ksm.control import RUN, UNMERGE, Merger

PAGES = 300
KEY = 31 << 40
LIVEPATCHES = "/sys/kernel/livepatch/"


@pytest.fixture(scope="module")
def beside(config: Config) -> BuiltModule:
    """A livepatch of what /proc/cmdline shows."""
    return build_module(config, config.root / "tests/guest/modules/beside", config.kernel)


@pytest.fixture(autouse=True)
def _clean(guest: Guest, merger: Merger) -> Iterator[None]:  # merger: ours is loaded before and after
    yield
    if guest.healthy and in_force(guest):
        guest.rmmod("beside")


def in_force(guest: Guest) -> bool:
    return guest.read("/proc/cmdline") == "beside"


def merges(merger: Merger, work: MemWork) -> None:
    """Everything that can be merged is, and what is not any more is not."""
    merger.hurry()
    while len(work.processes) < 2:
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger["run"] = UNMERGE
    assert merger.counts() == (0, 0, 0)
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (PAGES, PAGES, 0)
    work.check()


@pytest.mark.parametrize("replace", [0, 1])
def test_ours_comes_last(
    guest: Guest, merger: Merger, module: BuiltModule, beside: BuiltModule, work: MemWork, replace: int
) -> None:
    guest.rmmod("samepage")
    guest.insmod(beside.ko, f"replace={replace}")
    guest.insmod(module.ko)
    assert in_force(guest)
    merges(merger, work)
    guest.rmmod("samepage")
    assert in_force(guest)
    merges(merger, work)  # in-tree
    guest.rmmod("beside")
    assert not in_force(guest)
    guest.insmod(module.ko)
    merges(merger, work)


def test_ours_comes_first(
    guest: Guest, merger: Merger, module: BuiltModule, beside: BuiltModule, work: MemWork
) -> None:
    merges(merger, work)
    guest.insmod(beside.ko)
    assert in_force(guest)
    merges(merger, work)
    guest.rmmod("beside")
    merges(merger, work)
    guest.insmod(beside.ko)
    guest.rmmod("samepage")
    assert in_force(guest)
    merges(merger, work)  # in-tree
    guest.insmod(module.ko)
    merges(merger, work)


def test_who_would_replace_ours_is_refused(guest: Guest, merger: Merger, beside: BuiltModule, work: MemWork) -> None:
    """It would take our functions away without a word, under merged pages that only they can deal with."""
    merges(merger, work)
    with pytest.raises(CheckFailed, match="Invalid"):
        guest.insmod(beside.ko, "replace=1")
    assert (
        "Livepatch patch (beside) is not compatible with the already installed livepatches" in guest.run(["dmesg"]).text
    )
    assert not in_force(guest)
    assert guest.run(["ls", LIVEPATCHES]).text.split() == ["samepage"]
    assert guest.read(LIVEPATCHES + "samepage/enabled") == "1"
    work.check()
    merges(merger, work)
