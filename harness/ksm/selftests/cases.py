# SPDX-License-Identifier: MIT
"""What to run: every mode of ksm_tests that this kernel's copy knows, with run_vmtests.sh's arguments where it has any."""

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

    @property
    def name(self) -> str:
        """As a person would type it."""
        return " ".join([self.program, *self.arguments])


RACY = "-N -m 1"
"""Wrong in 10 of 25 runs with in-tree KSM: the pages are looked at before the second pass is sure to have seen them."""


def cases(programs: Collection[str], usage: str, *, size_mib: int, racy_runs: int) -> list[Case]:
    """Return what to run. `usage` is what `ksm_tests -h` prints: older kernels have fewer modes."""
    modes = ["-M -p 10", "-U", "-Z -p 10 -z 0", "-Z -p 10 -z 1", RACY, "-N -m 0"]
    modes += [f"{mode} -s {size_mib}" for mode in ("-P", "-H", "-D") if f"\n {mode} " in usage]
    modes += ["-C"] if "\n -C " in usage else []
    if "-t:" in usage:
        modes += [f"{mode} -t 1" for mode in modes]  # PR_SET_MEMORY_MERGE in place of MADV_MERGEABLE
    found = [Case("ksm_functional_tests")] if "ksm_functional_tests" in programs else []
    return [*found, *(Case("ksm_tests", tuple(mode.split()), racy_runs if RACY in mode else 1) for mode in modes)]
