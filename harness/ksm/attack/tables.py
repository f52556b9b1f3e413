# SPDX-License-Identifier: MIT
"""Figures side by side: a row for each measure of an attack, a column for each mode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from rich.table import Table
from rich.text import Text

from harness.ksm.attack.modes import ModeName
from harness.ksm.attack.result import AttackResult, Figure, Timing
from harness.ksm.attack.scripts import AttackName

TITLES: Mapping[AttackName, str] = {
    "write": "1. A write tells whether another one has the page",
    "covert": "2. Covert channel between two who may not talk",
    "secret": "3. A secret, byte by byte, from a page that the attacker can partly fill",
    "unmap": "4. Unmapping and writing at the edge of max_page_sharing",
    "frame": "5. In whose frame the content lies that both have",
    "remote": "6. Answers of a service that keeps pages for a remote attacker",
    "shared": "7. Frames that both parties map",
}
TIMINGS: Mapping[Timing, str] = {
    "icount": "icount: a tick is an instruction, every run gives the same figures",
    "tcg": "plain emulation: time is the host's",
}
MODE_NAMES: tuple[ModeName, ...] = get_args(ModeName)
_COLOURS = {True: "green", False: "bold red", None: ""}


@dataclass(frozen=True)
class Row:
    """A measure of an attack in all modes in which it was taken."""

    attack: AttackName
    timing: Timing
    metric: str
    unit: str
    figures: Mapping[ModeName, Figure]


def rows(figures: Iterable[Figure]) -> list[Row]:
    """Return the rows, in the order of the figures."""
    groups: dict[tuple[AttackName, Timing, str, str], dict[ModeName, Figure]] = {}
    for figure in figures:
        key = figure.attack, figure.timing, figure.metric, figure.unit
        groups.setdefault(key, {})[figure.mode] = figure
    return [Row(*key, group) for key, group in groups.items()]


def number(value: float, unit: str) -> str:
    """Return a value with the digits that its unit deserves."""
    if unit in ("bytes", "frames"):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if unit == "bit/s" else f"{value:.4f}"


def cell(figure: Figure) -> str:
    """Return a figure, with half of its interval's width where it has one."""
    value = number(figure.value, figure.unit)
    if figure.unit in ("bytes", "frames"):
        return f"{value} of {figure.n:,}"
    if figure.unit == "bit/s":
        return f"{value} (≥ {number(figure.low, figure.unit)})"
    return f"{value} ± {number((figure.high - figure.low) / 2, figure.unit)}"


def mark(figure: Figure) -> str:
    """Return a sign for whether the goal was reached; none where there is no goal."""
    return {True: "✓", False: "✗", None: ""}[figure.reached]


def modes_in(result: AttackResult) -> list[ModeName]:
    """Return the modes of a run, those that were skipped included, in their order."""
    found = {figure.mode for figure in result.figures} | {skip.mode for skip in result.skipped}
    return [name for name in MODE_NAMES if name in found]


def tables(result: AttackResult) -> list[Table]:
    """Return a table for each way in which time passed."""
    shown = []
    for timing, title in TIMINGS.items():
        chosen = [row for row in rows(result.figures) if row.timing == timing]
        if not chosen:
            continue
        table = Table(title=title, box=None, title_justify="left", title_style="bold")
        table.add_column("attack")
        for name in modes_in(result):
            table.add_column(name, justify="right", no_wrap=True)
        last: AttackName | None = None
        for row in chosen:
            if row.attack != last:
                table.add_row(Text(TITLES[row.attack], style="bold"))
            last = row.attack
            cells = [_shown(row.figures.get(name)) for name in modes_in(result)]
            table.add_row(f"  {row.metric}, {row.unit}", *cells)
        shown.append(table)
    return shown


def markdown(result: AttackResult) -> str:
    """Return the figures as tables for docs/figures."""
    modes = modes_in(result)
    module = f", module {result.inputs.module_sha256[:16]}" if result.inputs.module_sha256 else ""
    lines = [
        "<!-- SPDX-License-Identifier: MIT -->",
        f"# Attacks, {result.size} set, Linux {result.inputs.kernel}",
        "",
        f"`samepage attack`, QEMU {result.inputs.qemu}{module}, seed {result.inputs.seed}.",
        f"Intervals: {result.level:.1%}. Goals missed: {len(result.missed)}.",
        "[attacks.md](../attacks.md) says how to read it.",
    ]
    for timing, title in TIMINGS.items():
        chosen = [row for row in rows(result.figures) if row.timing == timing]
        if chosen:
            lines += [
                "",
                f"## {title[0].upper()}{title[1:]}",
                "",
                f"| | {' | '.join(modes)} |",
                "|---" * (len(modes) + 1) + "|",
            ]
        last: AttackName | None = None
        for row in chosen:
            if row.attack != last:
                lines.append(f"| **{TITLES[row.attack]}** |{' |' * len(modes)}")
            last = row.attack
            cells = [
                f"{cell(figure)} {mark(figure)}".strip() if (figure := row.figures.get(name)) else "-" for name in modes
            ]
            lines.append(f"| {row.metric}, {row.unit} | {' | '.join(cells)} |")
    for mode, reason in dict.fromkeys((skip.mode, skip.reason) for skip in result.skipped):
        lines += ["", f"Not there: {mode}: {reason}"]
    return "\n".join(lines) + "\n"


def _shown(figure: Figure | None) -> Text:
    if figure is None:
        return Text("-")
    return Text(f"{cell(figure)} {mark(figure)}".strip(), style=_COLOURS[figure.reached])
