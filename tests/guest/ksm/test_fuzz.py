# SPDX-License-Identifier: MIT
"""Random steps, contents and all that the module knows checked after each; what fails is made short and kept.

`SAMEPAGE_FUZZ_EXAMPLES` says how many scripts of up to 50 steps (5); `SAMEPAGE_FUZZ_SEED` which ones (a new seed each
time is for long runs: the tests are to be the same from run to run).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from harness.guest.guest import Guest
from harness.ksm.fuzz.player import SPEC, Player
from harness.ksm.fuzz.steps import BEGIN, LIKELY, VOCABULARY, Step, load, parse, save
from harness.module.build import BuiltModule

EXAMPLES = int(os.environ.get("SAMEPAGE_FUZZ_EXAMPLES", "5"))
SEED = int(os.environ.get("SAMEPAGE_FUZZ_SEED", "1"))
STEPS = 50

pytestmark = pytest.mark.guest(**dataclasses.asdict(SPEC))


def steps_of(name: str) -> st.SearchStrategy[Step]:
    numbers = st.tuples(*(st.integers(bound.low, bound.high) for bound in VOCABULARY[name]))
    return st.builds(Step, st.just(name), numbers)


ANY_STEP = st.one_of(*map(steps_of, LIKELY))


@pytest.fixture
def player(guest: Guest, module: BuiltModule) -> Iterator[Player]:
    with Player(guest, module) as player:
        yield player


def test_random_steps(player: Player, tmp_path: Path) -> None:
    script = tmp_path / "failed.steps"

    class Fuzz(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            player.restart()
            for step in BEGIN:
                player.play(step)

        @rule(step=ANY_STEP)
        def step(self, step: Step) -> None:
            try:
                player.play(step)
            except Exception:
                save(player.played, script, f"samepage replay {script}")
                raise

    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # A guest that is gone cannot try shorter scripts.
        phases=[Phase.generate, Phase.shrink],
    )
    run_state_machine_as_test(seed(SEED)(Fuzz), settings=chosen)


def test_a_script_is_played(player: Player, tmp_path: Path) -> None:
    """One of every kind of step, those that take long among them."""
    numbers = {name: tuple(bound.low for bound in bounds) for name, bounds in VOCABULARY.items()}
    numbers["map"] = (0, 300, 1, 0)
    names = ["spawn", "map", "fill", "fork", "pass", *VOCABULARY]
    save([Step(name, numbers[name]) for name in names], tmp_path / "all.steps", "one of each")
    for step in load(tmp_path / "all.steps"):
        player.play(step)
    assert player.blocks_moved == 1
    assert player.pages_compared > 300 * len(VOCABULARY) / 2


REFUSED_REMAP = "spawn; map 0 200 1 0; fill 0 0 0 200 1 5 1; advise 0 0 0 20 2; remap 0 0 50"
"""Two mappings by their flags: the tail goes, and the rest cannot be moved."""
FREED_BY_A_CHILD = (
    "spawn; map 0 400 1 0; fill 0 0 36 274 1 5 1; reclaim 43; fork 0; free 1 0 252 148 4; reclaim 9; reclaim 9"
)
"""Linux 6.1 and 6.12 lose the parent's pages where the child says MADV_FREE (docs/fuzzing.md)."""


@pytest.mark.parametrize("script", [REFUSED_REMAP, FREED_BY_A_CHILD])
def test_what_linux_does_in_part_or_wrong(player: Player, script: str) -> None:
    player.restart()
    for step in parse(script.replace(";", "\n"), "script"):
        player.play(step)
