# SPDX-License-Identifier: MIT
"""Carrying out many cases, a guest for each, several at once; what was measured is kept by the hash of its inputs."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.config import Config
from harness.document import read_bytes
from harness.errors import CheckFailed, SamepageError
from harness.ksm.bench.cases import Case
from harness.ksm.bench.machine import Material, measure
from harness.ksm.bench.programs import files_key, program_files
from harness.ksm.bench.records import Record, parse
from harness.ksm.result import Merger
from harness.progress import step
from harness.store import key_of

TIMEOUT = 1800.0
"""Seconds for one case, times `timeout_factor`."""


@dataclass(frozen=True)
class Job:
    """A case with a merger."""

    case: Case
    merger: Merger

    @property
    def name(self) -> str:
        """The case's and the merger's."""
        return f"{self.case.name}.{self.merger}"


class _Interrupted(Exception):
    """The guests are to end."""


def run_all(
    config: Config, material: Material, jobs: Sequence[Job], folder: Path, *, at_once: int, fresh: bool = False
) -> dict[Job, list[Record]]:
    """Return the records of every job, in the order of the jobs.

    What the cache has is not measured again unless `fresh`. The first error ends all guests and is raised.
    """
    keys = {merger: material.key(merger) for merger in {job.merger for job in jobs}}
    stop = threading.Event()

    def carry_out(job: Job) -> list[Record]:
        kept = _kept(config, keys[job.merger], job)
        if kept.is_file() and not fresh:
            records = read_kept(kept)
        else:
            text = _measure(config, material, job, folder, stop)
            _keep(kept, text)
            records = parse(text)
        progress.advance(1)
        return records

    with step(f"Measuring {len(jobs)} cases", total=len(jobs)) as progress, ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(carry_out, job) for job in jobs]
        try:
            return {job: future.result() for job, future in zip(jobs, futures, strict=True)}
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _measure(config: Config, material: Material, job: Job, folder: Path, stop: threading.Event) -> str:
    def beat() -> None:
        if stop.is_set():
            raise _Interrupted

    case = job.case
    return measure(config, material, job.merger, case, folder / job.name, TIMEOUT, beat)


def _kept(config: Config, key: str, job: Job) -> Path:
    files = [files_key(program_files(config))] if job.case.has_programs else []
    cpus = [f"cpus {job.case.cpus}"] if job.case.cpus > 1 else []
    name = key_of(key, job.case.script(), str(job.case.memory_mib), *job.case.arguments, *cpus, *files)
    return config.cache / "bench" / "records" / f"{name}.txt"


def read_kept(path: Path) -> list[Record]:
    """Read what was measured before. Raises SamepageError for a file that is damaged: no figure is at fault."""
    try:
        return parse(read_bytes(path).decode("ascii"))
    except (UnicodeDecodeError, CheckFailed) as error:
        raise SamepageError(f"is damaged: {error}", where=path, hint="--fresh measures again.") from error


def _keep(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.partial")
    partial.write_text(text, "ascii")
    partial.replace(path)
