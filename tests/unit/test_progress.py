# SPDX-License-Identifier: MIT
from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from harness import progress


def test_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_BELOW_SECONDS", 0)
    with progress.step("Outer [1/2]", total=3) as outer, progress.step("inner"):
        outer.detail("more")
        outer.advance(1)
    said = capsys.readouterr()
    assert said.out == ""
    lines = [re.sub(r"[0-9]+\.[0-9] s$", "TIME", line) for line in said.err.splitlines()]
    assert lines == ["Outer [1/2] ...", "inner ...", "inner: TIME", "Outer [1/2]: TIME"]


def test_one_display_for_nested_steps_of_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=100, highlight=False))
    monkeypatch.setattr(progress, "_display", progress._Display())
    monkeypatch.setattr(progress, "QUIET_BELOW_SECONDS", 0)

    def work(number: int) -> None:
        with progress.step(f"step-{number}", total=1 << 20, in_bytes=True) as step:
            step.advance(1 << 20)

    with progress.step("outer"), ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert all(re.search(rf"step-{number}: [0-9]+\.[0-9] s", screen.getvalue()) for number in range(8)), (
        screen.getvalue()
    )


def test_a_failed_step_does_not_say_that_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), progress.step("doomed"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "doomed ...\n"
