# SPDX-License-Identifier: MIT
"""What a matrix runs: each test file on each kernel, as many at once as the machine has room for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.config import Config
from harness.errors import SamepageError

CPUS_PER_RUN = 2
MIB_PER_RUN = 3072
"""A guest of 1 to 2 GiB, QEMU's own memory, and the tests that drive it."""

_RECIPE = "kernel-"


@dataclass(frozen=True)
class Run:
    """One test file on one kernel: a pytest process with a guest of its own."""

    kernel: str
    file: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kernel} {self.file.stem}"


def known_kernels(config: Config) -> list[str]:
    """Return every kernel that has a recipe, oldest first."""
    names = [path.stem.removeprefix(_RECIPE) for path in config.images.glob(f"{_RECIPE}*.toml")]
    return sorted(names, key=_version)


def _version(name: str) -> tuple[list[int], str]:
    head = name.partition("-")[0]
    return [int(part) for part in head.split(".") if part.isdigit()], name


def plan(kernels: Sequence[str], files: Sequence[Path]) -> list[Run]:
    """Return the runs, a file's on all kernels next to each other: what is broken shows early on each of them."""
    return [Run(kernel, file) for file in dict.fromkeys(files) for kernel in kernels]


def find_tests(root: Path, paths: Sequence[Path]) -> list[Path]:
    """Return the test files in `paths`. Raises SamepageError for a path without any, or outside of the project."""
    files: list[Path] = []
    for path in paths:
        if not path.is_relative_to(root):
            raise SamepageError("is outside of the project", where=path, hint=f"The project is {root}")
        found = sorted(path.rglob("test_*.py")) if path.is_dir() else [path] if path.is_file() else []
        if not found:
            raise SamepageError("no test file is there", where=path)
        files += found
    return files


def room(wanted: int | None) -> int:
    """Return how many runs go at once: `wanted`, or what CPUs and free memory allow, but at least one."""
    if wanted is not None:
        return wanted
    free_mib = psutil.virtual_memory().available >> 20
    return max(1, min(len(os.sched_getaffinity(0)) // CPUS_PER_RUN, free_mib // MIB_PER_RUN))
