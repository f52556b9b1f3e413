# SPDX-License-Identifier: MIT
"""Random steps for as long as one likes, beside processes that write all the time, and what came of it.

In rounds: a script of random steps, each of which is followed by all checks (harness/ksm/fuzz/player.py), while the
writers' pages are merged and written. Then the writers stop and are compared, and now and then the module is loaded
anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from harness.ksm.chance import Chance
from harness.ksm.content import Kind
from harness.ksm.counters import CounterReader, Counters
from harness.ksm.fuzz.player import Player
from harness.ksm.fuzz.steps import BEGIN, LIKELY, VOCABULARY, Step, save
from harness.ksm.memwork import MemWork

STEPS = 50
"""Of a round."""
ROUNDS_TO_RELOAD = 8
WRITERS, WRITER_PAGES, WRITES_PER_SECOND = 2, 800, 400
_KEY = 71 << 40


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
        self._chance = Chance(seed, "soak")
        self._scripts = scripts
        self.tally = Tally()

    def round(self) -> Iterator[Step]:
        """Yield each step before it is played. Raises what Player.play raises, the script saved."""
        player, number = self._player, self.tally.rounds
        compared = player.pages_compared
        player.restart()
        reloads = number % ROUNDS_TO_RELOAD == ROUNDS_TO_RELOAD - 1
        steps = [*([Step("reload")] if reloads else []), *BEGIN, *(self._any_step() for _ in range(STEPS))]
        try:
            with MemWork(player.guest) as writers:
                _begin_writing(writers, number)
                counters = CounterReader(player.guest)
                before = counters.read()
                for step in steps:
                    yield step
                    if step.name == "reload":
                        self._count(before, counters.read())
                    player.play(step)
                    if step.name == "reload":
                        before = counters.read()  # the module's own begin anew
                writes = sum(process.stop_rewriting() for process in writers.processes)
                own = writers.check()
                self._count(before, counters.read())
        except Exception:
            save(player.played, self._scripts / "failed.steps", f"round {number + 1} of a soak")
            raise
        self.tally += Tally(
            rounds=1,
            steps=len(steps),
            writes=writes,
            pages_compared=player.pages_compared - compared + own,
            reloads=sum(step.name == "reload" for step in steps),
        )

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


def _begin_writing(writers: MemWork, round_: int) -> None:
    """Half of each process stays as it is, the same in all; the other half is rewritten without an end."""
    half = WRITER_PAGES // 2
    for number in range(WRITERS):
        area = writers.process().map(pages=WRITER_PAGES)
        area.fill(Kind.FILLED, _KEY, step=1, pages=range(half))
        area.rewrite(
            _KEY + (round_ * WRITERS + number << 20), per_second=WRITES_PER_SECOND, pages=range(half, WRITER_PAGES)
        )


def _copies(counters: Counters) -> int:
    return counters["vmstat.cow_ksm"] + counters["samepage.unmerged"]
