# SPDX-License-Identifier: MIT
"""Attacks, without a guest: statistics, what scripts tell whom, figures from what a guest said, goals, report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from harness.errors import CheckFailed, SamepageError
from harness.ksm.attack import goals
from harness.ksm.attack import result as results
from harness.ksm.attack.modes import MODES, Mode, ModeName
from harness.ksm.attack.records import parse
from harness.ksm.attack.report import write_report
from harness.ksm.attack.result import AttackResult, Figure, Inputs, Skipped
from harness.ksm.attack.run import Job, NotThere, judged
from harness.ksm.attack.scores import Scored, score
from harness.ksm.attack.scripts import AttackName, Plan
from harness.ksm.attack.sizes import EARLY, SIZES, Channel, Size
from harness.ksm.attack.stats import Estimate, Numbers, auc, capacity, capacity_of, normal_quantile, proportion
from harness.ksm.attack.tables import TITLES, cell, markdown, rows, tables

ATTACKS: tuple[AttackName, ...] = get_args(AttackName)
SIZE = Size(
    writes=40,
    early=40,
    forked=4,
    channels=(Channel(100, 20, 2), Channel(50, 20, 2)),
    secret_bytes=4,
    repeats=1,
    edge=40,
    frames=10,
    requests=8,
    memory_mib=256,
)


def plan(attack: AttackName, mode: ModeName = "in-tree", size: Size = SIZE) -> Plan:
    return Plan(attack, MODES[mode], size, 1)


# Statistics


def test_auc_is_the_share_of_pairs() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        one = random.integers(0, 12, random.integers(2, 40)).astype(float)
        other = random.integers(2, 15, random.integers(2, 40)).astype(float)
        pairs = (one[:, None] > other).mean() + (one[:, None] == other).mean() / 2
        assert auc(one, other).value == pytest.approx(pairs)
        assert auc(other, one).value == pytest.approx(1 - pairs)


def test_classes_that_do_not_overlap_are_not_certain_for_all_that() -> None:
    low, high = np.arange(20.0), np.arange(100.0, 120.0)
    assert auc(high, low).value == auc(high, low).high == 1
    assert 0.5 < auc(high, low).low < 1
    same = auc(np.full(50, 8.0), np.full(50, 8.0))
    assert same.value == 0.5
    assert same.low < 0.45 < 0.55 < same.high
    with pytest.raises(ValueError, match="fewer than two"):
        auc(np.ones(1), np.ones(5))


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_auc_interval_covers_as_often_as_it_says(shift: float) -> None:
    """The true AUC of two normal distributions is known: Phi(shift / sqrt 2)."""
    from statistics import NormalDist

    truth, random, inside = NormalDist().cdf(shift / 2**0.5), np.random.default_rng(2), 0
    for _ in range(400):
        found = auc(random.normal(shift, 1, 60), random.normal(0, 1, 80), level=0.9)
        inside += found.low <= truth <= found.high
    assert 0.86 <= inside / 400 <= 0.94


def test_proportion() -> None:
    found = proportion(0, 10, level=0.95)
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(0.2775, abs=1e-4)  # Brown, Cai, DasGupta 2001
    half = proportion(50, 100, level=0.95)
    assert [half.low, half.high] == pytest.approx([0.4038, 0.5962], abs=1e-4)
    for wrong in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="no share"):
            proportion(*wrong)
    assert normal_quantile(0.95) == pytest.approx(1.96, abs=1e-3)


def test_capacity() -> None:
    assert [capacity(error) for error in (0, 0.5, 1)] == [1, 0, 1]
    assert capacity(0.11) == pytest.approx(0.5, abs=1e-3)
    assert capacity_of(Estimate(0.48, 0.44, 0.52)).low == 0
    worse = capacity_of(Estimate(0.9, 0.8, 0.95))  # more wrong than right is a channel, too
    assert worse.low == pytest.approx(capacity(0.8))
    assert worse.low < worse.value < worse.high


# Scripts


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("attack", ATTACKS)
def test_attackers_are_told_no_secret(attack: AttackName, mode: ModeName) -> None:
    """The numbers that victims draw their secrets from stand in no line to an attacker, and every role is named."""
    lines = plan(attack, mode).script().splitlines()
    told = {name: [line.split()[2:] for line in lines if re.match(f"(tell|begin) {name} ", line)] for name in NAMES}
    secrets = {
        words[SECRETS[words[0]]] for words in told["victim"] + told["sender"] + told["service"] if words[0] in SECRETS
    }
    assert bool(secrets) == (attack != "frame")
    of_attackers = [
        word for name in ("attacker", "cloned", "orphaned", "receiver") for words in told[name] for word in words
    ]
    assert of_attackers
    assert not (secrets - {"0"}) & set(of_attackers)


NAMES = ("victim", "attacker", "cloned", "orphaned", "sender", "receiver", "service")
SECRETS = {"hold": 3, "send": 6, "listen": 2}
"""Which word of a line it is."""


@pytest.mark.parametrize("mode", list(MODES.values()), ids=list(MODES))
def test_parties_are_who_the_mode_says(mode: Mode) -> None:
    roles = [line.split() for line in plan("write", mode.name).script().splitlines() if line.startswith("role ")]
    parties = {name: (int(uid), cgroup) for _, name, uid, cgroup, _, _ in roles}
    assert parties["victim"] == (mode.victim.uid, mode.victim.cgroup)
    assert parties["attacker"] == parties["cloned"] == (mode.attacker.uid, mode.attacker.cgroup)
    assert (mode.victim != mode.attacker) == (mode.name != "timing-safe")
    assert all(uid for uid, _ in parties.values()), "nobody is root"


def test_same_seed_same_script() -> None:
    assert plan("covert").script() == plan("covert").script()
    assert plan("covert").script() != Plan("covert", MODES["in-tree"], SIZE, 2).script()


def test_long_is_long_enough() -> None:
    assert SIZES["long"].writes >= goals.MANY
    random = np.random.default_rng(4)
    half = SIZES["long"].writes // 2
    assert auc(random.normal(0, 1, half), random.normal(0, 1, half)).half_width < goals.NEAR


# Figures


def test_writes_that_take_longer_give_it_away() -> None:
    said = parse(WRITES)
    found = score(plan("write"), "icount", said)
    assert [measure.estimate.value for measure in found.measures] == [1, 1, 0, 1, 1, 1, 1]
    assert [measure.goal.reached if measure.goal else None for measure in found.measures] == [True, True, *[None] * 5]
    assert found.classes["held"].tolist() == list(range(900, 920))
    apart = [measure.goal and measure.goal.reached for measure in score(plan("write", "user"), "icount", said).measures]
    assert apart == [False, None, None, *[False] * 4]


HELD = f"""\
victim held {"01" * 20}
attacker ticks {" ".join(f"8 {900 + number}" for number in range(20))}
"""
WRITES = f"""\
{HELD}cloned ticks 1000 1001 1002 1003
orphaned ticks 100 101 102 103
{HELD * len(EARLY)}"""


def test_both_ways_at_the_edge() -> None:
    longer = HELD.replace("01" * 20, "10" * 20)
    found = score(plan("unmap"), "icount", parse(HELD + longer)).measures
    assert [measure.estimate.value for measure in found] == [0, 1]
    assert [measure.goal and measure.goal.reached for measure in found] == [False, True]


def test_channel_is_as_good_as_its_best_use() -> None:
    message, half_wrong = "0110" * 10, "0101" * 10
    took = " ".join({"0": "8", "1": "900"}[bit] for bit in message)
    said = parse(
        f"sender sent {message}\nreceiver received {half_wrong}\nreceiver ticks {' '.join(['8'] * 40)}\n"
        f"sender sent {message}\nreceiver received {message}\nreceiver ticks {took}\n"
    )
    first, wrong, same, second, right, told = score(plan("covert"), "icount", said).measures
    assert (wrong.estimate.value, right.estimate.value, same.estimate.value, told.estimate.value) == (0.5, 0, 0.5, 1)
    assert first.goal is None
    assert second.goal is not None
    assert second.estimate.value == pytest.approx(40 / 0.15)
    assert second.estimate.high >= second.estimate.value > second.estimate.low
    ours = score(plan("covert", "user"), "icount", said).measures
    assert [measure.goal and measure.goal.reached for measure in ours] == [True, None, True, False, None, False]


@pytest.mark.parametrize(
    ("stolen", "mode", "reached"),
    [
        ("01020304", "in-tree", True),
        ("01020305", "in-tree", False),
        ("ffffffff", "user", True),
        ("01ffffff", "user", True),
        ("0102ffff", "user", False),
        ("0102ffff", "none", None),
    ],
)
def test_secret(stolen: str, mode: ModeName, reached: bool | None) -> None:
    said = parse(f"service secret 01020304\nattacker stolen {stolen}\n")
    (measure,) = score(plan("secret", mode), "icount", said).measures
    assert (measure.goal and measure.goal.reached) == reached


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        ("write", WRITES.replace("held 0", "held ")),
        ("write", WRITES.replace("victim held", "nobody held")),
        ("write", WRITES.replace("held 0", "held x")),
        ("write", WRITES.replace("ticks 8", "ticks 8.5")),
        ("write", WRITES.replace("cloned", "somebody")),
        ("covert", "sender sent 01100101\nreceiver received 0110010\n" * 2),
        ("secret", "service secret 01020304\nattacker stolen 0102\n"),
        ("secret", "service secret 0102030g\nattacker stolen 01020304\n"),
        ("frame", "landed 1 1 9\nlanded 1 1 9\n"),
        ("frame", "landed 1 1 10\n"),
        ("shared", "both x\nvictim held 01\n"),
        ("remote", "error attacker: the service went away\n"),
        ("remote", ""),
    ],
)
def test_guest_that_did_not_say_all(attack: AttackName, text: str) -> None:
    with pytest.raises(CheckFailed, match=rf"^/there: {attack}\.in-tree\.icount: "):
        judged(Job(plan(attack), "icount"), text, Path("/there"))


def test_mode_that_is_not_there() -> None:
    found = judged(Job(plan("write", "timing-safe"), "icount"), "missing /sys/kernel/x\n", Path("/there"))
    assert found == NotThere("no /sys/kernel/x")


# Goals


def test_goals_can_be_missed() -> None:
    chance, known = Estimate(0.5, 0.45, 0.55), Estimate(0.99, 0.98, 1)
    near = Estimate(0.508, 0.501, 0.515)
    found = {
        name: [
            goal.reached if (goal := goals.told_apart(mode, estimate, n, 0.9)) else None
            for estimate, n in ((chance, 100), (known, 100), (near, 100), (near, goals.MANY))
        ]
        for name, mode in MODES.items()
    }
    apart = [True, False, False, True]
    assert found == {
        "in-tree": [False, True, False, False],
        "none": [None] * 4,
        "user": apart,
        "cgroup": apart,
        "timing-safe": apart,
    }


@pytest.mark.parametrize(("mode", "missed"), [("in-tree", 0), ("user", 1), ("cgroup", 1)])
def test_frames(mode: ModeName, missed: int) -> None:
    """As many as the wrong side wants."""
    frames = 0 if mode == "in-tree" else 1
    assert goals.shared(MODES[mode], frames) == goals.Goal("more than 0" if mode == "in-tree" else "0", False)
    assert goals.shared(MODES[mode], 1 - frames) == goals.Goal("more than 0" if mode == "in-tree" else "0", True)
    goal = goals.landed(MODES[mode], proportion(missed, 10))
    assert goal is not None
    assert not goal.reached


def test_pool_of_frames() -> None:
    mode = MODES["timing-safe"]
    assert goals.shared(mode, 5) is None
    few, many = goals.landed(mode, proportion(2, 1000)), goals.landed(mode, proportion(50, 1000))
    assert few is not None
    assert many is not None
    assert (few.reached, many.reached) == (True, False)


# Result and report


def outcome() -> AttackResult:
    scored: list[tuple[Plan, Scored]] = []
    for mode in ("in-tree", "user"):
        one = plan("write", mode)
        scored.append((one, score(one, "icount", parse(WRITES))))
    return AttackResult(
        size="short",
        level=0.999,
        inputs=Inputs(kernel="6.12", qemu="10", image_sha256="a", program_sha256="b", module_sha256=None, seed=1),
        figures=[figure for one, found in scored for figure in found.figures(one, "icount")],
        distributions=[taken for one, found in scored for taken in found.distributions(one, "icount")],
        skipped=[Skipped(attack="write", mode="timing-safe", timing="icount", reason="no <such> file")],
    )


def test_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = results.write(outcome(), tmp_path)
    assert results.read(path) == outcome()
    path.write_bytes(path.read_bytes().replace(b'"schema": 1', b'"schema": 9'))
    with pytest.raises(SamepageError, match="schema 9"):
        results.read(path)
    path.write_text("{}")
    with pytest.raises(SamepageError, match="no result of attacks"):
        results.read(path)


def test_modes_stand_side_by_side() -> None:
    (first, *_) = rows(outcome().figures)
    assert set(first.figures) == {"in-tree", "user"}
    (table,) = tables(outcome())
    assert [column.header for column in table.columns] == ["attack", "in-tree", "user", "timing-safe"]
    assert set(TITLES) == set(ATTACKS)


def test_markdown() -> None:
    text = markdown(outcome())
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[0] == "| | in-tree | user | timing-safe |"
    assert {line.count("|") for line in table} == {5}
    assert any(line.startswith("| held, against not held, AUC | 1.0000 ± ") and "✗" in line for line in table)
    assert "Not there: timing-safe: no <such> file" in text


def test_cells() -> None:
    def shown(value: float, low: float, high: float, unit: str) -> str:
        return cell(
            Figure(
                attack="covert",
                mode="user",
                timing="tcg",
                metric="m",
                value=value,
                low=low,
                high=high,
                n=2000,
                unit=unit,
                goal=None,
                reached=None,
            )
        )

    assert shown(0.5, 0.49, 0.51, "AUC") == "0.5000 ± 0.0100"
    assert shown(3200, 2996.2, 3200, "bit/s") == "3,200 (≥ 2,996)"
    assert shown(8, 8, 8, "bytes") == "8 of 2,000"


def test_report_says_what_was_missed(tmp_path: Path) -> None:
    text = write_report(outcome(), tmp_path).read_text("utf-8")
    assert "goals missed: 5" in text
    assert "no &lt;such&gt; file" in text
    assert text.count("<svg") == 1
    assert "✗" in text


def times(*values: float) -> Numbers:
    return np.array(values, dtype=np.float64)


def test_percentiles() -> None:
    taken = list(Scored([], {"held": times(1, 2, 3)}).distributions(plan("write"), "tcg"))
    assert [(one.label, one.percentiles[0], one.percentiles[50], one.percentiles[100]) for one in taken] == [
        ("held", 1, 2, 3)
    ]
