# SPDX-License-Identifier: MIT
"""KCSAN and the log gate see a data race of a module's; `make test-races` shows that ours has none."""

from __future__ import annotations

import re

import pytest

from harness.config import Config
from harness.guest.errors import KernelSplat
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import build_module
from tests.guest.ksm.control import Merger
from tests.guest.splat import SPLAT

pytestmark = [pytest.mark.guest(cpus=2), pytest.mark.usefixtures("watches_races")]


def watched(guest: Guest) -> int:
    """Return how many accesses KCSAN has watched since boot."""
    found = re.search(r"^setup_watchpoints: (\d+)$", guest.read("/sys/kernel/debug/kcsan"), re.MULTILINE)
    assert found
    return int(found[1])


def test_what_the_module_does_is_watched(merger: Merger, work: MemWork) -> None:
    """Linux itself asks for some, so that a module which is not instrumented would not show otherwise."""
    before = watched(merger.guest)
    merger.set_samepage("threads", 2)
    for _ in range(4):
        work.process().map(pages=1000).fill(Kind.FILLED, 93 << 40, step=1)
    merger.merge(work)
    assert watched(merger.guest) - before > 10_000


@pytest.mark.splats_allowed
def test_a_planted_race_is_seen(config: Config, fresh_guest: Guest) -> None:
    fresh_guest.insmod(build_module(config, SPLAT, config.kernel).ko)
    with pytest.raises(KernelSplat) as caught:
        fresh_guest.write("/sys/kernel/debug/splat/provoke", "race")
    assert caught.value.splats[0].kind == "KCSAN"
    assert "data-race in race" in str(caught.value)
