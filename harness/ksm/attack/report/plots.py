# SPDX-License-Identifier: MIT
"""Plots as SVG text: how long things took, by class of page, a panel for each mode."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.ksm.attack.modes import MODES
from harness.ksm.attack.result import AttackResult, Distribution, Timing
from harness.ksm.attack.scripts import AttackName
from harness.ksm.report.plot import STYLE, as_svg

_CLASSES = (("#b45309", 5), ("#0f766e", 3), ("#6d28d9", 2), ("#0f172a", 1))
"""Colours and widths, so that lines that lie upon each other show."""


def plot_distributions(result: AttackResult, attack: AttackName, timing: Timing) -> str:
    """Draw the share of pages that took no longer than so many ticks; empty where the attack times nothing."""
    chosen = [one for one in result.distributions if one.attack == attack and one.timing == timing]
    modes = [name for name in MODES if any(one.mode == name for one in chosen)]
    labels = list(dict.fromkeys(one.label for one in chosen))
    if not chosen:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.9), layout="constrained")
        panels = figure.subplots(1, len(modes), squeeze=False, sharex=True, sharey=True)[0]
        for axes, mode in zip(panels, modes, strict=True):
            for one in (one for one in chosen if one.mode == mode):
                colour, width = _CLASSES[labels.index(one.label)]
                axes.plot(_ticks(one), range(101), color=colour, linewidth=width, label=one.label)
            axes.set_xscale("log")
            axes.set_title(mode, fontsize=10)
        panels[0].set_ylabel("% of the pages")
        figure.supxlabel("ticks, at most", fontsize=8)
        figure.legend(*_every_label(panels), loc="outside upper left", ncol=4, frameon=False)
        return as_svg(figure)


def _ticks(one: Distribution) -> list[float]:
    return [max(value, 1) for value in one.percentiles]


def _every_label(panels: Iterable[Axes]) -> tuple[list[Artist], list[str]]:
    found: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in found}
    return list(found.values()), list(found)
