# SPDX-License-Identifier: MIT
"""What a test program said, as checks: TAP points under the name of the function that made them, else the exit code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from tap.line import Diagnostic, Result  # type: ignore[import-untyped]
from tap.parser import Parser  # type: ignore[import-untyped]

# tools/testing/selftests/kselftest.h
KSFT_PASS, KSFT_SKIP = 0, 4


class Status(StrEnum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    SILENT = "silent"
    """It began, and no result came."""


@dataclass(frozen=True)
class Check:
    """One thing that was tested."""

    name: str
    """Empty: the program as a whole."""
    status: Status
    text: str = ""


_RUN = re.compile(r"# \[RUN\] (\w+)")


def checks_of(output: str, exit_code: int) -> list[Check]:
    """Return every check of a program's output, and that of the whole program (its exit code) at the end."""
    checks = []
    name: str | None = None
    # The parser would warn that it cannot read YAML blocks, of which version 13 would have some, and kselftest none.
    for line in Parser().parse_text(output.replace("TAP version 13\n", "")):
        if isinstance(line, Diagnostic) and (match := _RUN.match(line.text)):
            checks += [Check(name, Status.SILENT)] if name is not None else []
            name = match[1]
        elif isinstance(line, Result) and name is not None:
            checks.append(Check(name, _status(line), line.description.strip() or line.directive.reason or ""))
            name = None
    checks += [Check(name, Status.SILENT)] if name is not None else []
    return [*checks, Check("", _of_exit_code(exit_code), _last_words(output, exit_code))]


def _status(line: Result) -> Status:
    if line.skip:
        return Status.SKIP
    return Status.PASS if line.ok else Status.FAIL


def _of_exit_code(exit_code: int) -> Status:
    return {KSFT_PASS: Status.PASS, KSFT_SKIP: Status.SKIP}.get(exit_code, Status.FAIL)


def _last_words(output: str, exit_code: int) -> str:
    """Return a measured speed, or what a failed program said last."""
    speed = re.search(r"Average speed: +(\S+ \S+)", output)
    if exit_code == KSFT_PASS:
        return speed[1] if speed else ""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith(("# Totals", "1.."))]
    return f"exit code {exit_code}: {lines[-1].strip()}" if lines else f"exit code {exit_code}"
