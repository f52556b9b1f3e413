# SPDX-License-Identifier: MIT
"""Lines that ran in several guests add up; those that never ran are named by function."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from harness.cli.coverage import Reason, Reasons, _explain, _ranges
from harness.document import read_toml
from harness.errors import SamepageError
from harness.module.coverage import Coverage, Line, Share, _add, branches_run, lines_run, never_run


def document(*lines: tuple[int, str, int, list[int]], file: str = "/build/module/merge.c") -> dict[str, object]:
    """As gcov says it of one object file: number, function, runs, and how often each branch was taken."""
    return {
        "files": [
            {
                "file": file,
                "lines": [
                    {
                        "line_number": number,
                        "function_name": function,
                        "count": runs,
                        "branches": [{"count": taken} for taken in branches],
                    }
                    for number, function, runs, branches in lines
                ],
            }
        ]
    }


def test_guests_add_up() -> None:
    coverage: Coverage = defaultdict(dict)
    _add(coverage, document((3, "f", 1, [1, 0]), (4, "f", 0, []), (9, "g", 0, [0, 0])), {"merge.c"})
    _add(coverage, document((3, "f", 2, [0, 2]), (4, "f", 0, []), (9, "g", 0, [0, 0])), {"merge.c"})
    _add(coverage, document((1, "inline", 5, []), file="include/linux/list.h"), {"merge.c"})
    assert list(coverage) == ["merge.c"]
    lines = coverage["merge.c"]
    assert lines[3].runs == 3
    assert lines[3].branches == [1, 2]
    assert lines_run(lines) == Share(1, 3)
    assert branches_run(lines) == Share(2, 4)
    assert never_run(lines) == {"f": [4], "g": [9]}
    assert Share(0, 0).percent == 100


@pytest.mark.parametrize(("numbers", "text"), [([7], "7"), ([3, 4, 5, 9], "3-5,9"), ([1, 3], "1,3")])
def test_lines_are_named_by_ranges(numbers: list[int], text: str) -> None:
    assert _ranges(numbers) == text


@pytest.mark.parametrize(
    "text",
    [
        "[reasons]\nf = 3",
        "[reasons]\nf = {lines = 0, why = 'x'}",
        "[reasons]\nf = {lines = 1}",
        "reasons = 1",
        "[other]",
        "\xff",
        "[",
    ],
)
def test_a_bad_list_of_reasons_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "never_run.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SamepageError, match=r"never_run\.toml"):
        read_toml(path, Reasons)


@pytest.mark.parametrize(
    ("reasons", "wrong", "said"),
    [
        ({}, True, "a.c:4-5: f: no reason given"),
        ({"f": Reason(2, "No memory.")}, False, "a.c:4-5: f: No memory."),
        ({"f": Reason(1, "No memory.")}, True, "f: No memory. (2 lines, the reason is for 1)"),
        (
            {"f": Reason(2, "No memory."), "g": Reason(1, "Why.")},
            False,
            "g: all of it ran this time",
        ),
        (
            {"f": Reason(2, "No memory."), "h": Reason(1, "Why.")},
            True,
            "h: there is no such function",
        ),
    ],
)
def test_a_reason_is_for_so_many_lines(
    capsys: pytest.CaptureFixture[str], reasons: dict[str, Reason], wrong: bool, said: str
) -> None:
    found = {"a.c": {3: Line("f", 1), 4: Line("f"), 5: Line("f"), 9: Line("g", 2)}}
    assert _explain(found, reasons) is wrong
    assert said in capsys.readouterr().out
