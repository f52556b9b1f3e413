# SPDX-License-Identifier: MIT
"""Random steps for as long as one likes, beside processes that write all the time, and what came of it.

In rounds: a script of random steps, each of which is followed by all checks (harness/ksm/fuzz/player.py), while the
writers' pages are merged and written. Then the writers stop and are compared, and now and then the module is loaded
anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from harness.ksm.chance import Chance
from harness.ksm.counters import CounterReader, Counters
from harness.ksm.fuzz.player import Outcome, Player
from harness.ksm.fuzz.steps import BEGIN, LIKELY, VOCABULARY, Step, save
from harness.ksm.fuzz.writers import end_writing, writing

STEPS = 50
"""Of a round."""
ROUNDS_TO_RELOAD = 8


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What was done so far. What was wrong is in no tally: a soak ends with it."""

    rounds: int = 0
    steps: int = 0
    """Each followed by a comparison of all pages and by the module's own checks."""
    merges: int = 0
    copies: int = 0
    """Of merged pages, made by writes and by unmerging."""
    writes: int = 0
    """Of the writers."""
    pages_compared: int = 0
    reloads: int = 0
    memory_available_mib: int = 0
    """In the end."""

    def __add__(self, other: Tally) -> Tally:
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        return Tally(**sums | {"memory_available_mib": other.memory_available_mib or self.memory_available_mib})


class Soak:
    """Rounds, one after another, in one guest."""

    def __init__(self, player: Player, seed: int, scripts: Path) -> None:
        """`scripts`: the folder for the script of a round that fails."""
        self._player = player
        self._seed = seed
        self._chance = Chance(seed, "soak")
        self._script = scripts / "failed.steps"
        self.tally = Tally()

    def round(self) -> Iterator[Step]:
        """Yield each step before it is played. Raises what Player.play raises, the script saved."""
        number = self.tally.rounds
        reloads = number % ROUNDS_TO_RELOAD == ROUNDS_TO_RELOAD - 1
        steps = [*([Step("reload")] if reloads else []), *BEGIN, *(self._any_step() for _ in range(STEPS))]
        try:
            self._player.restart()
        except Exception:  # the round before left what was found now
            self._save(number)
            raise
        try:
            yield from self._play(steps, number)
        except Exception:
            self._save(number + 1)
            raise

    def by_kind(self) -> dict[str, dict[str, int]]:
        """Return how often each kind of step was done, refused, and idle (Outcome)."""
        outcomes = self._player.outcomes
        return {name: {each.value: outcomes[name, each] for each in Outcome} for name in VOCABULARY}

    def _play(self, steps: Sequence[Step], number: int) -> Iterator[Step]:
        player = self._player
        compared = player.pages_compared
        with writing(player.guest, number) as writers:
            counters = CounterReader(player.guest)
            before = counters.read()
            for step in steps:
                yield step
                if step.name == "reload":
                    self._count(before, counters.read())
                player.play(step)
                if step.name == "reload":
                    before = counters.read()  # the module's own begin anew
            writes, own = end_writing(writers)
            self._count(before, counters.read())
        self.tally += Tally(
            rounds=1,
            steps=len(steps),
            writes=writes,
            pages_compared=player.pages_compared - compared + own,
            reloads=sum(step.name == "reload" for step in steps),
        )

    def _save(self, round_: int) -> None:
        kernel = self._player.guest.image.kernel
        again = f"samepage replay {self._script} --writers {max(round_, 1)} --kernel {kernel}"
        if self._player.guest.spec.lockstep:
            again += f" --lockstep\nExactly: samepage soak --lockstep --seed {self._seed} --kernel {kernel}"
        save(self._player.played, self._script, f"Seed {self._seed}, round {round_} of a soak\n{again}")

    def _count(self, before: Counters, after: Counters) -> None:
        """Take over what was merged and copied between two looks at the counters of one loading of the module."""
        self.tally += Tally(
            merges=after["samepage.merges"] - before["samepage.merges"],
            copies=_copies(after) - _copies(before),
            memory_available_mib=after["meminfo.MemAvailable_kb"] // 1024,
        )

    def _any_step(self) -> Step:
        name = LIKELY[self._chance.below(len(LIKELY))]
        bounds = VOCABULARY[name]
        return Step(name, tuple(bound.low + self._chance.below(bound.high - bound.low + 1) for bound in bounds))


def _copies(counters: Counters) -> int:
    return counters["vmstat.cow_ksm"] + counters["samepage.unmerged"]
