# SPDX-License-Identifier: MIT
"""Attacks on merging in their smallest size: in-tree KSM falls to each, and across domains each is at chance.

`samepage attack` makes them with enough trials to say more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from harness.config import Config
from harness.ksm.attack.guests import Tools, prepare
from harness.ksm.attack.modes import MODES, ModeName
from harness.ksm.attack.result import Figure
from harness.ksm.attack.run import Job, NotThere, Outcome, collect, run_all
from harness.ksm.attack.scores import Scored
from harness.ksm.attack.scripts import AttackName, Plan
from harness.ksm.attack.sizes import SIZES

ATTACKS: tuple[AttackName, ...] = get_args(AttackName)
AT_ONCE = 2

pytestmark = pytest.mark.usefixtures("stock_kernel")


@pytest.fixture(scope="module")
def tools(config: Config) -> Tools:
    return prepare(config, config.kernel, module=True)


def make(
    config: Config, tools: Tools, folder: Path, attack: AttackName, *modes: ModeName, fresh: bool = False
) -> dict[Job, Outcome]:
    jobs = [Job(Plan(attack, MODES[mode], SIZES["smallest"], 1), "icount") for mode in modes]
    return run_all(config, tools, jobs, folder, at_once=AT_ONCE, fresh=fresh)


def judge(tools: Tools, done: dict[Job, Outcome], modes: Sequence[ModeName]) -> None:
    """Every mode has at least one goal, and all are reached."""
    result = collect("smallest", tools, 1, done)
    assert not result.missed, "\n".join(map(said, result.missed))
    assert {figure.mode for figure in result.figures if figure.reached} == set(modes)


def said(figure: Figure) -> str:
    return f"{figure.attack}, {figure.mode}, {figure.metric}: {figure.value} ({figure.low} to {figure.high})"


@pytest.mark.parametrize("attack", ATTACKS)
def test_in_tree_falls_and_users_are_apart(config: Config, tools: Tools, tmp_path: Path, attack: AttackName) -> None:
    done = make(config, tools, tmp_path, attack, "in-tree", "user")
    judge(tools, done, ["in-tree", "user"])


@pytest.mark.parametrize("attack", ["write", "shared"])
def test_cgroups_are_apart(config: Config, tools: Tools, tmp_path: Path, attack: AttackName) -> None:
    judge(tools, make(config, tools, tmp_path, attack, "cgroup"), ["cgroup"])


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack != "shared"])
def test_time_tells_nothing(config: Config, tools: Tools, tmp_path: Path, attack: AttackName) -> None:
    """Within a domain, where frames are shared as ever."""
    done = make(config, tools, tmp_path, attack, "timing-safe")
    (outcome,) = done.values()
    if isinstance(outcome, NotThere):
        pytest.skip(f"this module has no timing-safe mode: {outcome.reason}")
    judge(tools, done, ["timing-safe"])


def test_every_run_gives_the_same_figures(config: Config, tools: Tools, tmp_path: Path) -> None:
    first, second = (make(config, tools, tmp_path, "write", "in-tree", fresh=fresh) for fresh in (False, True))
    assert collect("smallest", tools, 1, first) == collect("smallest", tools, 1, second)


def test_plain_emulation(config: Config, tools: Tools, tmp_path: Path) -> None:
    """The host's time blurs what a write takes, and a copy still shows."""
    jobs = [Job(Plan("write", MODES[mode], SIZES["smallest"], 1), "tcg") for mode in ("in-tree", "user")]
    done = run_all(config, tools, jobs, tmp_path, at_once=1)
    assert all(isinstance(outcome, Scored) for outcome in done.values())
    judge(tools, done, ["in-tree", "user"])
