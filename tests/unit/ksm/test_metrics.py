# SPDX-License-Identifier: MIT
"""Counters as OpenMetrics text."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SamepageError
from harness.ksm.metrics import of_machine, openmetrics


def test_text() -> None:
    text = openmetrics({"ksm": {"full_scans": 3, "ksm_zero_pages": 7}, "samepage": {"merges": 2}}, {"run": 'a"b'})
    assert text.splitlines() == [
        "# TYPE ksm_full_scans counter",
        "# HELP ksm_full_scans /sys/kernel/mm/ksm/full_scans",
        'ksm_full_scans_total{run="a\\"b"} 3',
        "# TYPE ksm_zero_pages gauge",
        "# HELP ksm_zero_pages /sys/kernel/mm/ksm/ksm_zero_pages",
        'ksm_zero_pages{run="a\\"b"} 7',
        "# TYPE samepage_merges counter",
        "# HELP samepage_merges /sys/kernel/mm/samepage/merges",
        'samepage_merges_total{run="a\\"b"} 2',
        "# EOF",
    ]


def test_only_numbers_are_read(tmp_path: Path) -> None:
    (tmp_path / "ksm").mkdir()
    (tmp_path / "ksm/run").write_text("1\n")
    (tmp_path / "ksm/advisor_mode").write_text("[none] scan-time\n")
    assert of_machine(tmp_path) == {"ksm": {"run": 1}}


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(SamepageError, match="no counters"):
        of_machine(tmp_path)
