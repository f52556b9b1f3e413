# SPDX-License-Identifier: MIT
"""report.html of a run of attacks, for reading offline."""

from __future__ import annotations

from pathlib import Path

from harness.ksm.attack.modes import MODES
from harness.ksm.attack.report.plots import plot_distributions
from harness.ksm.attack.result import AttackResult
from harness.ksm.attack.tables import TIMINGS, TITLES, cell, mark, modes_in, rows
from harness.ksm.report import templates

TEMPLATES = Path(__file__).parent / "templates"


def write_report(result: AttackResult, folder: Path) -> Path:
    """Write report.html next to result.json."""
    environment = templates(TEMPLATES)
    environment.filters |= {"cell": cell, "mark": mark}
    everything = rows(result.figures)
    sections = [
        (
            heading,
            title,
            [row for row in everything if row.attack == attack and row.timing == timing],
            plot_distributions(result, attack, timing),
        )
        for attack, title in TITLES.items()
        for timing, heading in TIMINGS.items()
        if any(row.attack == attack and row.timing == timing for row in everything)
    ]
    text = environment.get_template("attack.html").render(
        title=f"attacks, {result.size}",
        result=result,
        sections=sections,
        modes=[MODES[name] for name in modes_in(result)],
    )
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path
