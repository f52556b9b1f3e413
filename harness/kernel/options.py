# SPDX-License-Identifier: MIT
"""A kernel's options: what fragments ask for, and whether Kconfig granted it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SamepageError

_SET = re.compile(r"^(CONFIG_\w+)=(.+)$")


@dataclass(frozen=True)
class Option:
    """One line of a fragment."""

    name: str
    value: str
    """As Kconfig writes it; `n` for an option that is to be off."""
    where: str


def read_fragments(paths: Iterable[Path]) -> list[Option]:
    """Return the options of all fragments, the last word about each. Raises SamepageError with a line's place."""
    options: dict[str, Option] = {}
    for path in paths:
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SamepageError(f"cannot be read: {error}", where=path) from error
        for number, line in enumerate(lines, 1):
            if not line or line.startswith("#"):
                continue
            match = _SET.match(line)
            if match is None:
                raise SamepageError(f"{line!r} is no option", where=f"{path}:{number}", hint="CONFIG_NAME=VALUE")
            options[match[1]] = Option(match[1], match[2], f"{path}:{number}")
    return list(options.values())


def not_granted(options: Iterable[Option], config: str) -> list[str]:
    """Return a line for each option that has another value in a .config: a dependency is missing, or the name."""
    given = {match[1]: match[2] for match in map(_SET.match, config.splitlines()) if match}
    return [
        f"{option.where}: {option.name}={option.value} came out as {given.get(option.name, 'n')}"
        for option in options
        if given.get(option.name, "n") != option.value
    ]
