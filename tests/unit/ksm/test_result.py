# SPDX-License-Identifier: MIT
"""result.json, its comparison and its reports."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from harness.errors import SamepageError
from harness.ksm import result as results
from harness.ksm.compare import compare, summary_table
from harness.ksm.report import write_comparison, write_report
from harness.ksm.result import (
    Collection,
    Cow,
    CowWay,
    MachineCount,
    MachinesFound,
    Merger,
    Result,
    Splat,
    Stage,
    Status,
)

CSV = """seconds,phase,ksm.pages_shared,ksm.pages_sharing,ksm.ksm_zero_pages,ksm.full_scans
0.0,fill,0,0,0,0
1.5,merge,10,100,5,1
2.5,merge,20,1000,50,2
4.0,cow,20,990,50,3
"""


def make(merger: Merger = "samepage", status: Status = "pass", **changes: object) -> Result:
    counters = {"pages_shared": 20, "pages_sharing": 1000, "ksm_zero_pages": 50, "full_scans": 2}
    figures = {"counters": counters, "pages_merged": 1050, "saved_bytes": 1050 * 4096, "pages_checked": 5000}
    stages = [
        Stage(name="filled", seconds=0, content_errors=0, **{**figures, "pages_merged": 0, "saved_bytes": 0}),  # type: ignore[arg-type]
        Stage(name="merged", seconds=2.5, content_errors=0, pages_expected=1050, scanner_cpu_ns=2 * 10**9, **figures),  # type: ignore[arg-type]
    ]
    result = Result(
        name="x", status=status, kernel="6.12.1-amd64", merger=merger, workload="mixed", description="All & <all>",
        seed=1, processes=4, harness="0.1", python="3.11", started="2026-01-01T00:00:00+00:00", accelerator="tcg",
        qemu="10.0", module_sha256="ab" * 32, image_sha256="cd" * 32, guest={"memory_mib": 1024, "cpus": 2},
        counters=counters, pages_expected=1050, pages_merged=1050, saved_bytes=1050 * 4096, stages=stages, seconds=12.5,
        cow=Cow(writes=7, broken=7, ways={"after_fork": CowWay(pages_written=9, writes=7, broken=7)}),
        per_process={"p0": {"ksm_rmap_items": 44}}, milestones={"50": 0.5, "95": 0.75}, samepage={"merges": 31415},
    )  # fmt: skip
    return msgspec.structs.replace(result, **changes)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = results.write(make(), tmp_path)
    assert results.read(path) == make()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["result.json"]


def test_the_fields_that_the_issue_names(tmp_path: Path) -> None:
    document = json.loads(results.write(make(), tmp_path).read_text())
    assert document.keys() >= {
        "kernel", "merger", "workload", "seed", "accelerator", "qemu", "module_sha256", "image_sha256", "counters",
        "pages_expected", "pages_merged", "saved_bytes", "cow", "splats", "seconds", "schema",
    }  # fmt: skip
    assert document["cow"].keys() >= {"writes", "broken", "content_errors"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"schema": 99}, "schema 99"),
        ({"seed": "one"}, r"\$\.seed"),
        ({"colour": 1}, "colour"),
        ({"status": "ok"}, "ok"),
    ],
)
def test_other_documents_are_refused(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    path = results.write(make(), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SamepageError, match=expected) as caught:
        results.read(path)
    assert caught.value.where == str(path)


def test_a_result_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{")
    for name in ("result.json", "missing.json"):
        with pytest.raises(SamepageError, match=name):
            results.read(tmp_path / name)


def test_a_failed_check_speaks_louder_than_a_run_that_could_not_be_made() -> None:
    def of(*statuses: Status) -> Status:
        return results.worst([make(status=status) for status in statuses])

    assert of("pass", "pass") == "pass"
    assert of("pass", "error") == "error"
    assert of("error", "fail", "pass") == "fail"
    assert of("fail", "interrupted") == "interrupted"


def test_latest_follows_the_last_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        results.point_latest(tmp_path, name)
        assert (tmp_path / "latest").resolve() == tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one", "two"]


def test_complete_means_all_that_is_possible() -> None:
    stage = make().stages[1]
    assert stage.complete
    assert not msgspec.structs.replace(stage, pages_expected=1051).complete
    assert msgspec.structs.replace(stage, pages_expected=None).complete


def test_comparison_has_a_column_for_each_merger() -> None:
    both = [make("samepage"), make("in-tree", "fail", workload="mixed"), make("in-tree", workload="zero")]
    comparisons = compare(both)
    assert [(one.workload, len(one.runs)) for one in comparisons] == [("mixed", 2), ("zero", 1)]
    console = Console(width=160, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(summary_table(comparisons[0]))
    text = captured.get()
    for expected in (
        "samepage",
        "in-tree",
        "fail",
        "1,050 of 1,050 (100.0%)",
        "4.1 MiB",
        "7 of 7",
        "0.75 s",
        "2.00 s",
    ):
        assert expected in text


class References(HTMLParser):
    """Collects what a page would load, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def report_of(result: Result, folder: Path) -> str:
    folder.mkdir()
    (folder / "counters.csv").write_text(CSV)
    return write_report(result, folder).read_text()


