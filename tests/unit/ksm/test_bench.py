# SPDX-License-Identifier: MIT
"""The bench's arithmetic: what contents can save, figures from records, comparison of runs, sets."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from harness.errors import CheckFailed, SamepageError
from harness.ksm.bench import result as results
from harness.ksm.bench.cases import SCRIPTS, Case, Kind
from harness.ksm.bench.content import memory_of
from harness.ksm.bench.figures import METRICS, curve_of, figures_of, passes_of
from harness.ksm.bench.records import parse
from harness.ksm.bench.report import write_report
from harness.ksm.bench.result import BenchResult, Curve, Figure, Inputs
from harness.ksm.bench.sets import SETS
from harness.ksm.bench.tables import KINDS, rows
from harness.ksm.result import Merger

INPUTS = Inputs(
    kernel="6.12", qemu="10", qemu_sha256="a", image_sha256="b", guest_program_sha256="c", module_sha256=None
)
CASE = Case("passes", "unique", 4, 256, steady_passes=2)


def figure(value: float, metric: str = "first pass", merger: Merger = "samepage", case: Case = CASE) -> Figure:
    return Figure(case=case, merger=merger, metric=metric, value=value, unit="instructions/page")


def outcome(*figures: Figure, curves: tuple[Curve, ...] = ()) -> BenchResult:
    return BenchResult(set="cases", inputs=INPUTS, figures=list(figures), curves=list(curves))


def test_every_kind_has_a_script_figures_and_a_title() -> None:
    kinds = set(get_args(Kind))
    assert kinds == set(SCRIPTS) == set(METRICS) == set(KINDS)
    assert kinds == {case.kind for cases in SETS.values() for case in cases()}


def test_what_can_be_saved() -> None:
    assert memory_of("same", 4, 256, 1).possible(use_zero_pages=False) == 256 * 3
    assert memory_of("groups", 4, 256, 1).possible(use_zero_pages=False) == 1024 // 4 * 3
    assert memory_of("unique", 4, 256, 1).possible(use_zero_pages=False) == 0
    # 256 pages to a merged page at most.
    assert memory_of("zero", 4, 256, 1).possible(use_zero_pages=False) == 1024 - 4
    assert memory_of("zero", 4, 256, 1).possible(use_zero_pages=True) == 1024


def test_groups_deal_each_place_once() -> None:
    for seed in range(1, 20):
        memory = memory_of("groups", 3, 100, seed)
        fields = [line.split() for line in memory.set_up() if " deal " in line]
        keys = [
            int(base) + (int(start) + i) * int(factor) % int(total) // int(group)
            for _, _, _, _, _, count, base, start, factor, total, group in fields
            for i in range(int(count))
        ]
        assert all(keys.count(key) == 4 for key in set(keys))


def test_figures_of_passes() -> None:
    readings = [("ready", 10), ("first", 1024 * 5 + 10), ("second", 1024 * 7 + 10)]
    readings += [("steady", 1024 * 8 + 10), ("steady", 1024 * 11 + 10)]
    text = "".join(f"{label} scanner_ns={ns} ksm.pages_sharing=3 ksm.pages_shared=1\n" for label, ns in readings)
    values = {item.metric: item.value for item in figures_of(CASE, "in-tree", parse(text))}
    assert values["first pass"] == 5
    assert values["second pass"] == 2
    assert values["steady state"] == 2
    assert values["steady state, dearest pass"] == 3
    assert values["pages saved"] == 3


def test_programs_are_counted_by_the_guest() -> None:
    case = Case("passes", "programs", 4, 1024, steady_passes=1)
    text = "counted pages=100 possible=60\n"
    for label, ns, saved in (("ready", 0, 0), ("first", 500, 0), ("second", 900, 50), ("steady", 1000, 55)):
        counters = f"ksm.pages_sharing={saved} ksm.pages_shared=1 ksm.pages_skipped={ns // 100}"
        text += f"{label} scanner_ns={ns} {counters}\n"
    values = {item.metric: item.value for item in figures_of(case, "in-tree", parse(text))}
    assert values["first pass"] == 5
    assert values["pages not saved"] == 5
    assert values["steady state, pages skipped in a pass"] == 1
    costs = passes_of(case, "in-tree", parse(text))
    assert costs is not None
    assert costs.scanner_instructions == [500, 400, 100]
    script = case.script()
    assert script.count("launch ") == 4
    assert script.count('"ask":"digest"') == 4
    with ThreadPoolExecutor(1) as pool:  # as bench.run does; answers come from databases
        assert pool.submit(case.script).result() == script


def test_milestones_of_a_curve() -> None:
    case = Case("curve", "same", 4, 100)  # 300 pages can be saved
    rounds = [(7, 0), (7, 200), (7, 290), (7, 300)]
    text = "".join(f"curve scanner_ns={ns} saved={saved} full_scans=0\n" for ns, saved in rounds)
    values = {item.metric: item.value for item in figures_of(case, "samepage", parse(text))}
    assert [values[f"scanner to {percent} %"] for percent in (50, 90, 95, 99)] == [14, 21, 21, 28]
    curve = curve_of(case, "samepage", parse(text))
    assert curve is not None
    assert curve.scanner_instructions == [7, 14, 21, 28]


def test_threads_share_the_clock_of_all_cpus() -> None:
    case = Case("threads", "same", 2, 100, threads=2)  # 100 pages can be saved
    counters = "ksm.pages_sharing={saved} samepage.lock_waits={waits}\n"
    text = "ready " + counters.format(saved=0, waits=3)
    for number, label in enumerate(("first", "second", "third")):
        text += f"{label}_together all_ns={1000 * (number + 1)} threads_ns={1500 * (number + 1)}\n"
        text += f"{label} " + counters.format(saved=99, waits=10)
    values = {item.metric: item.value for item in figures_of(case, "samepage", parse(text))}
    assert values["all CPUs, first pass"] == 5  # of 200 pages
    assert values["all CPUs, third pass"] == 15
    assert values["threads at work at once, second pass"] == 1.5
    assert values["waits for a lock"] == 7
    assert (values["pages saved"], values["pages not saved"]) == (99, 1)
    assert "threads2" in case.name
    assert "threads" not in msgspec.structs.replace(case, kind="passes", threads=1).name


def test_a_bad_record_is_named() -> None:
    with pytest.raises(CheckFailed, match="first scanner_ns=x"):
        parse("first scanner_ns=x\n")


def test_worse_by_more_than_was_allowed() -> None:
    before = [figure(100), figure(100, "pages saved"), figure(0, "pages not saved")]
    now = [figure(102), figure(97, "pages saved"), figure(1, "pages not saved")]
    assert [item.figure.metric for item in results.worse(now, before, 1)] == [
        "pages not saved",
        "pages saved",
        "first pass",
    ]
    assert [item.figure.metric for item in results.worse(now, before, 2.5)] == ["pages not saved", "pages saved"]
    assert not results.worse([figure(99), figure(103, "pages saved")], before, 1)


def test_history_and_files(tmp_path: Path) -> None:
    results.remember(outcome(figure(1)), "monday", tmp_path)
    results.remember(outcome(figure(2)), "monday", tmp_path)
    assert results.recall("monday", tmp_path).figures[0].value == 2
    path = results.write(outcome(figure(3)), tmp_path)
    assert results.recall(str(path), tmp_path) == results.recall(str(tmp_path), tmp_path) == outcome(figure(3))
    with pytest.raises(SamepageError, match="monday"):
        results.recall("tuesday", tmp_path)
    path.write_text("{}")
    with pytest.raises(SamepageError, match="no result of a bench run"):
        results.recall(str(path), tmp_path)


def test_seeds_are_taken_together_and_mergers_put_side_by_side() -> None:
    second = msgspec.structs.replace(CASE, seed=2)
    (row,) = rows([figure(10), figure(30, case=second), figure(40, merger="in-tree")])
    assert row.values == {"samepage": 20, "in-tree": 40}
    assert row.ratio == 0.5
    assert row.spread == 0.5


@pytest.mark.parametrize("name", SETS)
def test_every_case_of_a_set_has_a_script(name: str) -> None:
    cases = SETS[name]()
    assert len({case.name for case in cases}) == len(set(cases)) == len(dict.fromkeys(cases))
    for case in cases:
        lines = case.script().splitlines()
        assert lines[-1] == "end"
        assert max(map(len, lines)) < 500  # MAX_LINE of images/bench/bench.h


def test_report_is_one_file_and_says_what_it_counts(tmp_path: Path) -> None:
    curves = tuple(
        Curve(
            case=Case("curve", "mixed", 4, 256),
            merger=merger,
            possible=10,
            scanner_instructions=[5, 9],
            saved=[4, 10],
        )
        for merger in ("samepage", "in-tree")
    )
    figures = [
        figure(value, metric, merger, case)
        for case in (CASE, msgspec.structs.replace(CASE, steady_passes=20))
        for metric, value in (("first pass", 10.0), ("second pass", 20.0), ("steady state", 30.0))
        for merger in ("samepage", "in-tree")
    ]
    text = write_report(outcome(*figures, curves=curves), tmp_path).read_text("utf-8")
    assert "counts instructions, not time" in text
    assert text.count("<svg") == 3
    # Names of XML vocabularies apart, it points at nothing.
    assert not re.search(r"""\b(src|href)=["'](?!#)|@import|url\((?!#)""", text)
