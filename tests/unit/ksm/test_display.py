# SPDX-License-Identifier: MIT
from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.ksm import display
from harness.ksm.counters import CounterReader
from harness.ksm.display import Display
from harness.ksm.series import Sample
from tests.unit.ksm.test_counters import Files


def sample(saved: int) -> Sample:
    files = Files()
    files.files["/sys/kernel/mm/ksm/pages_sharing"] = f"{saved}\n".encode()
    return Sample(1.0, "merge", CounterReader(files).read())


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    text = io.StringIO()
    monkeypatch.setattr(display, "console", Console(file=text, force_terminal=terminal, width=120, height=40))
    with Display("mixed, samepage").shown() as watched:
        watched.phase("booting")
        watched.phase("merging")
        watched.expected(1000)
        for saved in (0, 243, 500, 1100):
            watched.sample(sample(saved))
        if watched._live is not None:
            watched._live.refresh()
    return text.getvalue()


def test_a_terminal_shows_phases_savings_and_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, terminal=True)
    for expected in ("mixed, samepage", "✓ booting", "• merging", "1107 of 1000 pages, 4.3 MiB", "full scans", "█"):
        assert expected in text


def test_elsewhere_there_is_a_line_for_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=False) == "mixed, samepage: booting ...\nmixed, samepage: merging ...\n"
