# SPDX-License-Identifier: MIT
"""What is going on, for the person who waits: one moving line per step on a terminal, plain lines elsewhere.

Everything goes to stderr, so that stdout stays a command's answer. Steps nest, and may run in several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

console = Console(stderr=True, highlight=False)

QUIET_BELOW_SECONDS = 0.5
"""A step that took less leaves no line behind: a command with nothing to do stays silent."""


class _AmountColumn(ProgressColumn):
    """`120/290 MiB` for a step that counts bytes, `3/7` for one that counts things, nothing for the others."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        if task.fields["in_bytes"]:
            return Text(f"{task.completed / 2**20:.0f}/{task.total / 2**20:.0f} MiB")
        return Text(f"{task.completed:.0f}/{task.total:.0f}")


class _Bar(BarColumn):
    def render(self, task: Task) -> Text | object:  # type: ignore[override]
        return Text("") if task.total is None else super().render(task)


class Step:
    """A handle on a running step: say what it is at, and how far it is."""

    def __init__(self, display: _Display, task: TaskID | None) -> None:
        self._display = display
        self._task = task

    def detail(self, text: str) -> None:
        """Show `text` behind the step's name (on a terminal only)."""
        if self._task is not None:
            self._display.progress.update(self._task, detail=escape(text))

    def advance(self, amount: float) -> None:
        """Count `amount` more of the total that the step was given."""
        if self._task is not None:
            self._display.progress.advance(self._task, amount)


class _Display:
    """The one live display of the process, shown while at least one step runs."""

    def __init__(self) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}[dim]{task.fields[detail]}", markup=True),
            _Bar(bar_width=24),
            _AmountColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._lock = threading.Lock()
        self._running = 0

    def enter(self, text: str, total: float | None, *, in_bytes: bool) -> Step:
        if not console.is_terminal:
            return Step(self, None)
        with self._lock:
            self._running += 1
            task = self.progress.add_task(escape(text), total=total, detail="", in_bytes=in_bytes)
            self.progress.start()
        return Step(self, task)

    def leave(self, step: Step) -> None:
        if step._task is None:
            return
        with self._lock:
            self.progress.remove_task(step._task)
            self._running -= 1
            if self._running == 0:
                self.progress.stop()


_display = _Display()


@contextmanager
def step(text: str, *, total: float | None = None, in_bytes: bool = False) -> Iterator[Step]:
    """Show that `text` is being done; with a `total`, how far it is (`in_bytes`: the total is a number of bytes)."""
    started = time.monotonic()
    handle = _display.enter(text, total, in_bytes=in_bytes)
    if not console.is_terminal:
        console.print(f"{text} ...", markup=False)
    try:
        yield handle
    finally:
        _display.leave(handle)
    seconds = time.monotonic() - started
    if seconds >= QUIET_BELOW_SECONDS:
        console.print(f"{text}: {seconds:.1f} s", markup=False)
