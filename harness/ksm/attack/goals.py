# SPDX-License-Identifier: MIT
"""What is wanted of each measure: that the attack succeeds on in-tree KSM, and that it does not where a mode promises.

An attack that fails in-tree proves nothing about the other modes, so that counts as a goal that was missed as well.
`none` promises nothing, and is there for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.ksm.attack.modes import Mode
from harness.ksm.attack.stats import Estimate

MANY = 20_000
"""Timed pages from which on an AUC at chance must be within NEAR of one half, and not only its interval."""
NEAR = 0.01
POOL = 1024
"""Frames from which one is drawn for a merged page in timing-safe mode (kmod/frames.c)."""


@dataclass(frozen=True)
class Goal:
    """What is wanted, and whether it was reached."""

    text: str
    reached: bool


def told_apart(mode: Mode, estimate: Estimate, n: int, least: float) -> Goal | None:
    """Judge an AUC: at least `least` in-tree, else one half."""
    if mode.name == "in-tree":
        return Goal(f"at least {least:g}", estimate.value >= least)
    if mode.protection == "open":
        return None
    if n < MANY:
        return Goal("0.5 in the interval", estimate.low <= 0.5 <= estimate.high)
    return Goal(f"0.5 ± {NEAR:g}", abs(estimate.value - 0.5) <= NEAR)


def carried(mode: Mode, rate: Estimate) -> Goal | None:
    """Judge what a channel carries for certain."""
    if mode.name == "in-tree":
        return Goal("more than 0", rate.low > 0)
    return None if mode.protection == "open" else Goal("0 above noise", rate.low == 0)


def recovered(mode: Mode, count: int, total: int) -> Goal | None:
    """Judge how many bytes of a secret were guessed: one by luck is one chance in 256 for each of them."""
    if mode.name == "in-tree":
        return Goal("all", count == total)
    return None if mode.protection == "open" else Goal("1 at most", count <= 1)


def landed(mode: Mode, share: Estimate) -> Goal | None:
    """Judge how often the victim's content lies in the frame that the attacker chose."""
    if mode.name == "in-tree":
        return Goal("at least 0.5", share.value >= 0.5)
    if mode.protection == "timing-safe":
        return Goal(f"1/{POOL}, or not above for certain", share.low <= 1 / POOL)
    return None if mode.protection == "open" else Goal("0", share.value == 0)


def shared(mode: Mode, frames: int) -> Goal | None:
    """Judge how many frames both parties map. Within a domain that is what merging is for."""
    if mode.name == "in-tree":
        return Goal("more than 0", frames > 0)
    return Goal("0", frames == 0) if mode.protection == "apart" else None
