# SPDX-License-Identifier: MIT
"""The rows as a table, as TAP and as JUnit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import junitparser
from rich.markup import escape
from rich.table import Table

from harness.ksm.selftests.judge import Row, Tally, Verdict
from harness.ksm.selftests.run import Outcome

STYLE = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.SKIP: "dim",
    Verdict.BOTH_FAIL: "yellow",
    Verdict.FLAWED: "yellow",
}


def table(rows: Sequence[Row], title: str) -> Table:
    """Return what a terminal shows."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    shown.add_column("test", overflow="fold")  # whole names on a narrow terminal, too
    for column in ("in-tree", "samepage", "verdict"):
        shown.add_column(column)
    for row in rows:
        cells = [escape(_cell(tally)) for tally in (row.in_tree, row.samepage)]
        shown.add_row(escape(row.name), *cells, f"[{STYLE[row.verdict]}]{row.verdict}[/]")
    flaws = [f"{row.name}: {row.flaw}" for row in rows if row.verdict is Verdict.FLAWED]
    shown.caption = "\n".join(escape(flaw) for flaw in flaws) or None
    return shown


def _cell(tally: Tally) -> str:
    first = tally.text.partition("\n")[0][:60]
    return f"{tally}, {first}" if first and (tally.failed or tally.skipped or "MiB/s" in first) else str(tally)


def write_tap(rows: Sequence[Row], path: Path) -> None:
    """Write one test point for each row: `ok` unless the module fails what in-tree KSM passes."""
    lines = ["TAP version 13", f"1..{len(rows)}"]
    for number, row in enumerate(rows, 1):
        word = "not ok" if row.verdict is Verdict.FAIL else "ok"
        directive = f" # SKIP {row.samepage.text}" if row.verdict is Verdict.SKIP else ""
        lines.append(f"{word} {number} - {row.name}{directive}")
        lines += [f"# wrong test: {row.flaw}"] if row.flaw else []
        lines += [f"# in-tree: {_one_line(row.in_tree)}", f"# samepage: {_one_line(row.samepage)}"]
    path.write_text("\n".join([*lines, ""]), "utf-8")


def _one_line(tally: Tally) -> str:
    return f"{tally}: {' / '.join(tally.text.splitlines())}" if tally.text else str(tally)


def write_junit(rows: Sequence[Row], suite_name: str, path: Path) -> None:
    """Write one test case for each row; what both mergers did is in its output."""
    suite = junitparser.TestSuite(suite_name)
    for row in rows:
        case = junitparser.TestCase(row.name, classname=suite_name, time=round(row.seconds, 3))
        case.system_out = f"in-tree: {_one_line(row.in_tree)}\nsamepage: {_one_line(row.samepage)}\n"
        if row.verdict is Verdict.FAIL:
            case.result = [junitparser.Failure(f"in-tree: {row.in_tree}, samepage: {_one_line(row.samepage)}")]
        elif row.verdict is not Verdict.PASS:
            case.result = [junitparser.Skipped(f"{row.verdict}: {row.flaw or _one_line(row.samepage)}")]
        suite.add_testcase(case)
    xml = junitparser.JUnitXml()
    xml.add_testsuite(suite)
    xml.write(str(path), pretty=True)


def write_outputs(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write down what every program printed."""
    text = "".join(f"==== {outcome.case.name} ({outcome.seconds:.1f} s)\n{outcome.output}\n" for outcome in outcomes)
    path.write_text(text, "utf-8")
