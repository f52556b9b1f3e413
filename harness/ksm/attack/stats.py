# SPDX-License-Identifier: MIT
"""How well figures tell two classes apart, what a channel carries, and how sure that is.

Every interval is two-sided with LEVEL. That is wide on purpose: a report has dozens of figures, each of which a chance
of one in a thousand is to call wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.999

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


def normal_quantile(level: float = LEVEL) -> float:
    """Return how many standard errors a two-sided interval reaches to each side."""
    return NormalDist().inv_cdf((1 + level) / 2)


def auc(positive: Numbers, negative: Numbers, level: float = LEVEL) -> Estimate:
    """Return the chance that a figure of `positive` is the larger one of a pair, ties counting half.

    That is the area under the ROC curve (Mann-Whitney). The interval is DeLong's (Biometrics 44, 1988, p. 837); where
    its variance vanishes, as when the classes do not overlap, the binomial one of that many pairs at most.
    """
    _check(positive, negative)
    over = _placements(positive, negative)
    under = 1 - _placements(negative, positive)
    value = float(over.mean())
    variance = _variance(over) / len(over) + _variance(under) / len(under)
    if variance == 0:
        edge = proportion(round(value * min(len(over), len(under))), min(len(over), len(under)), level)
        return Estimate(value, min(edge.low, value), max(edge.high, value))
    reach = normal_quantile(level) * math.sqrt(variance)
    return Estimate(value, max(value - reach, 0.0), min(value + reach, 1.0))


def proportion(count: int, total: int, level: float = LEVEL) -> Estimate:
    """Return a share with Wilson's interval (JASA 22, 1927, p. 209)."""
    if not 0 <= count <= total or not total:
        raise ValueError(f"{count} of {total} is no share")
    share, z = count / total, normal_quantile(level)
    scale = 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Estimate(share, max(min(middle - reach, share), 0.0), min(max(middle + reach, share), 1.0))


def capacity(error: float) -> float:
    """Return how many bits a binary symmetric channel with this error rate carries with each of its bits."""
    if error in (0, 1):
        return 1.0
    return 1 + error * math.log2(error) + (1 - error) * math.log2(1 - error)


def capacity_of(error: Estimate) -> Estimate:
    """Return the capacity with its interval: 0 at its lower end where the error rate may be one half."""
    ends = capacity(error.low), capacity(error.high)
    low = 0.0 if error.low <= 0.5 <= error.high else min(ends)
    return Estimate(capacity(error.value), low, max(ends))


def _placements(figures: Numbers, others: Numbers) -> Numbers:
    """Return for each figure the share of the others that it is larger than, ties counting half."""
    ordered = np.sort(others)
    below, not_above = np.searchsorted(ordered, figures, "left"), np.searchsorted(ordered, figures, "right")
    placed: Numbers = (below + not_above) / (2 * len(ordered))
    return placed


def _variance(values: Numbers) -> float:
    return float(values.var(ddof=1))


def _check(*classes: Numbers) -> None:
    if any(len(figures) < 2 for figures in classes):
        raise ValueError("a class has fewer than two figures")
