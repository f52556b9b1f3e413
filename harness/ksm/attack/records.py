# SPDX-License-Identifier: MIT
"""What `attack direct` said: a line `LABEL WORD ...` a record (images/guest/attack/director.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckFailed
from harness.ksm.attack.stats import Numbers


@dataclass(frozen=True)
class Said:
    """All records of a guest: by name, in their order."""

    lines: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def missing(self) -> str | None:
        """The file without which nothing was done."""
        return self.lines["missing"][0] if "missing" in self.lines else None

    def text(self, name: str, index: int = 0) -> str:
        """Return a record's words. Raises CheckFailed where there is no such record."""
        found = self.lines.get(name, ())
        if index >= len(found):
            names = ", ".join(self.lines) or "nothing"
            raise CheckFailed(f"the guest said {name!r} {len(found)} times, not {index + 1}; it said {names}")
        return found[index]

    def numbers(self, name: str, index: int = 0) -> list[int]:
        """Return a record of numbers."""
        words = self.text(name, index)
        try:
            return [int(word) for word in words.split()]
        except ValueError as error:
            raise CheckFailed(f"the guest's {name!r} are no numbers: {words[:80]}") from error

    def figures(self, name: str, index: int = 0) -> Numbers:
        """Return a record of numbers to count with."""
        return np.array(self.numbers(name, index), dtype=np.float64)

    def bits(self, name: str, index: int = 0) -> NDArray[np.bool_]:
        """Return a record of digits 0 and 1."""
        digits = self.text(name, index)
        if set(digits) - set("01"):
            raise CheckFailed(f"the guest's {name!r} are no bits: {digits[:80]}")
        return np.array([digit == "1" for digit in digits])

    def data(self, name: str) -> bytes:
        """Return a record of bytes."""
        try:
            return bytes.fromhex(self.text(name))
        except ValueError as error:
            raise CheckFailed(f"the guest's {name!r} are no bytes: {self.text(name)[:80]}") from error


def parse(text: str) -> Said:
    """Read all records. Raises CheckFailed for an error that the guest reports.

    A role's record is `NAME LABEL WORDS`, and its name here `NAME LABEL`.
    """
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        label, _, rest = line.partition(" ")
        if label == "error":
            raise CheckFailed(f"the attack could not be carried out: {rest}")
        if label in ROLES:
            part, _, rest = rest.partition(" ")
            label = f"{label} {part}"
        lines.setdefault(label, []).append(rest)
    return Said(lines)


ROLES = frozenset({"victim", "attacker", "cloned", "orphaned", "sender", "receiver", "service"})
"""Names of roles in scripts."""
