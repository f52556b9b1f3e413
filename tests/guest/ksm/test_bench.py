# SPDX-License-Identifier: MIT
"""The bench's figures repeat to the last digit, and count what they say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from harness.config import Config
from harness.errors import CheckFailed
from harness.ksm.bench.cases import Case
from harness.ksm.bench.collect import collect
from harness.ksm.bench.figures import figures_of
from harness.ksm.bench.machine import measure, prepare
from harness.ksm.bench.records import parse
from harness.ksm.bench.run import Job
from harness.ksm.result import Merger

pytestmark = pytest.mark.usefixtures("stock_kernel")

TIMEOUT = 300.0


@pytest.mark.parametrize("merger", get_args(Merger))
def test_two_runs_of_a_case_give_the_same_bytes(config: Config, tmp_path: Path, merger: Merger) -> None:
    case = Case("passes", "mixed", 4, 256, seed=1, steady_passes=3)
    material = prepare(config, config.kernel, module=merger == "samepage")
    texts = [measure(config, material, merger, case, tmp_path / name, TIMEOUT) for name in ("once", "again")]
    assert texts[0] == texts[1]
    figures = {figure.metric: figure.value for figure in figures_of(case, merger, parse(texts[0]))}
    assert 100 < figures["first pass"] < 20000
    assert figures["pages saved"] > 0
    assert figures["steady state, cheapest pass"] <= figures["steady state"] <= figures["steady state, dearest pass"]


def test_several_threads_repeat_and_save_all(config: Config, tmp_path: Path) -> None:
    """CPUs of a guest take turns by its own clock."""
    case = Case("threads", "same", 8, 256, threads=2)
    material = prepare(config, config.kernel, module=True)
    texts = [measure(config, material, "samepage", case, tmp_path / name, TIMEOUT) for name in ("once", "again")]
    assert texts[0] == texts[1]
    figures = {figure.metric: figure.value for figure in figures_of(case, "samepage", parse(texts[0]))}
    assert figures["pages not saved"] == 0
    # Turns of the CPUs last milliseconds: the first pass is over before there is one.
    assert 1 < figures["threads at work at once, second pass"] <= 2


def test_what_needs_several_threads_is_not_asked_of_ksmd(config: Config, tmp_path: Path) -> None:
    job = Job(Case("threads", "same", 2, 256, threads=2), "in-tree")
    material = prepare(config, config.kernel, module=False)
    records = parse(measure(config, material, job.merger, job.case, tmp_path, TIMEOUT))
    result = collect("cases", material, {job: records})
    assert [(missing.case, missing.merger) for missing in result.unsupported] == [(job.case, "in-tree")]
    assert result.figures == []


def test_real_programs_answer_right_and_are_merged(config: Config, tmp_path: Path) -> None:
    """In a guest without disks: a wrong answer would end the case."""
    case = Case("passes", "programs", 2, 256, steady_passes=2)
    material = prepare(config, config.kernel, module=True)
    records = parse(measure(config, material, "samepage", case, tmp_path, TIMEOUT))
    figures = {figure.metric: figure.value for figure in figures_of(case, "samepage", records)}
    assert figures["pages saved"] > 100
    assert figures["pages not saved"] < figures["pages saved"] / 5


def test_what_a_merger_does_not_offer_is_no_fault(config: Config, tmp_path: Path) -> None:
    if config.kernel != "6.1":
        pytest.skip("its own merger has PR_SET_MEMORY_MERGE")
    job, material = Job(Case("passes", "programs", 2, 256), "in-tree"), prepare(config, config.kernel, module=False)
    records = parse(measure(config, material, job.merger, job.case, tmp_path, TIMEOUT))
    result = collect("cases", material, {job: records})
    assert [(missing.case, missing.merger) for missing in result.unsupported] == [(job.case, "in-tree")]
    assert result.figures == []


@pytest.mark.parametrize("merger", get_args(Merger))
def test_steps_of_a_migration_are_counted(config: Config, tmp_path: Path, merger: Merger) -> None:
    case = Case("rmap", "unique", 2, 1000)
    material = prepare(config, config.kernel, module=merger == "samepage")
    records = parse(measure(config, material, merger, case, tmp_path, TIMEOUT))
    (steps,) = [figure.value for figure in figures_of(case, merger, records) if figure.unit == "steps"]
    assert steps > 0
    if merger == "samepage":
        assert steps < 100


@dataclass(frozen=True)
class Nonsense:
    memory_mib: int = 64
    cpus: int = 1
    arguments: tuple[str, ...] = ()
    has_programs: bool = False
    kernel_modules: tuple[str, ...] = ()

    def script(self) -> str:
        return "spawn 1\njuggle 3\n"


def test_a_script_that_cannot_be_carried_out_fails(config: Config, tmp_path: Path) -> None:
    material = prepare(config, config.kernel, module=False)
    with pytest.raises(CheckFailed, match="not understood: juggle 3"):
        measure(config, material, "in-tree", Nonsense(), tmp_path, TIMEOUT)
