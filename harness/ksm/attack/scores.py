# SPDX-License-Identifier: MIT
"""From what a guest said to figures: what the attacker found, against what the victim had."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from harness.errors import CheckFailed
from harness.ksm.attack import goals
from harness.ksm.attack.goals import Goal
from harness.ksm.attack.records import Said
from harness.ksm.attack.result import Distribution, Figure, Timing
from harness.ksm.attack.scripts import AttackName, Plan
from harness.ksm.attack.sizes import EARLY
from harness.ksm.attack.stats import LEVEL, Estimate, Numbers, auc, capacity_of, proportion

LEAST: Mapping[AttackName, Mapping[Timing, float]] = {
    "write": {"icount": 0.98, "tcg": 0.9},
    "covert": {"icount": 0.95, "tcg": 0.75},
    "unmap": {"icount": 0.95, "tcg": 0.75},
    "remote": {"icount": 0.95, "tcg": 0.75},
}
"""AUC that an attack must reach in-tree, else it is no proof of anything. Under `tcg` a busy host blurs all times."""


@dataclass(frozen=True)
class Measure:
    """One of the figures of an attack."""

    metric: str
    estimate: Estimate
    n: int
    unit: str
    goal: Goal | None


@dataclass(frozen=True)
class Scored:
    """All of an attack."""

    measures: list[Measure]
    classes: dict[str, Numbers] = field(default_factory=dict)
    """What things took, by class of page."""

    def figures(self, plan: Plan, timing: Timing) -> Iterator[Figure]:
        """Yield the figures."""
        for measure in self.measures:
            yield Figure(
                attack=plan.attack,
                mode=plan.mode.name,
                timing=timing,
                metric=measure.metric,
                value=round(measure.estimate.value, 5),
                low=round(measure.estimate.low, 5),
                high=round(measure.estimate.high, 5),
                n=measure.n,
                unit=measure.unit,
                goal=measure.goal.text if measure.goal else None,
                reached=measure.goal.reached if measure.goal else None,
            )

    def distributions(self, plan: Plan, timing: Timing) -> Iterator[Distribution]:
        """Yield what things took."""
        for label, took in self.classes.items():
            percentiles = [round(float(value), 1) for value in np.percentile(took, range(101))]
            yield Distribution(
                attack=plan.attack, mode=plan.mode.name, timing=timing, label=label, percentiles=percentiles
            )


def score(plan: Plan, timing: Timing, said: Said) -> Scored:
    """Return the figures of an attack. Raises CheckFailed where the guest did not say all of it."""
    return _SCORES[plan.attack](plan, timing, said)


def _timed(said: Said, count: int, index: int = 0) -> tuple[Numbers, Numbers]:
    """Return what pages with contents that the victim has took, and what the others did."""
    held, took = said.bits("victim held", index), said.figures("attacker ticks", index)
    if not len(held) == len(took) == count:
        raise CheckFailed(f"of {count} pages the guest told {len(held)} and timed {len(took)}")
    return took[held], took[~held]


def _told_apart(
    plan: Plan, timing: Timing, metric: str, longer: Numbers, shorter: Numbers, level: float = LEVEL
) -> Measure:
    estimate, n = auc(longer, shorter, level), len(longer) + len(shorter)
    return Measure(metric, estimate, n, "AUC", goals.told_apart(plan.mode, estimate, n, LEAST[plan.attack][timing]))


def _write(plan: Plan, timing: Timing, said: Said) -> Scored:
    """A page that fork has write-protected is the hard case: its first write takes a fault, too.

    While the child lives that fault copies the page, as for a merged one: this is for comparison, as is all of it where
    nothing is merged. In-tree it is enough that an attacker who waits succeeds.
    """
    held, other = _timed(said, plan.size.writes)
    cloned, orphaned = said.figures("cloned ticks"), said.figures("orphaned ticks")
    hard = _told_apart(plan, timing, "held, against write-protected by fork", held, orphaned)
    copied = _told_apart(plan, timing, "held, against shared with a child", held, cloned)
    measures = [
        _told_apart(plan, timing, "held, against not held", held, other),
        hard if plan.mode.name == "in-tree" else replace(hard, goal=None),
        replace(copied, goal=None),
    ]
    for number, passes in enumerate(EARLY, 1):
        soon = _told_apart(plan, timing, f"the first, after passes: {passes}", *_timed(said, plan.size.early, number))
        measures.append(replace(soon, goal=None) if plan.mode.name == "in-tree" else soon)
    return Scored(
        measures,
        {"held": held, "not held": other, "write-protected by fork": orphaned, "shared with a child": cloned},
    )


def _unmap(plan: Plan, timing: Timing, said: Said) -> Scored:
    """Both ways: an unmap that frees nothing is shorter, and so is a write to a copy that found the frame full."""
    held, other = _timed(said, plan.size.edge)
    held_, other_ = _timed(said, plan.size.edge, 1)
    measures = [
        _told_apart(plan, timing, "last copy unmapped: not held, against held", other, held),
        _told_apart(plan, timing, "shortest write to a copy: not held, against held", other_, held_),
    ]
    return Scored(measures, {"held": held, "not held": other})


def _remote(plan: Plan, timing: Timing, said: Said) -> Scored:
    held, other = _timed(said, plan.size.requests)
    return Scored([_told_apart(plan, timing, "held, against not held", held, other)], {"held": held, "not held": other})


def _covert(plan: Plan, timing: Timing, said: Said) -> Scored:
    """In-tree the best way to use the channel counts: some are too fast for the merger. Elsewhere all of them do.

    What the pages took is compared with the message itself as well: a better receiver finds no more than that.
    """
    channels = plan.size.channels
    level = 1 - (1 - LEVEL) / len(channels)  # one of many may look good by luck
    uses = [_use(plan, timing, said, number, level) for number in range(len(channels))]
    best = max(range(len(uses)), key=lambda number: uses[number][0].estimate.low)
    if plan.mode.name == "in-tree":
        uses = [
            use if number == best else [replace(measure, goal=None) for measure in use]
            for number, use in enumerate(uses)
        ]
    return Scored([measure for use in uses for measure in use])


def _use(plan: Plan, timing: Timing, said: Said, number: int, level: float) -> list[Measure]:
    """Return rate, error rate, and how well times tell bits apart, of one way to use the channel."""
    channel = plan.size.channels[number]
    sent, received = said.bits("sender sent", number), said.bits("receiver received", number)
    took = said.figures("receiver ticks", number)
    if not len(sent) == len(received) == len(took) == channel.bits:
        raise CheckFailed(f"of {channel.bits} bits {len(sent)} were sent and {len(received)} received")
    error = proportion(int((sent != received).sum()), len(sent), level)
    carried, raw = capacity_of(error), channel.bits / channel.seconds
    rate = Estimate(carried.value * raw, carried.low * raw, carried.high * raw)
    return [
        Measure(f"rate, {channel.name}", rate, channel.bits, "bit/s", goals.carried(plan.mode, rate)),
        Measure(f"wrong bits, {channel.name}", error, channel.bits, "share", None),
        _told_apart(plan, timing, f"1 against 0, {channel.name}", took[sent], took[~sent], level),
    ]


def _secret(plan: Plan, _: Timing, said: Said) -> Scored:
    secret, stolen = said.data("service secret"), said.data("attacker stolen")
    if not len(secret) == len(stolen) == plan.size.secret_bytes:
        raise CheckFailed(f"of {plan.size.secret_bytes} bytes there are {len(secret)}, guessed {len(stolen)}")
    right = sum(one == other for one, other in zip(secret, stolen, strict=True))
    goal = goals.recovered(plan.mode, right, len(secret))
    return Scored([Measure("bytes recovered", _exactly(right), len(secret), "bytes", goal)])


def _frame(plan: Plan, _: Timing, said: Said) -> Scored:
    """In-tree one of the two orders is enough. What the attacker gave up the kernel may hand out: for comparison."""
    tries = [said.numbers("landed", number) for number in range(2)]
    if any(total != plan.size.frames for *_, total in tries):
        raise CheckFailed(f"of {plan.size.frames} pages the guest looked at {tries}")
    best = max((0, 1), key=lambda number: tries[number][0])
    measures = []
    for number, (same, any_, total) in enumerate(tries):
        when, share = ("after", "before")[number], proportion(same, total)
        goal = goals.landed(plan.mode, share) if plan.mode.name != "in-tree" or number == best else None
        measures.append(
            Measure(f"in the frame of its equal, attacker comes {when} the victim", share, total, "share", goal)
        )
        anywhere = proportion(any_, total)
        measures.append(Measure(f"in any frame of the attacker's, who comes {when}", anywhere, total, "share", None))
    return Scored(measures)


def _shared(plan: Plan, _: Timing, said: Said) -> Scored:
    (frames,) = said.numbers("both")
    held = int(said.bits("victim held").sum())
    return Scored([Measure("frames that both map", _exactly(frames), held, "frames", goals.shared(plan.mode, frames))])


def _exactly(count: int) -> Estimate:
    return Estimate(count, count, count)


_SCORES: Mapping[AttackName, Callable[[Plan, Timing, Said], Scored]] = {
    "write": _write,
    "covert": _covert,
    "secret": _secret,
    "unmap": _unmap,
    "frame": _frame,
    "remote": _remote,
    "shared": _shared,
}
