# SPDX-License-Identifier: MIT
"""What the runner makes of a run that goes wrong, and the command in front of it; without any guest."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from harness.cli import run as command
from harness.config import load_config
from harness.errors import CheckFailed, SamepageError
from harness.guest.errors import KernelSplat
from harness.guest.splats import Splat
from harness.image import GuestNeeds, Image
from harness.ksm import runner, workload
from harness.ksm.display import Display
from harness.ksm.result import Result, read
from harness.ksm.runner import Job, Material, run
from tests.unit.ksm.test_result import make

NOWHERE = Path("/nonexistent")
FILES = ("vmlinuz", "vmlinux", "initramfs", "root", "modules")
PATHS: dict[str, Path] = dict.fromkeys(FILES, NOWHERE)
IMAGE = Image(kernel="6.12", release="6.12.1-amd64", sha256="cd" * 32, needs=GuestNeeds(), **PATHS)


def job(folder: Path) -> Job:
    return Job("x", "small", workload.load("small"), "in-tree", 1, "6.12", None, folder)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CheckFailed("page 5 is wrong"), "fail"),
        (SamepageError("no memory for a guest"), "error"),
        (KernelSplat("insmod", [Splat("WARNING", ("[ 1.0] WARNING: at x.c:1",), "insmod")]), "fail"),
    ],
)
def test_a_run_that_goes_wrong_leaves_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(runner, "_carry_out", fail)
    outcome = run(load_config(), job(tmp_path / "run"), Material(IMAGE, None), Display("x"))
    left = read(tmp_path / "run" / "result.json")
    assert left == outcome
    assert left.status == status
    assert left.error == str(error)
    assert len(left.splats) == (1 if isinstance(error, KernelSplat) else 0)


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "interrupted"), (ZeroDivisionError(), "error")])
def test_an_interruption_and_a_bug_of_ours_leave_a_result_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(runner, "_carry_out", fail)
    with pytest.raises(type(error)):
        run(load_config(), job(tmp_path / "run"), Material(IMAGE, None), Display("x"))
    assert read(tmp_path / "run" / "result.json").status == status


def judged(outcome: Result) -> Result:
    runner._judge(outcome)
    return outcome


def test_pages_left_unmerged_fail_our_module_only() -> None:
    short = [msgspec.structs.replace(stage, pages_expected=1051) for stage in make().stages[1:]]
    with pytest.raises(CheckFailed, match="merged: of 1051 pages only 1050"):
        judged(make("samepage", stages=short))
    judged(make("in-tree", stages=short))


def test_a_copy_that_was_not_broken_fails() -> None:
    broken = make()
    broken.cow.broken -= 1
    with pytest.raises(CheckFailed, match="of 7 writes to merged pages only 6"):
        judged(broken)


def test_savings_that_cannot_be_are_pointed_out() -> None:
    more = [msgspec.structs.replace(stage, pages_expected=1000) for stage in make().stages[1:]]
    assert "50 pages more" in judged(make(stages=more)).checks["counters, merged"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMEPAGE_RUNS", str(tmp_path))
    monkeypatch.setattr(command, "prepare", lambda *_, **__: Material(IMAGE, None))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no-such"], "there is no such workload"),
        (["small", "--name", "../x"], "is not a name for a folder"),
        (["small", "--name", "latest"], "is not a name for a folder"),
        (["small", "small"], "named twice"),
        (["programs", "--processes", "3"], "synthetic"),
        (["small", "--name", "taken"], "exists already"),
    ],
)
def test_bad_input_is_named_before_anything_starts(project: Path, arguments: list[str], expected: str) -> None:
    (project / "taken").mkdir()
    result = CliRunner().invoke(command.run, arguments, standalone_mode=False)
    assert isinstance(result.exception, SamepageError)
    assert expected in str(result.exception)
    assert result.exception.exit_code == 2
    assert sorted(path.name for path in project.iterdir()) == ["taken"]


@pytest.mark.parametrize(("failing", "code"), [(None, 0), ("fail", 1), ("error", 2)])
def test_two_mergers_are_put_side_by_side(
    project: Path, monkeypatch: pytest.MonkeyPatch, failing: str | None, code: int
) -> None:
    def pretend(config: object, planned: Job, material: object, display: object) -> Result:
        planned.folder.mkdir(parents=True)
        status = failing if planned.merger == "in-tree" and failing else "pass"
        return make(planned.merger, status, name=planned.name, workload=planned.workload_name)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "carry_out", pretend)
    result = CliRunner().invoke(command.run, ["small", "--name", "mine"], standalone_mode=False)
    assert result.return_value == code, result.output
    assert (project / "latest").resolve() == project / "mine"
    document = json.loads((project / "mine" / "result.json").read_text())
    assert [entry["name"] for entry in document["runs"]] == ["mine/small-samepage", "mine/small-in-tree"]
    for name in ("report.html", "small-samepage/report.html", "small-in-tree/report.html"):
        assert (project / "mine" / name).is_file()


def test_a_single_run_lies_in_its_own_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(config: object, planned: Job, material: object, display: object) -> Result:
        planned.folder.mkdir(parents=True)
        return make(planned.merger)

    monkeypatch.setattr(command, "carry_out", pretend)
    result = CliRunner().invoke(command.run, ["small", "--merger", "in-tree", "--name", "one"], standalone_mode=False)
    assert result.return_value == 0
    assert (project / "one" / "report.html").is_file()


def test_machines_may_be_more_than_their_host_holds() -> None:
    few, many = workload.load("vms"), workload.load("vms-long")
    assert runner.memory_for(few) > few.footprint_mib
    assert runner.memory_for(many) < many.footprint_mib / 2
