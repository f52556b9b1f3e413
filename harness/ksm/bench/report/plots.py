# SPDX-License-Identifier: MIT
"""Plots as SVG text: the same bytes for the same figures. An empty text where nothing of the kind was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.ksm.bench.result import Curve, PassCosts
from harness.ksm.bench.sets import GROWTH_PASSES
from harness.ksm.bench.tables import MERGERS, Row
from harness.ksm.report.plot import COLOURS, STYLE, as_svg

_PHASES = ("first pass", "second pass", "steady state")
_COST = "instructions per page and pass"
_PANELS = 4
"""In a row."""


def plot_bars(rows: Sequence[Row]) -> str:
    """Draw the cost of each phase for each content, on a logarithmic scale."""
    chosen = [row for row in rows if row.case.kind == "passes" and row.case.steady_passes > GROWTH_PASSES]
    titles = list(dict.fromkeys(row.case.title for row in chosen))
    if not titles:
        return ""
    values = {(row.case.title, row.metric, merger): row.values[merger] for row in chosen for merger in row.values}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.2 + 0.34 * len(titles)), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, phase in zip(panels, _PHASES, strict=True):
            for index, merger in enumerate(MERGERS):
                places = [number + (0.2 if index else -0.2) for number in range(len(titles))]
                widths = [max(values.get((title, phase, merger), 0), 0) for title in titles]
                axes.barh(places, widths, height=0.38, color=COLOURS[merger], label=merger)
            axes.set_xscale("log")
            axes.set_xlim(1, 200_000)
            axes.set_title(phase, fontsize=10)
            axes.set_xlabel(_COST, fontsize=8)
        panels[0].set_yticks(range(len(titles)), titles)
        panels[0].set_ylim(len(titles) - 0.4, -0.6)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncol=2, frameon=False)
        return as_svg(figure)


def plot_passes(passes: Sequence[PassCosts]) -> str:
    """Draw what each pass cost, a panel for each content: those that smart_scan makes cheap show."""
    chosen = [
        costs
        for costs in passes
        if costs.case.seed == 1 and costs.case.smart_scan and costs.case.steady_passes > GROWTH_PASSES
    ]
    titles = list(dict.fromkeys(costs.case.title for costs in chosen))
    if not titles:
        return ""
    lines = -(-len(titles) // _PANELS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 0.5 + 1.9 * lines), layout="constrained")
        panels = figure.subplots(lines, _PANELS, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, title in zip(panels, titles, strict=False):
            for costs in (costs for costs in chosen if costs.case.title == title):
                points = [value / costs.pages for value in costs.scanner_instructions]
                axes.step(range(1, len(points) + 1), points, where="mid", color=COLOURS[costs.merger])
                axes.plot([], [], color=COLOURS[costs.merger], label=costs.merger)
            axes.set_yscale("log")
            axes.set_title(title, fontsize=9)
        for axes in panels[len(titles) :]:
            axes.set_visible(False)
        figure.supxlabel("pass", fontsize=8)
        figure.supylabel(_COST, fontsize=8)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncol=2, frameon=False)
        return as_svg(figure)


def plot_curves(curves: Sequence[Curve]) -> str:
    """Draw savings over the instructions of the merging threads, a panel for each content."""
    chosen = [curve for curve in curves if curve.case.seed == 1]
    titles = list(dict.fromkeys(curve.case.title for curve in chosen))
    if not titles:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        panels = figure.subplots(1, len(titles), squeeze=False, sharey=True)[0]
        for axes, title in zip(panels, titles, strict=True):
            for curve in (curve for curve in chosen if curve.case.title == title):
                millions = [0.0, *(value / 1e6 for value in curve.scanner_instructions)]
                percent = [0.0, *(100 * pages / curve.possible for pages in curve.saved)]
                axes.plot(millions, percent, color=COLOURS[curve.merger], linewidth=2, label=curve.merger)
            axes.set_title(title, fontsize=10)
            axes.set_ylim(0, 103)
        figure.supxlabel("million instructions of the merging threads", fontsize=8)
        panels[0].set_ylabel("saved, % of what is possible")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncol=2, frameon=False)
        return as_svg(figure)


def plot_growth(rows: Sequence[Row]) -> str:
    """Draw cost per page against registered memory, and against the number of processes."""
    chosen = [row for row in rows if row.case.kind == "passes" and row.case.steady_passes == GROWTH_PASSES]
    if not chosen:
        return ""
    with mpl.rc_context(STYLE):
        contents = list(dict.fromkeys(row.case.content for row in chosen))
        figure = Figure(figsize=(9.6, 2.8 * len(contents)), layout="constrained")
        panels = figure.subplots(len(contents), 2, squeeze=False)
        for line, content in zip(panels, contents, strict=True):
            own = [row for row in chosen if row.case.content == content]
            total = {row.case.processes * row.case.pages for row in own if row.case.processes != 4}
            by_size = [row for row in own if row.case.processes == 4]
            by_count = [row for row in own if row.case.processes * row.case.pages in total]
            _growth(line[0], by_size, lambda row: row.case.processes * row.case.pages / 256, content, "MiB registered")
            _growth(line[1], by_count, lambda row: row.case.processes, content, "processes")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper left", ncol=4, frameon=False)
        return as_svg(figure)


def _growth(axes: Axes, rows: Sequence[Row], size: Callable[[Row], float], content: str, label: str) -> None:
    for merger in MERGERS:
        for phase, style in zip(_PHASES, (":", "--", "-"), strict=True):
            points = sorted(
                (size(row), row.values[merger]) for row in rows if row.metric == phase and merger in row.values
            )
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                style,
                marker="o",
                markersize=3,
                color=COLOURS[merger],
                label=f"{merger}, {phase}",
            )
    if rows:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
    axes.set_title(content, fontsize=10)
    axes.set_xlabel(label, fontsize=8)
    axes.set_ylabel(_COST, fontsize=8)
