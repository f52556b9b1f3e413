# SPDX-License-Identifier: MIT
"""Carrying out many attacks, and all of their figures in one result."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.config import Config
from harness.errors import CheckFailed
from harness.ksm.attack.guests import Tools, under_icount, under_tcg
from harness.ksm.attack.records import parse
from harness.ksm.attack.result import AttackResult, Inputs, Skipped, Timing
from harness.ksm.attack.scores import Scored, score
from harness.ksm.attack.scripts import Plan
from harness.ksm.attack.stats import LEVEL
from harness.progress import step
from harness.store import file_sha256


@dataclass(frozen=True)
class Job:
    """An attack, and how time passes while it is made."""

    plan: Plan
    timing: Timing

    @property
    def name(self) -> str:
        """Of a folder, for one."""
        return f"{self.plan.name}.{self.timing}"


@dataclass(frozen=True)
class NotThere:
    """Why an attack was not made: this module has not got what it is about."""

    reason: str


Outcome = Scored | NotThere


class _Interrupted(Exception):
    """The guests are to end."""


def run_all(
    config: Config, tools: Tools, jobs: Sequence[Job], folder: Path, *, at_once: int, fresh: bool = False
) -> dict[Job, Outcome]:
    """Carry out every job, in a guest of its own; the first error ends all guests and is raised.

    Those under icount run several at once, then the others one by one: they are to have the machine to themselves.
    """
    stop = threading.Event()

    def beat() -> None:
        if stop.is_set():
            raise _Interrupted

    def carry_out(job: Job) -> Outcome:
        beat()
        if job.timing == "icount":
            text = under_icount(config, tools, job.plan, folder / job.name, beat, fresh=fresh)
        else:
            text = under_tcg(config, tools, job.plan, folder / job.name)
        outcome = judged(job, text, folder / job.name)
        progress.advance(1)
        return outcome

    counted = [job for job in jobs if job.timing == "icount"]
    with step(f"Making {len(jobs)} attacks", total=len(jobs)) as progress:
        with ThreadPoolExecutor(at_once) as pool:
            futures = [pool.submit(carry_out, job) for job in counted]
            try:
                found = {job: future.result() for job, future in zip(counted, futures, strict=True)}
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        found |= {job: carry_out(job) for job in jobs if job.timing == "tcg"}
    return {job: found[job] for job in jobs}


def judged(job: Job, text: str, folder: Path) -> Outcome:
    """Return what comes of what a guest said. Raises CheckFailed for an attack that could not be carried out."""
    try:
        said = parse(text)
        return NotThere(f"no {said.missing}") if said.missing else score(job.plan, job.timing, said)
    except CheckFailed as error:
        raise CheckFailed(f"{job.name}: {error.what}", where=folder) from error


def collect(size: str, tools: Tools, seed: int, done: Mapping[Job, Outcome]) -> AttackResult:
    """Return the result of a run."""
    scored = [(job, outcome) for job, outcome in done.items() if isinstance(outcome, Scored)]
    bench = tools.bench
    return AttackResult(
        size=size,
        level=LEVEL,
        inputs=Inputs(
            kernel=bench.image.release,
            qemu=bench.qemu.version,
            image_sha256=bench.image.sha256,
            program_sha256=file_sha256(tools.program),
            module_sha256=bench.module.sha256 if bench.module else None,
            seed=seed,
        ),
        figures=[figure for job, outcome in scored for figure in outcome.figures(job.plan, job.timing)],
        distributions=[one for job, outcome in scored for one in outcome.distributions(job.plan, job.timing)],
        skipped=[
            Skipped(attack=job.plan.attack, mode=job.plan.mode.name, timing=job.timing, reason=outcome.reason)
            for job, outcome in done.items()
            if isinstance(outcome, NotThere)
        ],
    )
