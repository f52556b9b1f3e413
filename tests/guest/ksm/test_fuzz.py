# SPDX-License-Identifier: MIT
"""Random steps, contents and all that the module knows checked after each; what fails is made short and kept.

`SAMEPAGE_FUZZ_EXAMPLES` says how many scripts of up to 50 steps (5); `SAMEPAGE_FUZZ_SEED` which ones (a new seed each
time is for long runs: the tests are to be the same from run to run).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from harness.guest.guest import Guest
from harness.ksm.fuzz.player import Player
from harness.ksm.fuzz.steps import BEGIN, LIKELY, VOCABULARY, Step, load, save
from harness.module.build import BuiltModule

EXAMPLES = int(os.environ.get("SAMEPAGE_FUZZ_EXAMPLES", "5"))
SEED = int(os.environ.get("SAMEPAGE_FUZZ_SEED", "1"))
STEPS = 50

pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2, numa_nodes=2)


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
    assert player.pages_compared > 300 * len(VOCABULARY) / 2
