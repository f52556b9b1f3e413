# SPDX-License-Identifier: MIT
"""Errors that a person reads: what happened, where, what to do. The command line prints them without a traceback."""

from __future__ import annotations

from typing import ClassVar


class SamepageError(Exception):
    """The work could not be done (exit code 2).

    `what` says what went wrong in one sentence, `where` names the file, package or guest, `hint` what to do about it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what if self.where is None else f"{self.where}: {self.what}"]
        if self.hint is not None:
            lines.append(self.hint)
        return "\n".join(lines)


class CheckFailed(SamepageError):
    """The work was done and found a fault in what was checked (exit code 1)."""

    exit_code: ClassVar[int] = 1
