# SPDX-License-Identifier: MIT
"""A run as it goes: a live panel on a terminal, a line for each phase elsewhere. Everything goes to stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.ksm.protocol import PAGE_BYTES
from harness.ksm.series import Sample
from harness.progress import console

_BARS = " ▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 60
_SHOWN = (
    ("pages_shared", "shared"),
    ("pages_sharing", "sharing"),
    ("ksm_zero_pages", "zero"),
    ("pages_unshared", "unshared"),
    ("pages_volatile", "volatile"),
    ("pages_scanned", "scanned"),
    ("full_scans", "full scans"),
)


def mib(pages: int) -> str:
    """Return pages as MiB, in words."""
    return f"{pages * PAGE_BYTES / 2**20:.1f} MiB"


class Display:
    """Watches one run (session.Observer)."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._phases: list[tuple[str, float]] = []
        self._curve: list[int] = []
        self._last: Sample | None = None
        self._expected: int | None = None
        self._progress: tuple[str, int, int] | None = None
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """Show it while the run goes."""
        if not console.is_terminal:
            yield self
            return
        with Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True) as self._live:
            yield self

    def phase(self, text: str) -> None:
        """Show that another phase began."""
        self._phases.append((text, time.monotonic()))
        if self._live is None:
            console.print(f"{self._title}: {text} ...", markup=False)

    def sample(self, sample: Sample) -> None:
        """Show a reading."""
        self._last = sample
        self._curve.append(sample.counters.saved_pages)

    def expected(self, pages: int) -> None:
        """Show against what to measure."""
        self._expected = pages

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how many of several things are done."""
        self._progress = (what, done, total)
        if self._live is None:
            console.print(f"{self._title}: {done} of {total} {what}", markup=False)

    def _render(self) -> RenderableType:
        return Panel(Group(*self._parts()), title=self._title, title_align="left", border_style="cyan")

    def _parts(self) -> Iterator[RenderableType]:
        for index, (text, began) in enumerate(self._phases):
            over = index + 1 < len(self._phases)
            seconds = (self._phases[index + 1][1] if over else time.monotonic()) - began
            mark, style = ("✓", "green") if over else ("•", "bold yellow")
            yield Text.assemble((f"{mark} {text}", style), (f"  {seconds:.1f} s", "dim"))
        if self._progress:
            what, done, total = self._progress
            yield _bar(what, done, total, f"{done} of {total}")
        if self._last is None:
            return
        saved = self._last.counters.saved_pages
        if self._expected:
            yield _bar("saved", saved, self._expected, f"{saved} of {self._expected} pages, {mib(saved)}")
        yield Text(_spark(self._curve), style="cyan")
        yield self._counters(self._last)

    def _counters(self, sample: Sample) -> Table:
        table = Table(box=None, padding=(0, 2))
        counters = sample.counters.folder("ksm")
        shown = [(label, counters[name]) for name, label in _SHOWN if name in counters]
        for label, _ in shown:
            table.add_column(label, justify="right", header_style="dim")
        table.add_row(*(f"{value:,}" for _, value in shown))
        return table


def _bar(label: str, done: int, total: int, text: str) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_row(label, ProgressBar(total=total, completed=min(done, total), width=40), text)
    return row


def _spark(values: list[int]) -> str:
    """Draw values as a line of bars, the last ones where there are too many."""
    recent = values[-_CURVE_WIDTH:]
    top = max(values, default=0) or 1
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in recent)
