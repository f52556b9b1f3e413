# SPDX-License-Identifier: MIT
"""The matrix over test files that need no guest: each with a pytest of its own, as in earnest."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import junitparser
import pytest
from rich.console import Console

from harness.config import Config, load_config
from harness.errors import CheckFailed, SamepageError
from harness.matrix import report
from harness.matrix.plan import Run, find_tests, known_kernels, plan, room
from harness.matrix.run import Ran, run_all

TESTS = {
    "test_good.py": """
import pytest
def test_kernel_is_named(pytestconfig):
    assert pytestconfig.getoption("--samepage-kernel") in ("6.1", "6.12")
@pytest.mark.parametrize("number", [1, 2])
def test_parameters(number): pass
def test_skipped(): pytest.skip("no such thing here")
""",
    "test_bad.py": """
def test_on_one_kernel(pytestconfig, tmp_path):
    (tmp_path / "console.log").touch()
    assert pytestconfig.getoption("--samepage-kernel") == "6.12"
""",
    "test_broken.py": "import nothing_of_this_name\n",
}
KERNELS = ["6.1", "6.12"]


@pytest.fixture
def project(tmp_path: Path) -> Config:
    (tmp_path / "pyproject.toml").write_text("[tool.samepage]\nimages = 'images'\n")
    (tmp_path / "images").mkdir()
    for name in ("kernel-6.12", "kernel-6.1", "kernel-6.12-debug", "guest"):
        (tmp_path / "images" / f"{name}.toml").write_text("")
    (tmp_path / "tests").mkdir()
    for name, text in TESTS.items():
        (tmp_path / "tests" / name).write_text(text)
    return load_config(tmp_path)


def shown(merged: junitparser.JUnitXml) -> dict[str, list[str]]:
    out = Console(file=io.StringIO(), width=200)
    out.print(report.table(merged, KERNELS))
    assert isinstance(out.file, io.StringIO)
    rows = [line.strip("│").split("│") for line in out.file.getvalue().splitlines() if line.startswith("│")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def carry_out(config: Config, *names: str, slots: int = 2) -> list[Ran]:
    runs = plan(KERNELS, find_tests(config.root, [config.root / "tests" / name for name in names]))
    return run_all(config, runs, slots, config.runs / "matrix")


def test_kernels_are_sorted_by_version(project: Config) -> None:
    assert known_kernels(project) == ["6.1", "6.12", "6.12-debug"]


def test_plan_pairs_files_and_kernels(project: Config) -> None:
    folder = project.root / "tests"
    runs = plan(KERNELS, find_tests(project.root, [folder, folder / "test_bad.py"]))
    assert [run.name for run in runs[:3]] == ["6.1 test_bad", "6.12 test_bad", "6.1 test_broken"]
    assert len(runs) == len(TESTS) * len(KERNELS)
    with pytest.raises(SamepageError, match="no test file"):
        find_tests(project.root, [project.root / "images"])


def test_room() -> None:
    assert room(7) == 7
    assert room(None) >= 1


def test_results_are_merged(project: Config) -> None:
    done = carry_out(project, "test_good.py", "test_bad.py")
    assert [ran.exit_code for ran in done] == [0, 0, 1, 0]
    merged = report.merge(done, {"7.3": CheckFailed("does not build")})
    assert (merged.tests, merged.failures, merged.errors, merged.skipped) == (11, 1, 1, 2)
    assert {case.classname for suite in merged for case in suite} == {
        "6.1.tests.test_good", "6.12.tests.test_good", "6.1.tests.test_bad", "6.12.tests.test_bad", "7.3",
    }  # fmt: skip
    rows = shown(merged)
    assert rows["test_good test_parameters"] == ["pass", "pass"]
    assert rows["test_good test_skipped"][0].startswith("skip: ")
    assert rows["test_bad test_on_one_kernel"] == ["fail", "pass"]
    # What guests of a failed file left is kept.
    kept = [path.relative_to(project.runs / "matrix").parts[:2] for path in project.runs.rglob("console.log")]
    assert set(kept) == {("6.1", "tests-test_bad")}


def test_a_file_that_cannot_be_collected_could_not_run(project: Config) -> None:
    done = carry_out(project, "test_broken.py")
    assert [ran.exit_code for ran in done] == [2, 2]
    merged = report.merge(done, {})
    assert merged.errors == 2
    messages = [str(result.message) for suite in merged for case in suite for result in case.result]
    assert all(message.startswith("pytest ended with 2: ") for message in messages)


def test_no_pytest_outlives_the_matrix(project: Config) -> None:
    marker = project.root / "started"
    (project.root / "tests" / "test_long.py").write_text(
        f"import os, pathlib, time\n"
        f"def test_long():\n    pathlib.Path({str(marker)!r}).write_text(str(os.getpid()))\n    time.sleep(300)\n"
    )
    program = (
        "from pathlib import Path; from harness.config import load_config; from harness.matrix.plan import Run;"
        "from harness.matrix.run import run_all; config = load_config(Path.cwd());"
        "run_all(config, [Run('6.1', config.root / 'tests/test_long.py')], 1, config.runs)"
    )
    matrix = subprocess.Popen([sys.executable, "-c", program], cwd=project.root, stderr=subprocess.DEVNULL)
    _wait(lambda: marker.exists() and marker.read_text() != "")
    pid = int(marker.read_text())
    matrix.send_signal(signal.SIGKILL)
    matrix.wait()
    _wait(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return " Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:2]


def _wait(condition: object, timeout: float = 60) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_names() -> None:
    assert Run("6.1", Path("/x/test_cow.py")).name == "6.1 test_cow"
