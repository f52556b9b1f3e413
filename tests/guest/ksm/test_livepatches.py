# SPDX-License-Identifier: MIT
"""Other livepatches in the same kernel: each goes its own way, and none may take the module's functions away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule, build_module
from tests.guest.ksm.control import Merger

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


@pytest.mark.parametrize("replace", [0, 1])
def test_ours_comes_last(
    guest: Guest, merger: Merger, module: BuiltModule, beside: BuiltModule, work: MemWork, replace: int
) -> None:
    guest.rmmod("samepage")
    guest.insmod(beside.ko, f"replace={replace}")
    guest.insmod(module.ko)
    assert in_force(guest)
    merger.merges_all(work, KEY)
    guest.rmmod("samepage")
    assert in_force(guest)
    merger.merges_all(work, KEY)  # in-tree
    guest.rmmod("beside")
    assert not in_force(guest)
    guest.insmod(module.ko)
    merger.merges_all(work, KEY)


def test_ours_comes_first(
    guest: Guest, merger: Merger, module: BuiltModule, beside: BuiltModule, work: MemWork
) -> None:
    merger.merges_all(work, KEY)
    guest.insmod(beside.ko)
    assert in_force(guest)
    merger.merges_all(work, KEY)
    guest.rmmod("beside")
    merger.merges_all(work, KEY)
    guest.insmod(beside.ko)
    guest.rmmod("samepage")
    assert in_force(guest)
    merger.merges_all(work, KEY)  # in-tree
    guest.insmod(module.ko)
    merger.merges_all(work, KEY)


def test_who_would_replace_ours_is_refused(guest: Guest, merger: Merger, beside: BuiltModule, work: MemWork) -> None:
    """It would take our functions away without a word, under merged pages that only they can deal with."""
    merger.merges_all(work, KEY)
    with pytest.raises(CheckFailed, match="Invalid"):
        guest.insmod(beside.ko, "replace=1")
    assert (
        "Livepatch patch (beside) is not compatible with the already installed livepatches" in guest.run(["dmesg"]).text
    )
    assert not in_force(guest)
    assert guest.run(["ls", LIVEPATCHES]).text.split() == ["samepage"]
    assert guest.read(LIVEPATCHES + "samepage/enabled") == "1"
    work.check()
    merger.merges_all(work, KEY)
