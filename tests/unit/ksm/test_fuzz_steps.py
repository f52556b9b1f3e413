# SPDX-License-Identifier: MIT
"""Scripts of steps: they read as they were written, and what is wrong in one is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SamepageError
from harness.ksm.fuzz import player, tunables
from harness.ksm.fuzz.steps import VOCABULARY, Step, load, parse, save


def test_a_script_reads_as_it_was_written(tmp_path: Path) -> None:
    steps = [Step(name, tuple(bound.high for bound in bounds)) for name, bounds in VOCABULARY.items()]
    save(steps, tmp_path / "deep/all.steps", "two\nlines")
    assert load(tmp_path / "deep/all.steps") == steps


def test_comments_and_empty_lines_are_left_out() -> None:
    assert parse("# a\n\n  fork 3  # b\n", "here") == [Step("fork", (3,))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("jump 3", "'jump' is no step"),
        ("fork", "fork takes 1 numbers"),
        ("fork 1 2", "fork takes 1 numbers"),
        ("fork -1", "fork takes 1 numbers"),
        ("fork ²", "fork takes 1 numbers"),
        ("fork 8", "process cannot be 8"),
        ("map 0 0 1 0", "pages cannot be 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(line: str, message: str) -> None:
    with pytest.raises(SamepageError) as caught:
        parse(f"spawn\n{line}\n", "script")
    assert message in str(caught.value)
    assert str(caught.value.where) == "script:2"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SamepageError, match="cannot be read"):
        load(tmp_path / "binary")
    with pytest.raises(SamepageError, match="cannot be read"):
        load(tmp_path / "missing")


def test_the_player_knows_every_step_and_every_choice() -> None:
    assert all(hasattr(player.Player, f"_{name}") for name in VOCABULARY)
    bounds = {(name, bound.name): bound.high for name, numbers in VOCABULARY.items() for bound in numbers}
    assert bounds["advise", "advice"] == len(player.ADVICES) - 1
    assert bounds["tune", "file"] == len(tunables.TUNABLES) - 1
    assert all(bounds["tune", "value"] == len(values) - 1 for _, values in tunables.TUNABLES)
