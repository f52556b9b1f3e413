# SPDX-License-Identifier: MIT
"""`samepage run` as a whole: the same workload with the module and with the kernel's own merger."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import Config
from harness.ksm.display import Display
from harness.ksm.result import Merger, Result, read
from harness.ksm.runner import Job, prepare, run
from harness.ksm.series import read_series
from harness.ksm.workload import load


def carry_out(config: Config, folder: Path, workload: str, merger: Merger) -> Result:
    job = Job("test", workload, load(workload), merger, 3, config.kernel, None, folder)
    with Display(f"{workload}, {merger}").shown() as display:
        outcome = run(config, job, prepare(config, config.kernel, [merger]), display)
    assert outcome.status == "pass", outcome.error
    assert read(folder / "result.json") == outcome
    return outcome


@pytest.mark.parametrize("merger", ["samepage", "in-tree"])
def test_everything_that_can_be_merged_is(config: Config, tmp_path: Path, merger: Merger) -> None:
    outcome = carry_out(config, tmp_path, "small", merger)
    for name in ("merged", "final"):
        stage = outcome.stage(name)
        assert stage is not None
        assert stage.expected is not None
        # Linux 6.1's own does not count zero pages.
        unknown = set() if "ksm_zero_pages" in stage.counters else {("ksm_zero_pages", 0)}
        assert stage.expected.items() - unknown <= stage.counters.items()
    assert outcome.cow.broken == outcome.cow.writes > 100
    assert outcome.cow.content_errors == 0
    assert outcome.splats == []
    assert (outcome.module_sha256 is None) == (merger == "in-tree")
    handed_back = outcome.stage("handed back")
    assert handed_back is not None
    assert handed_back.counters["pages_sharing"] == handed_back.counters["pages_shared"] == 0
    rows = read_series(tmp_path / "counters.csv")
    assert rows[-1][1] == "unmerge"
    assert max(values["ksm.pages_sharing"] for _, _, values in rows) >= (outcome.pages_merged or 0)
    assert (tmp_path / "console.log").stat().st_size > 1000


def test_real_programs_go_on_right_while_their_memory_is_merged(config: Config, tmp_path: Path) -> None:
    outcome = carry_out(config, tmp_path, "programs-small", "samepage")
    assert outcome.cow.content_errors == 0
    assert outcome.cow.broken == outcome.cow.writes > 50
    merged = outcome.stage("merged")
    assert merged is not None
    assert merged.complete
    assert merged.pages_merged > 500
