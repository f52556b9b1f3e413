# SPDX-License-Identifier: MIT
"""report.html: a run, or several side by side, for reading offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from harness.ksm.compare import compare, megabytes, of_expected, scanner_seconds
from harness.ksm.report.plot import Curve, PhaseMark, plot_counters, plot_machines, plot_savings
from harness.ksm.result import Result
from harness.ksm.series import read_series

TEMPLATES = Path(__file__).parent / "templates"
_PLOTTED = {
    "ksm.pages_shared": "pages_shared",
    "ksm.pages_sharing": "pages_sharing",
    "ksm.ksm_zero_pages": "ksm_zero_pages",
    "ksm.pages_unshared": "pages_unshared",
    "ksm.pages_volatile": "pages_volatile",
}

Rows = list[tuple[float, str, dict[str, int]]]


def templates(*folders: Path) -> jinja2.Environment:
    """Return the templates of these folders, and those that every report has."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_report(result: Result, folder: Path) -> Path:
    """Write report.html of a run next to its counters.csv."""
    rows = _rows(folder)
    plots = []
    if rows:
        plots.append(
            ("Saved memory over time", plot_savings([_savings(result.merger, rows)], _phases(rows), result.stages))
        )
        if result.machines and len(result.machines.counts) > 1:
            plots.append(("Memory by number of machines", plot_machines(result.machines, result.guest["memory_mib"])))
        plots.append(("Counters over time", plot_counters(_counter_curves(rows), _phases(rows))))
    return _render("run.html", folder, title=f"{result.workload}, {result.merger}", result=result, plots=plots)


def write_comparison(results: Sequence[Result], folders: Sequence[Path], folder: Path) -> Path:
    """Write report.html of several runs; `folders` holds each one's own report."""
    places = dict(zip(map(id, results), folders, strict=True))
    comparisons = []
    for comparison in compare(results):
        curves = [
            _savings(run.merger, rows, only_phase="merge")
            for run in comparison.runs
            if (rows := _rows(places[id(run)]))
        ]
        links = [places[id(run)].relative_to(folder).as_posix() + "/report.html" for run in comparison.runs]
        comparisons.append((comparison, plot_savings(curves, [], []) if curves else "", links))
    return _render("comparison.html", folder, title=folder.name, comparisons=comparisons, results=results)


def _render(template: str, folder: Path, **values: object) -> Path:
    environment = templates()
    environment.filters |= {"mib": megabytes, "number": lambda value: "-" if value is None else f"{value:,}"}
    environment.globals |= {
        "of_expected": of_expected,
        "scanner_seconds": scanner_seconds,
    }
    path = folder / "report.html"
    path.write_text(environment.get_template(template).render(values), encoding="utf-8")
    return path


def _rows(folder: Path) -> Rows:
    """Return the readings of a run; none where it did not come that far."""
    path = folder / "counters.csv"
    return read_series(path) if path.is_file() and path.stat().st_size else []


def _savings(name: str, rows: Rows, only_phase: str | None = None) -> Curve:
    """Return pages saved over time; of one phase only, from its beginning, if that is given."""
    chosen = [row for row in rows if only_phase in (None, row[1])] or rows[:1]
    begun = chosen[0][0]
    saved = [values["ksm.pages_sharing"] + values.get("ksm.ksm_zero_pages", 0) for _, _, values in chosen]
    return Curve(name, [seconds - begun for seconds, _, _ in chosen], saved)


def _counter_curves(rows: Rows) -> list[Curve]:
    seconds = [row[0] for row in rows]
    return [
        Curve(label, seconds, [values.get(name, 0) for _, _, values in rows])
        for name, label in _PLOTTED.items()
        if any(values.get(name) for _, _, values in rows)
    ]


def _phases(rows: Rows) -> list[PhaseMark]:
    """Return where each phase begins."""
    marks: list[PhaseMark] = []
    for seconds, phase, _ in rows:
        if not marks or marks[-1].name != phase:
            marks.append(PhaseMark(phase, seconds))
    return marks
