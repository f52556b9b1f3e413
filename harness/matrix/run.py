# SPDX-License-Identifier: MIT
"""Running the plan: a pytest process for each file and kernel, and what became of it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.config import Config
from harness.errors import SamepageError
from harness.image import ensure_image
from harness.matrix.plan import Run
from harness.module.build import build_module
from harness.progress import step

TIMEOUT = 5400
"""Seconds for one file, after which its pytest is killed; each test has a limit of its own besides."""

COULD_NOT_RUN = 2


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    run: Run
    exit_code: int
    """0 pass, 1 fail, 2 could not run."""
    junit: Path | None
    """None when pytest did not get that far."""
    error: str = ""
    """Why there is no result."""


def prepare(config: Config, kernels: Sequence[str]) -> dict[str, SamepageError]:
    """Build image and module for every kernel; return what kept those from it that cannot be tested."""
    broken: dict[str, SamepageError] = {}
    for kernel in kernels:
        try:
            ensure_image(config, kernel)
            build_module(config, config.module, kernel)
        except SamepageError as error:
            broken[kernel] = error
    return broken


def run_all(config: Config, runs: Sequence[Run], slots: int, folder: Path, arguments: Sequence[str] = ()) -> list[Ran]:
    """Carry out all runs, `slots` at once; logs and JUnit files go into `folder`, and what guests of failed files left.

    `arguments` are for pytest.
    """
    crew = _Crew(config, folder, arguments)
    with ThreadPoolExecutor(slots) as pool, step(f"{len(runs)} runs, {slots} at a time", total=len(runs)) as progress:

        def one(run: Run) -> Ran:
            ran = crew.carry_out(run)
            progress.advance(1)
            return ran

        pending = [pool.submit(one, run) for run in runs]
        try:
            return [future.result() for future in pending]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            crew.end()
            raise


class _Crew:
    """The pytest processes that run now."""

    def __init__(self, config: Config, folder: Path, arguments: Sequence[str]) -> None:
        self._config = config
        self._folder = folder
        self._arguments = arguments
        self._processes: set[subprocess.Popen[str]] = set()

    def end(self) -> None:
        """Have all of them end their guests, and themselves."""
        for process in list(self._processes):
            process.send_signal(signal.SIGINT)

    def carry_out(self, run: Run) -> Ran:
        folder = self._folder / run.kernel
        folder.mkdir(parents=True, exist_ok=True)
        # Files of the same name may be in several folders.
        name = "-".join(run.file.relative_to(self._config.root).with_suffix("").parts)
        junit, log = folder / f"{name}.xml", folder / f"{name}.log"
        with step(run.name) as progress, log.open("w", encoding="utf-8") as output:
            process = self._start(run, junit, folder / name)
            limit = threading.Timer(TIMEOUT * self._config.timeout_factor, process.kill)
            limit.start()
            try:
                for line in _lines(process):
                    output.write(line)
                    progress.detail(_at(line))
                exit_code = process.wait()
            finally:
                limit.cancel()
                self._processes.discard(process)
        if exit_code == 0:
            shutil.rmtree(folder / name, ignore_errors=True)
        return _ended(run, exit_code, junit, log)

    def _start(self, run: Run, junit: Path, temporary: Path) -> subprocess.Popen[str]:
        # setpriv: however we end, pytest ends with us, and its guests with it.
        line = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "pytest", "-v", "--no-header", "--color=no"]
        line += ["-p", "no:cacheprovider", f"--samepage-kernel={run.kernel}", f"--junitxml={junit}"]
        # Consoles and dumps of the guests: pytest's own place for them is cleared by the third run after this one.
        line += [f"--basetemp={temporary}"]
        process = subprocess.Popen(
            [*line, *self._arguments, str(run.file)],
            cwd=self._config.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._processes.add(process)
        return process


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    with process.stdout as output:
        yield from output


def _at(line: str) -> str:
    """Return which test a line of `pytest -v` speaks of, and how far that is."""
    match = re.match(r"\S+?::(\S+) .*?(\[ *\d+%\])?$", line)
    return f" {match[1]} {match[2] or ''}" if match else ""


def _ended(run: Run, exit_code: int, junit: Path, log: Path) -> Ran:
    if exit_code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and junit.is_file():
        return Ran(run, exit_code, junit)
    if exit_code == pytest.ExitCode.NO_TESTS_COLLECTED and junit.is_file():
        return Ran(run, 0, junit)  # a -k that picks none of this file; all of them together are counted later
    lines = log.read_text("utf-8").strip().splitlines()
    why = f"pytest ended with {exit_code}: {lines[-1] if lines else 'without a word'} (all of it: {log})"
    return Ran(run, COULD_NOT_RUN, None, why)
