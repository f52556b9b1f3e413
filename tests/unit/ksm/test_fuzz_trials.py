# SPDX-License-Identifier: MIT
"""Scripts that fail are made short, and saved with what began them; no guest is needed to see that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm.chance import Chance
from harness.ksm.fuzz.player import Outcome, Player
from harness.ksm.fuzz.steps import BEGIN, LIKELY, VOCABULARY, Step, load
from harness.ksm.fuzz.trials import Trials


class Pretending(Player):
    """Does nothing, in no guest. Has a fault that stays, where the steps make it."""

    def __init__(self, makes_fault: Callable[[list[str]], bool]) -> None:
        self.guest = create_autospec(Guest, instance=True)
        self.played = []
        self.outcomes = Counter()
        self.failed = False
        self.given_up = False
        self._makes_fault = makes_fault
        self._broken = False

    def _do(self, step: Step) -> Outcome:
        return Outcome.DONE

    def _check(self) -> None:
        self._broken |= self._makes_fault([step.name for step in self.played])
        if self._broken:
            raise CheckFailed("planted")

    def restart(self) -> None:
        with self._failing():
            self._check()
        self.played.clear()

    def give_up(self) -> None:
        self.given_up = True

    def __exit__(self, *_: object) -> None:
        self.given_up = True


def fork_then_compact(names: list[str]) -> bool:
    return "fork" in names and "compact" in names[names.index("fork") :]


def any_steps(seed: int) -> list[Step]:
    chance = Chance(seed, "trials")
    names = [LIKELY[chance.below(len(LIKELY))] for _ in range(50)]
    names[10], names[40] = "fork", "compact"
    return [Step(name, tuple(bound.low for bound in VOCABULARY[name])) for name in names]


def play_all(trials: Trials, steps: Iterable[Step]) -> None:
    for step in steps:
        trials.play(step)


@pytest.mark.parametrize("seed", range(20))
def test_a_long_script_is_made_short(seed: int, tmp_path: Path) -> None:
    players = [Pretending(fork_then_compact)]

    def start() -> Player:
        assert players[-1].given_up
        players.append(Pretending(fork_then_compact))
        return players[-1]

    with Trials(players[0], start, tmp_path / "x.steps") as trials:
        with pytest.raises(CheckFailed):
            play_all(trials, [*BEGIN, *any_steps(seed)])
        trials.shorten(tries=60)
    assert [step.name for step in load(tmp_path / "x.steps")] == ["fork", "compact"]
    assert trials.guests == len(players) > 2
    assert all(player.given_up for player in players)


def test_what_never_fails_again_stays_whole(tmp_path: Path) -> None:
    """Nor is a script saved that passed."""
    first, sound = Pretending(fork_then_compact), Pretending(lambda _: False)
    trials = Trials(first, lambda: sound, tmp_path / "x.steps")
    with pytest.raises(CheckFailed):
        play_all(trials, any_steps(1))
    failed = trials.failing
    trials.shorten()
    assert trials.failing == failed == load(tmp_path / "x.steps")
    assert (trials.guests, trials.player) == (2, sound)


def test_what_comes_to_light_at_the_end_belongs_to_the_script(tmp_path: Path) -> None:
    found: list[list[str]] = []
    player = Pretending(lambda names: len(found) == 1)
    with Trials(player, lambda: Pretending(lambda _: False), tmp_path / "x.steps") as trials:
        trials.play(Step("spawn"))
        found.append([])
        with pytest.raises(CheckFailed):
            trials.end()
        trials.end()
        assert player.failed
    assert player.given_up
    assert load(tmp_path / "x.steps") == [Step("spawn")]


def test_steps_are_counted_by_what_came_of_them() -> None:
    player = Pretending(lambda _: False)
    for name in ("spawn", "spawn", "compact"):
        assert player.play(Step(name)) is Outcome.DONE
    player.restart()
    assert player.outcomes == {("spawn", Outcome.DONE): 2, ("compact", Outcome.DONE): 1}
