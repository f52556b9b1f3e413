# SPDX-License-Identifier: MIT
"""result.json of a bench run (docs/bench.md). There is no time of day in it: the same inputs give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from harness.document import check_schema, decode_json, read_bytes, write_json
from harness.errors import SamepageError
from harness.ksm.bench import HISTORY
from harness.ksm.bench.cases import THREADED_PASSES, Case
from harness.ksm.result import Merger

SCHEMA = 1
_WHAT = "result of a bench run"
LARGER_IS_BETTER = frozenset(
    {"pages saved", "memory really freed", *(f"threads at work at once, {label} pass" for label in THREADED_PASSES)}
)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number."""

    case: Case
    merger: Merger
    metric: str
    value: float
    unit: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two figures of different runs the same one."""
        return self.case.name, self.merger, self.metric


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """How savings build up: after each round of the scanner."""

    case: Case
    merger: Merger
    possible: int
    """Pages that merging can save."""
    scanner_instructions: list[int]
    """Of the merging threads, since merging began."""
    saved: list[int]
    """Pages."""


class PassCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What each pass cost."""

    case: Case
    merger: Merger
    pages: int
    """Registered."""
    scanner_instructions: list[int]
    """Of the merging threads, of each pass in order."""


class Unsupported(msgspec.Struct, frozen=True, kw_only=True):
    """A case that a merger cannot carry out: Linux 6.1's own has no PR_SET_MEMORY_MERGE."""

    case: Case
    merger: Merger


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures follow from, besides the cases."""

    kernel: str
    """The guest kernel's release."""
    qemu: str
    qemu_sha256: str
    image_sha256: str
    guest_program_sha256: str
    module_sha256: str | None


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of a run."""

    schema: int = SCHEMA
    counts: Literal["instructions, not time"] = "instructions, not time"
    set: str
    inputs: Inputs
    figures: list[Figure]
    curves: list[Curve]
    passes: list[PassCosts] = []
    unsupported: list[Unsupported] = []


class _HistoryLine(msgspec.Struct, frozen=True):
    name: str
    result: BenchResult


class Worse(msgspec.Struct, frozen=True):
    """A figure that got worse."""

    figure: Figure
    before: float

    @property
    def percent(self) -> float:
        """By how much; infinite where it was 0 before."""
        if self.before == 0:
            return float("inf")
        return abs(self.figure.value / self.before - 1) * 100


def write(result: BenchResult, folder: Path) -> Path:
    """Write result.json into a folder, whole or not at all."""
    return write_json(result, folder / "result.json")


def remember(result: BenchResult, name: str, runs: Path) -> None:
    """Append a run to the history."""
    with (runs / HISTORY).open("ab") as file:
        file.write(msgspec.json.encode(_HistoryLine(name, result)) + b"\n")


def recall(reference: str, runs: Path) -> BenchResult:
    """Return an earlier run: a result.json, its folder, or a name in the history (the last one of that name)."""
    path = Path(reference)
    if path.is_dir():
        path = path / "result.json"
    if path.is_file():
        return _of_our_schema(decode_json(read_bytes(path), BenchResult, what=_WHAT, where=path), path)
    history = runs / HISTORY
    found = _lines(history) if history.exists() else []
    named = [line.result for line in found if line.name == reference]
    if not named:
        known = ", ".join(dict.fromkeys(line.name for line in found)) or "nothing"
        hint = f"There is in {history}: {known}"
        raise SamepageError("is neither a result nor a run in the history", where=path, hint=hint)
    return _of_our_schema(named[-1], history)


def _lines(history: Path) -> list[_HistoryLine]:
    return [
        decode_json(line, _HistoryLine, what=_WHAT, where=f"{history}:{number}")
        for number, line in enumerate(read_bytes(history).splitlines(), 1)
    ]


def _of_our_schema(result: BenchResult, where: Path) -> BenchResult:
    check_schema(result.schema, SCHEMA, where)
    return result


def compared(now: Sequence[Figure], before: Sequence[Figure]) -> int:
    """Return how many figures are in both runs."""
    return len({figure.key for figure in now} & {figure.key for figure in before})


def worse(now: Sequence[Figure], before: Sequence[Figure], percent: float) -> list[Worse]:
    """Return the figures that are worse than before by more than so many percent, the worst first."""
    old = {figure.key: figure.value for figure in before}
    found = [Worse(figure, old[figure.key]) for figure in now if figure.key in old]
    return sorted((item for item in found if _is_worse(item, percent)), key=lambda item: -item.percent)


def _is_worse(item: Worse, percent: float) -> bool:
    value, before = item.figure.value, item.before
    margin = abs(before) * percent / 100
    return value < before - margin if item.figure.metric in LARGER_IS_BETTER else value > before + margin
