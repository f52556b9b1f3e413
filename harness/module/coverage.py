# SPDX-License-Identifier: MIT
"""Which lines and branches of a module ran, from what the kernels of guests have counted (gcov of the tool root)."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness.errors import SamepageError
from harness.module.build import BUILD_PATH, BuiltModule, Kbuild
from harness.sandbox import Sandbox

_GCOV = "gcov-14"
"""The one of the compiler that debug kernels are built with."""


@dataclass
class Line:
    """A line of a source file that there is code for."""

    function: str
    runs: int = 0
    branches: list[int] = field(default_factory=list)
    """How often each was taken."""

    def add(self, runs: int, branches: list[int]) -> None:
        """Add another count of it."""
        self.runs += runs
        self.branches = [one + other for one, other in zip_longest(self.branches, branches, fillvalue=0)]


Coverage = dict[str, dict[int, Line]]
"""By the file's path in the module's folder, and the number of the line."""


def read_coverage(kbuild: Kbuild, built: BuiltModule, sources: Collection[str], folder: Path) -> Coverage:
    """Add up what harness.guest.coverage left in `folder`, of any number of guests, for these files of the module.

    Raises SamepageError where there is nothing of this module's.
    """
    coverage: Coverage = defaultdict(dict)
    guests = sorted(folder.glob(f"guest-*{BUILD_PATH}"))
    if not guests or not built.notes.is_dir():
        raise SamepageError("has no counts of the module's lines", where=folder, hint="make test-debug leaves them.")
    for guest in guests:
        for one in _gcov(kbuild, built, guest):
            _add(coverage, one, sources)
    return {name: dict(sorted(coverage[name].items())) for name in sorted(coverage)}


def _gcov(kbuild: Kbuild, built: BuiltModule, counts: Path) -> Iterator[dict[str, Any]]:
    """Yield what gcov says of each object file."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        shutil.copytree(built.notes, work, dirs_exist_ok=True)
        shutil.copytree(counts, work, dirs_exist_ok=True)
        # The guest had other modules, too, built at the same path.
        ours = [path for path in work.rglob("*.gcda") if path.with_suffix(".gcno").exists()]
        files = sorted(path.relative_to(work).as_posix() for path in ours)
        line = [_GCOV, "--json-format", "--stdout", "--branch-probabilities", *files]
        said = Sandbox(kbuild.root).run(line, ro={work: BUILD_PATH}, cwd=BUILD_PATH).stdout
    for document in said.decode().splitlines():
        if document.strip():
            yield json.loads(document)


def _add(coverage: Coverage, document: dict[str, Any], sources: Collection[str]) -> None:
    for file in document["files"]:
        name = file["file"].removeprefix(f"{BUILD_PATH}/")
        for line in file["lines"] if name in sources else ():
            branches = [int(branch["count"]) for branch in line["branches"]]
            found = coverage[name].setdefault(line["line_number"], Line(line.get("function_name", "")))
            found.add(int(line["count"]), branches)


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    run: int
    all: int

    @property
    def percent(self) -> float:
        """100 where there are none."""
        return 100 * self.run / self.all if self.all else 100.0


def lines_run(lines: dict[int, Line]) -> Share:
    """Return how many lines of a file ran."""
    return Share(sum(line.runs > 0 for line in lines.values()), len(lines))


def branches_run(lines: dict[int, Line]) -> Share:
    """Return how many branches of a file were taken, of those in lines that ran or not."""
    branches = [count for line in lines.values() for count in line.branches]
    return Share(sum(count > 0 for count in branches), len(branches))


def never_run(lines: dict[int, Line]) -> dict[str, list[int]]:
    """Return the numbers of the lines that never ran, by function."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, line in lines.items():
        if not line.runs:
            found[line.function].append(number)
    return dict(found)
