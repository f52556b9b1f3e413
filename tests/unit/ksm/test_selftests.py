# SPDX-License-Identifier: MIT
"""Reading what the kernel's tests print, and judging two mergers by it."""

from __future__ import annotations

from pathlib import Path

import junitparser
import pytest

from harness.ksm.selftests import report
from harness.ksm.selftests.cases import Case, cases
from harness.ksm.selftests.judge import Row, Tally, Verdict, compare
from harness.ksm.selftests.parse import Check, Status, checks_of
from harness.ksm.selftests.run import Outcome

FUNCTIONAL = """\
TAP version 13
1..4
# [RUN] test_unmerge
ok 1 Pages were unmerged
# [RUN] test_prot_none
not ok 2 ptrace write failed
# [RUN] test_prctl
ok 3 # SKIP PR_SET_MEMORY_MERGE not supported
# [RUN] test_prctl_fork
Bail out! 1 out of 4 tests failed
"""
OLD_USAGE = "Supported <test type>:\n -M (page merging)\n -P evaluate merging time and speed.\n -C evaluate the time\n"
NEW_USAGE = OLD_USAGE + " -D evaluate unmerging time\n -t: KSM merge type\n"
CASE = Case("ksm_tests", ("-U",))


def test_points_get_the_names_of_their_functions() -> None:
    assert checks_of(FUNCTIONAL, 1) == [
        Check("test_unmerge", Status.PASS, "Pages were unmerged"),
        Check("test_prot_none", Status.FAIL, "ptrace write failed"),
        Check("test_prctl", Status.SKIP, "PR_SET_MEMORY_MERGE not supported"),
        Check("test_prctl_fork", Status.SILENT),
        Check("", Status.FAIL, "exit code 1: Bail out! 1 out of 4 tests failed"),
    ]


@pytest.mark.parametrize(
    ("code", "status"), [(0, Status.PASS), (1, Status.FAIL), (4, Status.SKIP), (2, Status.FAIL), (-11, Status.FAIL)]
)
def test_plain_programs_are_judged_by_exit_code(code: int, status: Status) -> None:
    (check,) = checks_of("OK\n", code)
    assert check.status is status


def test_measured_speed_is_kept() -> None:
    assert checks_of("# Average speed:  12.345 MiB/s\n", 0) == [Check("", Status.PASS, "12.345 MiB/s")]


def test_modes_are_those_that_the_kernel_has() -> None:
    old = [case.name for case in cases(["ksm_tests"], OLD_USAGE, size_mib=7, racy_runs=3)]
    assert "ksm_tests -P -s 7" in old
    assert "ksm_tests -C" in old
    assert not any("-D" in name or "-t 1" in name or "functional" in name for name in old)
    new = cases(["ksm_tests", "ksm_functional_tests"], NEW_USAGE, size_mib=7, racy_runs=3)
    assert new[0].name == "ksm_functional_tests"
    assert {case.runs for case in new if "-N -m 1" in case.name} == {3}
    assert "ksm_tests -D -s 7 -t 1" in [case.name for case in new]


def outcomes(*statuses: Status) -> list[Outcome]:
    return [Outcome(CASE, (Check("", status, f"said {status}"),), "", 1.5) for status in statuses]


PASS, FAIL, SKIP = [Status.PASS], [Status.FAIL], [Status.SKIP]


@pytest.mark.parametrize(
    ("in_tree", "samepage", "verdict"),
    [
        (PASS, PASS, Verdict.PASS),
        (PASS, FAIL, Verdict.FAIL),
        (PASS, SKIP, Verdict.FAIL),
        (PASS, [Status.SILENT], Verdict.FAIL),
        (PASS, [], Verdict.FAIL),
        (FAIL, PASS, Verdict.PASS),
        (FAIL, FAIL, Verdict.BOTH_FAIL),
        (SKIP, SKIP, Verdict.SKIP),
        ([], FAIL, Verdict.FAIL),
        (3 * PASS, 2 * FAIL + PASS, Verdict.PASS),
        (3 * PASS, 3 * FAIL, Verdict.FAIL),
        (3 * FAIL, 3 * FAIL, Verdict.BOTH_FAIL),
        (20 * PASS + 5 * FAIL, 20 * PASS + 5 * FAIL, Verdict.PASS),
        (20 * PASS + 5 * FAIL, 19 * PASS + 6 * FAIL, Verdict.FAIL),
    ],
)
def test_judged_by_in_tree(in_tree: list[Status], samepage: list[Status], verdict: Verdict) -> None:
    (row,) = compare(outcomes(*in_tree), outcomes(*samepage))
    assert row.verdict is verdict


def test_a_wrong_test_is_not_judged() -> None:
    none = Tally(0, 0, 0, "")
    good, bad = Tally(1, 0, 0, ""), Tally(0, 1, 0, "")
    assert Row("case", good, bad, 0, flaw="counts wrong").verdict is Verdict.FLAWED
    assert Row("case", good, good, 0, flaw="counts wrong").verdict is Verdict.PASS
    assert Row("case", good, none, 0, flaw="counts wrong").verdict is Verdict.FAIL


def test_reports(tmp_path: Path) -> None:
    rows = [
        Row("good", Tally(1, 0, 0, ""), Tally(1, 0, 0, "1 MiB/s"), 2.0),
        Row("bad", Tally(1, 0, 0, ""), Tally(0, 1, 0, "exit code 1: so\nand so"), 1.0),
        Row("neither", Tally(0, 0, 1, "no NUMA"), Tally(0, 0, 1, "no NUMA"), 0.0),
    ]
    report.write_tap(rows, tmp_path / "out.tap")
    lines = (tmp_path / "out.tap").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "TAP version 13", "1..3", "ok 1 - good", "not ok 2 - bad", "ok 3 - neither # SKIP no NUMA",
    ]  # fmt: skip
    report.write_junit(rows, "selftests", tmp_path / "out.xml")
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "out.xml"))
    assert (suite.tests, suite.failures, suite.skipped) == (3, 1, 1)
