# SPDX-License-Identifier: MIT
"""Our Python is formatted, free of what ruff finds, and typed throughout."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.config import PACKAGE_PARENT


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["ruff", "check"], id="ruff-check"),
        pytest.param(["ruff", "format", "--check"], id="ruff-format"),
        pytest.param(["mypy"], id="mypy-strict"),
    ],
)
def test_finds_nothing(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=PACKAGE_PARENT, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
