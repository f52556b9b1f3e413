# SPDX-License-Identifier: MIT
"""What a step is, and scripts of them: text, a step a line, its name and its numbers.

Every step means something in every state (a process is the N-th modulo their number ...), so that a script stays one
when steps are left out of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.document import read_bytes
from harness.errors import SamepageError


@dataclass(frozen=True)
class Number:
    """One number of a step: what it is, and its bounds, both included."""

    name: str
    low: int
    high: int


@dataclass(frozen=True)
class Step:
    """One thing to do."""

    name: str
    numbers: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name, *map(str, self.numbers)])


def _numbers(text: str) -> tuple[Number, ...]:
    parts = (re.fullmatch(r"(\w+)=(\d+)\.\.(\d+)", part) for part in text.split())
    return tuple(Number(part[1], int(part[2]), int(part[3])) for part in parts if part)


_AREA = "process=0..7 area=0..7"
_PAGES = f"{_AREA} first=0..699 count=1..300"

VOCABULARY = {
    "spawn": _numbers(""),
    "fork": _numbers("process=0..7"),
    "exit": _numbers("process=0..7"),
    "exec": _numbers("process=0..7"),
    "map": _numbers("process=0..7 pages=1..700 merge=0..1 huge=0..1"),
    "unmap": _numbers(f"{_PAGES} whole=0..1"),
    "carry": _numbers(_PAGES),
    "remap": _numbers(f"{_AREA} pages=1..700"),
    "fill": _numbers(f"{_PAGES} kind=0..4 key=0..5 step=0..1"),
    "poke": _numbers(f"{_AREA} page=0..699 word=0..511 value=0..2"),
    "advise": _numbers(f"{_PAGES} advice=0..9"),
    "free": _numbers(f"{_PAGES} key=0..5"),
    "protect": _numbers(f"{_PAGES} how=0..1"),
    "lock": _numbers(f"{_PAGES} on=0..1"),
    "any": _numbers("process=0..7 on=0..1"),
    "tune": _numbers("file=0..21 value=0..2"),
    "run": _numbers("value=0..2"),
    "pass": _numbers("count=1..3"),
    "compact": _numbers(""),
    "reclaim": _numbers("mib=1..64"),
    "swap": _numbers("on=0..1"),
    "move": _numbers(f"{_PAGES} node=0..1"),
    "hotplug": _numbers("block=0..7"),
    "reload": _numbers(""),
    "become": _numbers("process=0..7 user=0..1"),
    "enter": _numbers("process=0..7 group=0..2"),
    "share": _numbers("group=0..2 how=0..4"),
    "choose": _numbers("process=0..7 name=0..2"),
    "common": _numbers("on=0..1 key=0..5"),
}
"""The numbers of each kind of step."""

SLOW = ("hotplug", "reload", "swap", "share", "choose", "common")
"""Steps that take seconds, or run a program."""
OFTEN = ("map", "fill", "fill", "fill", "pass", "pass", "poke", "fork", "advise")
LIKELY = (*(*OFTEN, *(name for name in VOCABULARY if name not in SLOW)) * 4, *SLOW)
"""To choose steps from: what makes pages and what merges them comes often, what takes seconds seldom."""
BEGIN = (Step("spawn"), Step("spawn"), Step("map", (0, 400, 1, 0)), Step("map", (1, 400, 1, 1)))
"""What a script that nobody wrote begins with."""


def parse(text: str, where: object) -> list[Step]:
    """Read a script: `#` begins a comment. Raises SamepageError with the line's place."""
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            steps.append(_step(words, f"{where}:{number}"))
    return steps


def _step(words: Sequence[str], where: str) -> Step:
    name, *numbers = words
    bounds = VOCABULARY.get(name)
    if bounds is None:
        raise SamepageError(f"{name!r} is no step", where=where, hint=f"There are: {', '.join(VOCABULARY)}")
    usage = " ".join([name, *(f"{bound.name}={bound.low}..{bound.high}" for bound in bounds)])
    # Longer than any bound, leading zeros and all, is no number: Python itself gives up at thousands of digits.
    if len(numbers) != len(bounds) or not all(re.fullmatch(r"[0-9]{1,20}", word) for word in numbers):
        raise SamepageError(f"{name} takes {len(bounds)} numbers", where=where, hint=usage)
    step = Step(name, tuple(map(int, numbers)))
    for bound, value in zip(bounds, step.numbers, strict=True):
        if not bound.low <= value <= bound.high:
            raise SamepageError(f"{bound.name} cannot be {value}", where=where, hint=usage)
    return step


def load(path: Path) -> list[Step]:
    """Read a script's file."""
    try:
        steps = parse(read_bytes(path).decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise SamepageError(f"cannot be read: {error}", where=path) from error
    if not steps:  # playing it would pass
        raise SamepageError("has no step in it", where=path)
    return steps


def save(steps: Iterable[Step], path: Path, comment: str) -> None:
    """Write a script's file, with a comment at its head."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    path.write_text(head + "".join(f"{step}\n" for step in steps), "utf-8")
