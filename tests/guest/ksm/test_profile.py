# SPDX-License-Identifier: MIT
"""Profiles of both mergers: the sum is the kernel's, what is known to be hot is on top, and all of it repeats."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import Config
from harness.ksm.bench.cases import Case
from harness.ksm.profile.run import TOLERANCE, Job, Profile, prepare, profile
from harness.ksm.result import Merger

pytestmark = pytest.mark.usefixtures("stock_kernel")

CASE = Case("passes", "unique", processes=2, pages=512)


def taken(
    config: Config, merger: Merger, folder: Path, case: Case = CASE
) -> tuple[Profile, dict[tuple[str, ...], int]]:
    # The plugin's hooks are those of the kernel that the figures in docs/ are for.
    tools = prepare(config, "6.12", module=merger == "samepage")
    return profile(config, tools, Job(case, merger, skip=0, passes=2), folder)


@pytest.mark.parametrize(("merger", "hot"), [("in-tree", "xxh64"), ("samepage", "sp_sample")])
def test_hot_functions_and_sum(config: Config, tmp_path: Path, merger: Merger, hot: str) -> None:
    outcome, stacks = taken(config, merger, tmp_path)
    assert outcome.schedstat > 0
    assert abs(outcome.difference) < TOLERANCE
    assert sum(function.own for function in outcome.functions) == outcome.instructions
    assert hot in [function.name for function in outcome.functions[:3]]
    # The thread's function is below nearly everything: the calls were followed.
    thread = {"in-tree": "ksm_scan_thread", "samepage": "sp_scan_thread"}[merger]
    below = sum(count for stack, count in stacks.items() if thread in stack)
    assert below > 0.98 * outcome.instructions
    if merger == "in-tree":
        # A checksum of each page in either pass, 3552 instructions each: nothing is lost and nothing doubled.
        own = next(function.own for function in outcome.functions if function.name == "xxh64")
        assert own == outcome.pages * outcome.passes * 3552


def test_who_waits_for_a_long_pass_takes_nothing_of_it(config: Config, tmp_path: Path) -> None:
    """Where PID 1 wants the CPU while it waits, it gets a part of the bill for it (images/bench/init.c)."""
    outcome, _ = taken(
        config, "samepage", tmp_path, Case("passes", "unique", processes=4, pages=4096, smart_scan=False)
    )
    assert abs(outcome.difference) < TOLERANCE / 2


def test_a_profile_repeats(config: Config, tmp_path: Path) -> None:
    first, second = (taken(config, "samepage", tmp_path / name) for name in ("first", "second"))
    assert first == second
