# SPDX-License-Identifier: MIT
"""Plots as SVG text: the same bytes for the same figures."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harness.ksm.protocol import PAGE_BYTES
from harness.ksm.result import MachinesFound, Stage

COLOURS = {"samepage": "#0f766e", "in-tree": "#b45309"}
_OTHERS = ("#0f766e", "#b45309", "#6d28d9", "#475569", "#be123c")
# matplotlib types its keys one by one.
STYLE: Any = {
    "svg.hashsalt": "samepage",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": "#334155",
    "xtick.color": "#475569",
    "ytick.color": "#475569",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
}


@dataclass(frozen=True)
class Curve:
    """Pages over seconds."""

    name: str
    seconds: list[float]
    pages: list[int]


@dataclass(frozen=True)
class PhaseMark:
    """Where a phase begins."""

    name: str
    seconds: float


def plot_savings(curves: Sequence[Curve], phases: Sequence[PhaseMark], stages: Sequence[Stage]) -> str:
    """Draw saved memory over time, with what was possible at each stage that says so."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure("saved, MiB")
        for index, curve in enumerate(curves):
            colour = COLOURS.get(curve.name, _OTHERS[index % len(_OTHERS)])
            saved = [pages * PAGE_BYTES / 2**20 for pages in curve.pages]
            axes.step(curve.seconds, saved, where="post", label=curve.name, color=colour, linewidth=2)
            axes.fill_between(curve.seconds, saved, step="post", color=colour, alpha=0.08, linewidth=0)
        possible = [stage for stage in stages if stage.pages_expected is not None]
        for index, stage in enumerate(possible):
            height = (stage.pages_expected or 0) * PAGE_BYTES / 2**20
            label = "possible" if index == 0 else None
            axes.plot([stage.seconds], [height], marker="_", ms=22, mew=2, ls="", color="#0f172a", label=label)
        return _finish(figure, axes, phases)


def plot_counters(curves: Sequence[Curve], phases: Sequence[PhaseMark]) -> str:
    """Draw counters over time."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure("pages")
        for index, curve in enumerate(curves):
            colour = _OTHERS[index % len(_OTHERS)]
            axes.step(curve.seconds, curve.pages, where="post", label=curve.name, color=colour, linewidth=1.6)
        return _finish(figure, axes, phases)


def plot_machines(found: MachinesFound, host_mib: int) -> str:
    """Draw what so many machines have together, what of it is saved, and what of the guest's memory is in use."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure("MiB", "virtual machines")
        machines = [count.machines for count in found.counts]
        used = [host_mib - count.available_bytes / 2**20 for count in found.counts]
        saved = [count.saved_bytes / 2**20 for count in found.counts]
        axes.plot(machines, [number * found.memory_mib for number in machines], label="their memory", color=_OTHERS[3])
        axes.plot(machines, saved, label="saved", color=_OTHERS[0], linewidth=2)
        axes.plot(machines, used, label="in use on the guest", color=_OTHERS[1], linewidth=2)
        axes.axhline(host_mib, label="the guest's memory", color=_OTHERS[4], linestyle=(0, (4, 3)))
        return _finish(figure, axes, [])


def _figure(label: str, across: str = "seconds in the guest") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_ylabel(label)
    axes.set_xlabel(across)
    return figure, axes


def _finish(figure: Figure, axes: Axes, phases: Sequence[PhaseMark]) -> str:
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.set_ylim(top=axes.get_ylim()[1] * (1.16 if phases else 1.04))
    for mark in phases:
        axes.axvline(mark.seconds, color="#94a3b8", linewidth=0.8, linestyle=(0, (2, 3)))
        before_end = mark.seconds < axes.get_xlim()[1] * 0.93
        axes.annotate(
            mark.name,
            (mark.seconds, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3 if before_end else -3, -9),
            ha="left" if before_end else "right",
            textcoords="offset points",
            fontsize=8,
            color="#64748b",
        )
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), frameon=False, ncol=8)
    return as_svg(figure)


def as_svg(figure: Figure) -> str:
    """Return a figure as SVG that can stand in the middle of HTML: without the XML head."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"\A.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)
