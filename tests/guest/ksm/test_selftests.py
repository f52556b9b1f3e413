# SPDX-License-Identifier: MIT
"""The kernel's own tests, as its source package has them: the module passes whatever in-tree KSM passes.

A short set; `samepage selftests` is the whole one, with 25 runs of what is racy.
"""

from __future__ import annotations

import pytest

from harness.config import Config
from harness.image import Image
from harness.ksm.selftests.build import build_selftests
from harness.ksm.selftests.cases import Case, cases
from harness.ksm.selftests.judge import Row, Verdict, compare
from harness.ksm.selftests.run import Bench, Outcome
from harness.module.build import BuiltModule

SIZE_MIB = 16
RUNS = 10


@pytest.fixture(scope="module")
def rows(config: Config, image: Image, module: BuiltModule, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What each check came to with both mergers."""
    programs = build_selftests(config, config.kernel)
    outcomes: list[list[Outcome]] = []
    for loaded in (None, module):
        with Bench(config, image, loaded, programs, tmp_path_factory.mktemp("selftests")) as bench:
            chosen = cases(programs, bench.usage(), size_mib=SIZE_MIB, racy_runs=RUNS)
            outcomes.append([outcome for case in chosen for outcome in bench.run(case)])
    return compare(*outcomes)


def of(rows: list[Row], start: str) -> list[Row]:
    return [row for row in rows if row.name.startswith(start)]


def require(rows: list[Row]) -> None:
    worse = [f"{row.name}: in-tree {row.in_tree}, module {row.samepage} ({row.samepage.text})" for row in rows
             if row.verdict is Verdict.FAIL]  # fmt: skip
    assert not worse, "\n".join(worse)


def test_functional(rows: list[Row]) -> None:
    chosen = of(rows, "ksm_functional_tests")
    if not chosen:
        pytest.skip("this kernel's source has no ksm_functional_tests.c")
    require(chosen)
    assert sum(row.verdict is Verdict.PASS for row in chosen) >= 8


@pytest.mark.parametrize("mode", ["-M", "-U", "-Z", "-N", "-P", "-H", "-D", "-C"])
def test_mode(rows: list[Row], mode: str) -> None:
    chosen = of(rows, Case("ksm_tests", (mode,)).name)
    if not chosen:
        pytest.skip("this kernel's ksm_tests has no such mode")
    require(chosen)
    if all(row.verdict is Verdict.BOTH_FAIL for row in chosen):
        pytest.skip(f"fails with in-tree KSM too: {chosen[0].in_tree.text}")
