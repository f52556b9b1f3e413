# SPDX-License-Identifier: MIT
"""Random steps, contents and all that the module knows checked after each; what fails is made short and kept.

`SAMEPAGE_FUZZ_EXAMPLES` says how many scripts of up to 50 steps (5); `SAMEPAGE_FUZZ_SEED` which ones (a new seed each
time is for long runs: the tests are to be the same from run to run).
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from harness.cli.replay import replay
from harness.cli.soak import soak
from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.channel import Channel
from harness.guest.guest import Guest
from harness.guest.protocol import Frame
from harness.ksm.counters import CounterReader
from harness.ksm.fuzz import tunables
from harness.ksm.fuzz.player import LOCKSTEP, SPEC, Outcome, Player, fresh_player
from harness.ksm.fuzz.soak import STEPS as STEPS_OF_A_ROUND
from harness.ksm.fuzz.soak import Soak, Tally
from harness.ksm.fuzz.steps import BEGIN, LIKELY, VOCABULARY, Step, load, parse, save
from harness.ksm.fuzz.trials import Trials
from harness.ksm.fuzz.writers import end_writing, writing
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


@pytest.fixture
def start(config: Config, module: BuiltModule, tmp_path: Path) -> Callable[..., Player]:
    """Starts a player in a guest of its own, which the caller ends."""
    numbers = iter(range(1_000_000))
    return lambda make=Player: fresh_player(config, module, tmp_path / f"guest-{next(numbers)}", make)


def fuzz(trials: Trials, any_step: st.SearchStrategy[Step], *, examples: int, steps: int) -> None:
    class Fuzz(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            for step in BEGIN:
                trials.play(step)

        @rule(step=any_step)
        def step(self, step: Step) -> None:
            trials.play(step)

        def teardown(self) -> None:
            trials.end()

    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # hypothesis makes the numbers small first, and gives up before most steps are out.
        phases=[Phase.generate],
    )
    run_state_machine_as_test(seed(SEED)(Fuzz), settings=chosen)


def test_random_steps(player: Player, start: Callable[..., Player], tmp_path: Path) -> None:
    with Trials(player, start, tmp_path / "failed.steps") as trials:
        try:
            fuzz(trials, ANY_STEP, examples=EXAMPLES, steps=STEPS)
        except Exception:
            trials.shorten()
            raise


class Planted(Player):
    """Has a fault that stays in the guest: memory is compacted somewhen after a fork."""

    broken = False

    def _check(self) -> None:
        super()._check()
        names = [step.name for step in self.played]
        self.broken |= "fork" in names and "compact" in names[names.index("fork") :]
        if self.broken:
            raise CheckFailed("planted")


def test_what_fails_is_made_short(start: Callable[..., Player], tmp_path: Path) -> None:
    """Each try in a guest without what is broken by the one before. Without a fault the script passes."""
    script = tmp_path / "failed.steps"
    light = st.sampled_from([Step("fork", (0,)), Step("compact"), Step("poke", (0, 0, 7, 3, 1)), Step("spawn")])
    first = start(Planted)
    with first.guest, first, Trials(first, lambda: start(Planted), script) as trials:
        with pytest.raises(CheckFailed, match="planted"):
            fuzz(trials, light, examples=10, steps=8)
        trials.shorten()
        assert trials.guests > 2
    assert "samepage replay" in script.read_text()
    assert [step.name for step in load(script)] == ["fork", "compact"]
    whole = start()
    with whole.guest, whole:
        for step in load(script):
            whole.play(step)
        whole.restart()


def test_what_a_script_leaves_behind_is_its_own_fault(start: Callable[..., Player], tmp_path: Path) -> None:
    """Whatever comes to light only when all is set back, in a guest that has died meanwhile."""
    script = tmp_path / "failed.steps"
    first = start()
    with first.guest, first, Trials(first, start, script) as trials:
        trials.play(Step("spawn"))
        first.guest.qmp.execute("quit")
        with pytest.raises(CheckFailed):
            trials.end()
        assert load(script) == [Step("spawn")]
        trials.end()
        trials.play(Step("spawn"))
        trials.end()
        assert trials.guests == 2


def run_command(
    command: click.Command, words: list[str], config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Result:
    """Run a command of the command line with the configuration of the test; its runs are in tmp_path."""
    own = dataclasses.replace(config, runs=tmp_path / "runs")
    monkeypatch.setattr(f"harness.cli.{command.name}.configured", lambda **_: own)
    return CliRunner().invoke(command, words, standalone_mode=False)


def test_a_script_is_replayed(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save([*BEGIN, Step("fill", (0, 0, 0, 300, 1, 5, 1)), Step("pass", (1,))], tmp_path / "x.steps", "x")
    words = [str(tmp_path / "x.steps"), "--times", "2", "--writers", "3"]
    result = run_command(replay, words, config, tmp_path, monkeypatch)
    assert result.exception is None
    assert result.return_value == 0
    # After each step all that is mapped, and the writers' twice 800 in the end.
    compared = 2 * (400 + 3 * 800 + 2 * 800)
    assert f"12 steps, {compared:,} pages compared, 0 wrong" in result.output


def test_a_script_that_fails_is_a_failed_check(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save([*BEGIN, Step("fork", (0,)), Step("compact")], tmp_path / "x.steps", "x")
    monkeypatch.setattr("harness.ksm.fuzz.player.Player", Planted)
    result = run_command(replay, [str(tmp_path / "x.steps")], config, tmp_path, monkeypatch)
    assert isinstance(result.exception, CheckFailed)
    assert result.exception.exit_code == 1
    assert "0 wrong" not in result.output


def test_in_lockstep_all_repeats(
    config: Config, module: BuiltModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the host is: how far all came, by the guest's clock and the counters of the module and of Linux."""
    steps = [*BEGIN, Step("fill", (0, 0, 0, 300, 1, 5, 1)), Step("fork", (0,)), Step("poke", (0, 0, 7, 30, 1))]
    seen = []
    for number in range(2):
        if number:
            slow_down(monkeypatch)
        player = fresh_player(config, module, tmp_path / f"lockstep-{number}", spec=LOCKSTEP)
        with player.guest, player, writing(player.guest, 1) as writers:
            for step in steps:
                player.play(step)
                time.sleep(number / 5)
            counters = CounterReader(player.guest).read()
            seen.append((player.guest.clocks(), counters, end_writing(writers)))
    first, second = seen
    assert first == second
    assert first[2][0] > 0, "it was not alone"


