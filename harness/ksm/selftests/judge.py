# SPDX-License-Identifier: MIT
"""Two mergers side by side: the module must pass whatever in-tree KSM passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.ksm.selftests.parse import Status
from harness.ksm.selftests.run import Outcome

ENOUGH_RUNS = 25
"""Runs of a racy test from which on the module may not be wrong more often than in-tree KSM; with fewer that would be
chance, and it must only be right at least once where in-tree KSM is."""


class Verdict(StrEnum):
    """What a row comes to."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    BOTH_FAIL = "fails in-tree too"
    FLAWED = "wrong test"


@dataclass(frozen=True)
class Tally:
    """How the runs of one check ended."""

    passed: int
    failed: int
    skipped: int
    text: str
    """What the last one of the more telling kind said."""

    @property
    def runs(self) -> int:
        """All of them."""
        return self.passed + self.failed + self.skipped

    def __str__(self) -> str:
        if self.runs == 0:
            return "absent"
        if self.runs == 1:
            return "pass" if self.passed else "fail" if self.failed else "skip"
        return f"{self.passed} of {self.runs} pass"


@dataclass(frozen=True)
class Row:
    """One check, with both mergers."""

    name: str
    in_tree: Tally
    samepage: Tally
    seconds: float
    """Of the module's runs."""
    flaw: str = ""
    """Why a right merger fails it, if so."""

    @property
    def verdict(self) -> Verdict:
        """Judge the module by in-tree KSM."""
        ours, theirs = self.samepage, self.in_tree
        if ours.failed == 0 and ours.runs > 0 and (ours.passed or not theirs.passed):
            return Verdict.PASS if ours.passed else Verdict.SKIP
        if theirs.passed == 0:
            return Verdict.BOTH_FAIL if theirs.runs else Verdict.FAIL
        if self.flaw and ours.runs:
            return Verdict.FLAWED
        enough = ours.runs >= ENOUGH_RUNS
        right = ours.failed <= theirs.failed if enough else ours.runs > 1 and ours.passed > 0
        return Verdict.PASS if right else Verdict.FAIL


def compare(in_tree: Iterable[Outcome], samepage: Iterable[Outcome]) -> list[Row]:
    """Return a row for each check that either of the two made."""
    in_tree, samepage = list(in_tree), list(samepage)
    theirs, ours = _by_name(in_tree), _by_name(samepage)
    flaws = {outcome.case.name: outcome.case.flaw for outcome in [*in_tree, *samepage]}

    def row(name: str) -> Row:
        seconds = sum(seconds for _, _, seconds in ours.get(name, []))
        return Row(name, _tally(theirs.get(name, [])), _tally(ours.get(name, [])), seconds, flaws.get(name, ""))

    return [row(name) for name in dict.fromkeys([*theirs, *ours])]


_Entry = tuple[Status, str, float]


def _by_name(outcomes: Iterable[Outcome]) -> dict[str, list[_Entry]]:
    found: dict[str, list[_Entry]] = {}
    for outcome in outcomes:
        for check in outcome.checks:
            name = f"{outcome.case.name}: {check.name}" if check.name else outcome.case.name
            seconds = 0.0 if check.name else outcome.seconds  # only the whole program is timed
            found.setdefault(name, []).append((check.status, check.text, seconds))
    return found


def _tally(entries: Sequence[_Entry]) -> Tally:
    counts = Counter(status for status, _, _ in entries)
    failed = counts[Status.FAIL] + counts[Status.SILENT]
    texts = [text for status, text, _ in entries if text and (status is not Status.PASS or not failed)]
    return Tally(counts[Status.PASS], failed, counts[Status.SKIP], texts[-1] if texts else "")
