# SPDX-License-Identifier: MIT
"""Reading the module's checker (docs/module.md): it walks all that the module owns and says what is wrong."""

from __future__ import annotations

from typing import Protocol

from harness.errors import CheckFailed

CHECK = "/sys/kernel/debug/samepage/check"
TIMEOUT = 120.0


class Reader(Protocol):
    """Where a file can be read: a guest."""

    def read(self, path: str, timeout: float = ...) -> str:
        """Return a file's text."""


def check(guest: Reader) -> dict[str, int]:
    """Let the module check all that it knows; return what it counted. CheckFailed when it finds a fault."""
    lines = guest.read(CHECK, timeout=TIMEOUT).splitlines()
    faults = [line for line in lines if line.startswith("fault: ")]
    counts = {name: int(value) for name, value in (line.split() for line in lines[len(faults) :])}
    if faults or counts["faults"]:
        raise CheckFailed("the module found faults in what it knows", where=CHECK, hint="\n".join(faults))
    return counts
