# SPDX-License-Identifier: MIT
"""report.html of a bench run: plots and a table of ratios, for reading offline."""

from __future__ import annotations

from pathlib import Path

from harness.ksm.bench.report.plots import plot_bars, plot_curves, plot_growth, plot_passes
from harness.ksm.bench.result import BenchResult
from harness.ksm.bench.tables import KINDS, MERGERS, number, ratio, rows
from harness.ksm.report import templates

TEMPLATES = Path(__file__).parent / "templates"


def write_report(result: BenchResult, folder: Path) -> Path:
    """Write report.html next to result.json."""
    environment = templates(TEMPLATES)
    environment.filters |= {"number": number, "ratio": ratio}
    everything = rows(result.figures)
    plots = [
        ("Scanning, by content", plot_bars(everything)),
        ("Pass after pass, with smart_scan", plot_passes(result.passes)),
        ("How savings build up", plot_curves(result.curves)),
        ("How cost grows", plot_growth(everything)),
    ]
    text = environment.get_template("bench.html").render(
        title=f"bench, {result.set}",
        result=result,
        plots=[(heading, plot) for heading, plot in plots if plot],
        sections=[(title, [row for row in everything if row.case.kind == kind]) for kind, title in KINDS.items()],
        mergers=MERGERS,
    )
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path
