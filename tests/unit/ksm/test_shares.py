# SPDX-License-Identifier: MIT
"""`samepage shares`: what it shows and asks, with a device that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.shares import shares
from harness.errors import SamepageError
from harness.ksm.inguest import shares as device

TENANTS = """\
by who processes weight percent excluded timing_safe held scan_ns
user 0 3 100 0 0 0 0 1500000000
cgroup 4711 2 50 5 0 1 1 20000000
cgroup 4712 1 100 0 1 0 0 0
namespace 4026532500 1 100 0 0 0 0 7
all 0 1 100 0 0 0 0 7
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device, "DEVICE", str(tmp_path / "samepage"))
    monkeypatch.setattr(device, "TENANTS", str(tmp_path / "tenants"))
    (tmp_path / "tenants").write_text(TENANTS)
    return tmp_path


def test_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = CliRunner().invoke(shares, ["list"], standalone_mode=False)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.output.splitlines() if "│" in line]
    assert rows == [
        ["user", "root", "3", "100", "no limit", "1.50", "", ""],
        ["cgroup", "number 4711", "2", "50", "5", "0.02", "timing-safe", "has had its percent"],
        ["cgroup", "number 4712", "1", "100", "no limit", "0.00", "", "excluded"],
        ["namespace", "4026532500", "1", "100", "no limit", "0.00", "", ""],
        ["all", "", "1", "100", "no limit", "0.00", "", ""],
    ]


def test_without_the_module_or_debugfs(machine: Path) -> None:
    (machine / "tenants").unlink()
    with pytest.raises(SamepageError, match="No such file") as caught:
        CliRunner().invoke(shares, ["list"], standalone_mode=False, catch_exceptions=False)
    assert "insmod" in str(caught.value.hint)
    (machine / "samepage").touch()
    with pytest.raises(SamepageError) as caught:
        CliRunner().invoke(shares, ["list"], standalone_mode=False, catch_exceptions=False)
    assert "debugfs" in str(caught.value.hint)


@pytest.mark.parametrize("words", [["set", "/tmp"], ["clear", "nowhere"], ["set", "a\0b"]])
def test_what_is_no_cgroup(words: list[str]) -> None:
    result = CliRunner().invoke(shares, words)
    assert result.exit_code == 2
    assert "is no cgroup of version 2" in result.output
