# SPDX-License-Identifier: MIT
"""The command line as a person meets it: a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import COMMANDS
from harness.config import PACKAGE_PARENT


def samepage(*arguments: str, cwd: Path = PACKAGE_PARENT, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_lists_every_command() -> None:
    result = samepage("--help")
    assert result.returncode == 0
    assert set(COMMANDS) <= set(result.stdout.split())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    result = samepage(name, "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage: samepage" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["module", "build", "/nowhere"], "/nowhere"),
        (["module", "build", "--kernel", "9.9"], "kernel-9.9.toml"),
        (["image", "build", "--kernel", "../x"], "kernel-../x.toml"),
        (["module", "build", "docs"], "has no Kbuild file and no Makefile"),
        (["lock", "nothing"], "nothing.toml"),
    ],
)
def test_errors_are_named_with_exit_code_2_and_no_traceback(arguments: list[str], said: str) -> None:
    result = samepage(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_a_bad_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.samepage]\nspeed = 3\n")
    result = samepage("module", "build", cwd=tmp_path)
    assert result.returncode == 2
    assert "speed" in result.stderr
    assert str(tmp_path / "pyproject.toml") in result.stderr


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = samepage("module", "build", SAMEPAGE_CACHE=str(tmp_path / "file/cache"))
    assert result.returncode == 2
    assert str(tmp_path / "file/cache") in result.stderr
    assert "Traceback" not in result.stderr