def test_a_report_says_it_all_and_loads_nothing(tmp_path: Path) -> None:
    text = report_of(make(), tmp_path / "run")
    for expected in (
        "All &amp; &lt;all&gt;", "6.12.1-amd64", "ab" * 32, "cd" * 32, "4.1 MiB", "after fork", "31,415",
        "95 % after 0.75 s", "pages_sharing", "<svg", "ksm_rmap_items",
    ):  # fmt: skip
        assert expected in text, expected
    references = References(text)
    assert references.scripts == 0
    assert all(load.startswith("#") for load in references.loads)
    assert not re.search(r"url\((?!#)", text)


def test_a_report_is_the_same_each_time(tmp_path: Path) -> None:
    assert report_of(make(), tmp_path / "one") == report_of(make(), tmp_path / "two")


def test_a_failed_run_s_report_shows_why_and_escapes_it(tmp_path: Path) -> None:
    splat = Splat(kind="WARNING", command="merge", lines=["<script>alert(1)</script>", "RIP: 0010:sp_merge+0x1"])
    failed = make(status="fail", error="page 5 <b>wrong</b>", splats=[splat], stages=[], counters={})
    text = report_of(failed, tmp_path / "run")
    assert "page 5 &lt;b&gt;wrong&lt;/b&gt;" in text
    assert "&lt;script&gt;alert(1)" in text
    assert "sp_merge+0x1" in text


def test_a_run_that_never_got_to_counters_has_a_report(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    bare = make(status="error", error="no guest", stages=[], counters={}, qemu=None, accelerator=None, samepage={})
    assert "no guest" in write_report(bare, folder).read_text()
    (folder / "counters.csv").write_text("")
    assert "<svg" not in write_report(bare, folder).read_text()


def test_a_comparison_draws_both_and_links_their_reports(tmp_path: Path) -> None:
    runs = [make("samepage"), make("in-tree", "fail", error="lost <a> page")]
    folders = [tmp_path / run.merger for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        report_of(run, folder)
    text = write_comparison(runs, folders, tmp_path).read_text()
    assert References(text).loads.count("samepage/report.html") == 1
    assert References(text).loads.count("in-tree/report.html") == 1
    assert "lost &lt;a&gt; page" in text
    assert text.count("<svg") == 1


def test_a_collection_is_a_document_of_its_own(tmp_path: Path) -> None:
    results.write(Collection(name="all", status="pass", runs=[make(), make("in-tree")]), tmp_path)
    document = json.loads((tmp_path / "result.json").read_text())
    assert [run["merger"] for run in document["runs"]] == ["samepage", "in-tree"]
    with pytest.raises(SamepageError, match="single run"):
        results.read(tmp_path / "result.json")


def test_machines_are_reported(tmp_path: Path) -> None:
    counts = [
        MachineCount(machines=number, seconds=number, saved_bytes=number << 25, available_bytes=900 - number << 20)
        for number in (1, 2)
    ]
    found = MachinesFound(
        asked=9,
        started=2,
        memory_mib=640,
        data_mib=56,
        counts=counts,
        stopped="no memory",
        available_bytes=700 << 20,
        zero_pages=768,
    )
    (tmp_path / "counters.csv").write_text(CSV)
    run = make(machines=found)
    text = write_report(run, tmp_path).read_text()
    for expected in ("Virtual machines", "2 of 9 machines run, 1,280 MiB together: no memory", "Memory by number of"):
        assert expected in text
    labels = {row.label: row.cells for row in compare([run, make("in-tree")])[0].rows}
    assert labels["virtual machines"] == ("2 of 9 of 640 MiB", "-")
    assert labels["their memory together"] == ("1,280 MiB on 1,024 MiB (1.25x)", "-")
    assert labels["zero pages beside"] == ("3.0 MiB", "-")
    assert labels["memory left"] == ("700.0 MiB", "-")
    assert "virtual machines" not in {row.label for row in compare([make()])[0].rows}
