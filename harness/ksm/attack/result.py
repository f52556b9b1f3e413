# SPDX-License-Identifier: MIT
"""result.json of a run of attacks (docs/attacks.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from harness.document import check_schema, decode_json, read_bytes, write_json
from harness.ksm.attack.modes import ModeName
from harness.ksm.attack.scripts import AttackName

SCHEMA = 1
Timing = Literal["icount", "tcg"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """How far an attack came, by one measure."""

    attack: AttackName
    mode: ModeName
    timing: Timing
    metric: str
    value: float
    low: float
    """Lower end of its interval."""
    high: float
    n: int
    """Of how many trials."""
    unit: str
    goal: str | None
    """What is wanted of it, for people; null: it is for comparison."""
    reached: bool | None
    """Null where there is no goal."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """How long something took, of one class of pages: each percentile from 0 to 100."""

    attack: AttackName
    mode: ModeName
    timing: Timing
    label: str
    percentiles: list[float]


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """What was not done, and why."""

    attack: AttackName
    mode: ModeName
    timing: Timing
    reason: str


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures follow from, besides chance under `tcg`."""

    kernel: str
    qemu: str
    image_sha256: str
    program_sha256: str
    """Of the attacks' program."""
    module_sha256: str | None
    seed: int


class AttackResult(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run."""

    schema: int = SCHEMA
    size: str
    level: float
    """Of all intervals."""
    inputs: Inputs
    figures: list[Figure]
    distributions: list[Distribution]
    skipped: list[Skipped]

    @property
    def missed(self) -> list[Figure]:
        """The figures whose goal was not reached."""
        return [figure for figure in self.figures if figure.reached is False]


def write(result: AttackResult, folder: Path) -> Path:
    """Write result.json into a folder, whole or not at all."""
    return write_json(result, folder / "result.json")


def read(path: Path) -> AttackResult:
    """Read a result.json. Raises SamepageError for what is none of ours."""
    result = decode_json(read_bytes(path), AttackResult, what="result of attacks", where=path)
    check_schema(result.schema, SCHEMA, path)
    return result
