# SPDX-License-Identifier: MIT
"""One table and one JUnit file for all runs: a row for each test, a column for each kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import junitparser
from rich.markup import escape
from rich.table import Table

from harness.errors import SamepageError
from harness.matrix.run import Ran

STYLE = {"pass": "green", "fail": "bold red", "error": "bold red", "skip": "dim"}


def merge(done: Sequence[Ran], broken: Mapping[str, SamepageError]) -> junitparser.JUnitXml:
    """Return all results as one document, a suite for each kernel and file; what could not run is an error in it."""
    merged = junitparser.JUnitXml("matrix")
    for ran in done:
        if ran.junit is None:
            merged.add_testsuite(_without_result(ran.run.kernel, ran.run.file.stem, ran.error))
            continue
        for suite in junitparser.JUnitXml.fromfile(str(ran.junit)):
            suite.name = f"{ran.run.kernel} {ran.run.file.stem}"
            for case in suite:
                case.classname = f"{ran.run.kernel}.{case.classname}"
            merged.add_testsuite(suite)
    for kernel, error in broken.items():
        merged.add_testsuite(_without_result(kernel, "image and module", str(error)))
    merged.update_statistics()  # type: ignore[no-untyped-call]
    return merged


def _without_result(kernel: str, what: str, why: str) -> junitparser.TestSuite:
    case = junitparser.TestCase(what, classname=kernel, time=0.0)
    case.result = [junitparser.Error(why)]
    suite = junitparser.TestSuite(f"{kernel} {what}")
    suite.add_testcase(case)
    return suite


def table(merged: junitparser.JUnitXml, kernels: Sequence[str]) -> Table:
    """Return what a terminal shows."""
    cells: dict[str, dict[str, Counter[str]]] = {}
    reasons: dict[tuple[str, str], str] = {}
    for suite in merged:
        kernel = str(suite.name).partition(" ")[0]
        for case in suite:
            # One row for all parameters of a test: test_mode[-M] and test_mode[-U].
            row = f"{str(case.classname).rpartition('.')[2]} {str(case.name).partition('[')[0]}"
            outcome, reason = _outcome(case)
            cells.setdefault(row, {}).setdefault(kernel, Counter())[outcome] += 1
            reasons[row, kernel] = reason or reasons.get((row, kernel), "")
    shown = Table(title="Matrix", title_justify="left", title_style="bold")
    shown.add_column("test", overflow="fold")  # whole names on a narrow terminal, too
    for kernel in kernels:
        shown.add_column(kernel)
    for row, by_kernel in cells.items():
        texts = [_cell(by_kernel.get(kernel, Counter()), reasons.get((row, kernel), "")) for kernel in kernels]
        shown.add_row(escape(row), *texts)
    return shown


def _outcome(case: junitparser.TestCase) -> tuple[str, str]:
    for result in case.result:
        if isinstance(result, junitparser.Failure):
            return "fail", ""
        if isinstance(result, junitparser.Error):
            return "error", str(result.message)
        if isinstance(result, junitparser.Skipped):
            return "skip", str(result.message)
    return "pass", ""


def _cell(counts: Counter[str], reason: str) -> str:
    worst = next((name for name in ("error", "fail", "pass", "skip") if counts[name]), None)
    if worst is None:
        return "-"
    number = f"{counts[worst]} of {counts.total()} " if counts.total() > 1 and counts[worst] < counts.total() else ""
    why = f": {escape(reason.partition(chr(10))[0][:50])}" if worst in ("skip", "error") and reason else ""
    return f"[{STYLE[worst]}]{number}{worst}[/]{why}"
