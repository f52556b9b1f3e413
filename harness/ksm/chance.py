# SPDX-License-Identifier: MIT
"""Chance that comes out the same with every version of every library: numbers from a seed and a label alone."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from harness.ksm.content import GAMMA, Words, mix


class Chance:
    """A stream of numbers."""

    def __init__(self, seed: int, *label: object) -> None:
        text = "/".join(str(part) for part in (seed, *label))
        self._key = np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
        self._taken = 0

    def words(self, count: int) -> Words:
        """Return the next `count` 64-bit numbers."""
        steps = np.arange(self._taken + 1, self._taken + count + 1, dtype=np.uint64)
        self._taken += count
        return mix(self._key + steps * GAMMA)

    def word(self) -> int:
        """Return the next 64-bit number."""
        return int(self.words(1)[0])

    def below(self, limit: int) -> int:
        """Return a number from 0 to limit - 1 (with a bias that does not matter here)."""
        return self.word() % limit

    def order(self, count: int) -> NDArray[np.int64]:
        """Return the numbers 0 to count - 1 in a random order."""
        return np.argsort(self.words(count), kind="stable")
