# SPDX-License-Identifier: MIT
"""What to run: every mode of ksm_tests that this kernel's copy knows, with the arguments of run_vmtests.sh."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One command line of a test program."""

    program: str
    arguments: tuple[str, ...] = ()
    runs: int = 1
    """How often; more than once for what is racy with in-tree KSM too."""
    flaw: str = ""
    """Why a merger that misses nothing fails it; such a case is shown, and not judged."""

    @property
    def name(self) -> str:
        """As a person would type it."""
        return " ".join([self.program, *self.arguments])


_COUNTING = ("-M -p 10", "-U", "-Z -p 10 -z 0", "-Z -p 10 -z 1", "-N -m 1", "-N -m 0")
"""These read counters after a fixed number of passes, which begins in the middle of one: all are racy, with in-tree KSM
too (`-N -m 1` was wrong in 10 of 25 runs on one machine, `-U` in 3 of 25 on another)."""

_FLAWS = {
    "-Z -p 10 -z 0 -t 1": "expects 10 zero pages; an 11th is in the program's .bss, which prctl registers, too",
}
"""In-tree KSM was right in 9, 28 and 16 of 60, 60 and 25 runs, the module in 6, 45 and 1: where the second pass comes
before that page is used."""


def cases(programs: Collection[str], usage: str, *, size_mib: int, racy_runs: int) -> list[Case]:
    """Return what to run. `usage` is what `ksm_tests -h` prints: older kernels have fewer modes."""
    timed = [f"{mode} -s {size_mib}" for mode in ("-P", "-H", "-D") if f"\n {mode} " in usage]
    timed += ["-C"] if "\n -C " in usage else []
    modes = [*((mode, racy_runs) for mode in _COUNTING), *((mode, 1) for mode in timed)]
    if "-t:" in usage:  # PR_SET_MEMORY_MERGE in place of MADV_MERGEABLE
        modes += [(f"{mode} -t 1", runs) for mode, runs in modes]
    found = [Case("ksm_functional_tests")] if "ksm_functional_tests" in programs else []
    return [*found, *(Case("ksm_tests", tuple(mode.split()), runs, _FLAWS.get(mode, "")) for mode, runs in modes)]