def slow_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads the guest's frames is slow, and is held up in the middle of them."""
    dispatch = Channel._dispatch

    def slowly(channel: Channel, frame: Frame) -> None:
        time.sleep(0.003)
        dispatch(channel, frame)

    monkeypatch.setattr(Channel, "_dispatch", slowly)


def test_a_soak_leaves_its_figures(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of it."""
    result = run_command(soak, ["--minutes", "0.02", "--seed", "2"], config, tmp_path, monkeypatch)
    assert result.exception is None
    assert result.return_value == 0
    (path,) = (tmp_path / "runs").glob("soak-*/result.json")
    figures = msgspec.json.decode(path.read_bytes())
    steps = len(BEGIN) + STEPS_OF_A_ROUND
    assert (figures["seed"], figures["rounds"], figures["steps"], figures["reloads"]) == (2, 1, steps, 0)
    assert figures["merges"] > 0
    assert figures["writes"] > 0
    assert figures["pages_compared"] > steps * 400
    assert figures["memory_available_mib"] > 0
    kinds = figures["steps_by_kind"]
    assert kinds.keys() == VOCABULARY.keys()
    assert sum(sum(counts.values()) for counts in kinds.values()) == steps
    assert kinds["map"]["done"] >= 2
    assert not list(path.parent.glob("*.steps"))


def test_a_soak_that_fails_leaves_its_script(start: Callable[..., Player], tmp_path: Path) -> None:
    """Of its seventh round; and what the eighth finds when it begins is the seventh's, too."""
    player = start(Planted)
    assert isinstance(player, Planted)
    with player.guest, player:
        soaking = Soak(player, 5, tmp_path)
        soaking.tally += Tally(rounds=6)
        round_ = soaking.round()
        for _ in range(4):
            next(round_)
        player.broken = True
        with pytest.raises(CheckFailed, match="planted"):
            next(round_)
        steps = load(tmp_path / "failed.steps")
        assert steps == list(BEGIN)
        text = (tmp_path / "failed.steps").read_text()
        assert "Seed 5, round 7 of a soak" in text
        assert "--writers 7" in text
        with pytest.raises(CheckFailed, match="planted"):
            list(soaking.round())
        assert load(tmp_path / "failed.steps") == steps


def test_every_file_that_can_be_written_is_tuned(player: Player) -> None:
    folders = ["/sys/kernel/mm/ksm", "/sys/kernel/mm/samepage", "/sys/module/samepage/parameters"]
    writable = player.guest.run(["find", *folders, "-type", "f", "-perm", "/222"]).text.split()
    assert set(writable) == {tunables.path_of(name) for name, _ in tunables.TUNABLES} | tunables.WITH_STEPS
    begin = player.guest.read_files(writable)
    for file, (_, values) in enumerate(tunables.TUNABLES):
        for value in range(len(values)):
            player.play(Step("tune", (file, value)))
    assert player.outcomes == {("tune", Outcome.DONE): sum(len(values) for _, values in tunables.TUNABLES)}
    player.restart()
    assert player.guest.read_files(writable) == begin


# While pages are moved nobody scans: one that the scanner has in hand makes move_pages(2) say EBUSY of all.
ALL = """
    spawn; spawn; map 0 600 1 0; map 1 600 1 1; fill 0 0 0 300 1 0 1; fill 1 0 0 300 1 0 1; fill 0 0 300 300 0 0 0
    run 0; move 0 0 0 100 1; run 1
    any 1 1; tune 2 1; pass 2; fork 0; poke 2 0 7 3 1; pass 2; compact; protect 0 0 0 100 1
    lock 0 0 0 50 1; lock 0 0 0 50 0; advise 0 0 0 100 7; reclaim 8; free 1 0 500 100 3; hotplug 0
    unmap 2 0 100 100 0; unmap 2 0 0 1 1; carry 1 0 200 100; remap 1 0 500; remap 1 0 100; swap 0; swap 1
    become 2 0; enter 1 1; share 0 1; share 0 4; choose 1 1; choose 1 0; common 1 2; pass 1; common 0 0
    exec 2; exit 2; run 2; run 0; run 1; pass 1; reload
"""


def test_a_script_is_played(player: Player, tmp_path: Path) -> None:
    """All kinds of steps, those that take long among them; each does something."""
    text = ALL.replace(";", "\n")
    save(parse(text, "all"), tmp_path / "all.steps", "all")
    steps = load(tmp_path / "all.steps")
    assert {step.name for step in steps} == VOCABULARY.keys()
    came_of = [(str(step), player.play(step).value) for step in steps]
    assert [(step, outcome) for step, outcome in came_of if outcome != "done"] == []
    kinds = Counter(step.name for step in steps)
    assert player.outcomes == {(name, Outcome.DONE): count for name, count in kinds.items()}
    assert player.pages_compared > 1200 * len(steps) / 2


REFUSED_REMAP = "spawn; map 0 200 1 0; fill 0 0 0 200 1 5 1; advise 0 0 0 20 2; remap 0 0 50"
"""Two mappings by their flags: the tail goes, and the rest cannot be moved."""
FREED_BY_A_CHILD = (
    "spawn; map 0 400 1 0; fill 0 0 36 274 1 5 1; reclaim 43; fork 0; free 1 0 252 148 4; reclaim 9; reclaim 9"
)
"""Linux 6.1 and 6.12 lose the parent's pages where the child says MADV_FREE (docs/fuzzing.md)."""
LOCKED_FILLED = "spawn; map 0 300 1 0; fill 0 0 0 300 1 5 1; lock 0 0 100 100 1"
DISCARDED_BUT_FOR_LOCKED = f"{LOCKED_FILLED}; advise 0 0 0 300 3"
"""MADV_DONTNEED is refused for what is locked, when all before it is gone."""
FREED_BUT_FOR_LOCKED = f"{LOCKED_FILLED}; free 0 0 0 300 4; reclaim 43"


@pytest.mark.parametrize("script", [REFUSED_REMAP, FREED_BY_A_CHILD, DISCARDED_BUT_FOR_LOCKED, FREED_BUT_FOR_LOCKED])
def test_what_linux_does_in_part_or_wrong(player: Player, script: str) -> None:
    player.restart()
    for step in parse(script.replace(";", "\n"), "script"):
        player.play(step)
