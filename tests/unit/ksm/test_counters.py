# SPDX-License-Identifier: MIT
from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness.errors import CheckFailed, SamepageError
from harness.ksm.counters import CounterReader, find_scanners
from harness.ksm.series import Sample, Series, read_series

FILES = {
    "/sys/kernel/mm/ksm/pages_sharing": b"120\n",
    "/sys/kernel/mm/ksm/pages_shared": b"30\n",
    "/sys/kernel/mm/ksm/ksm_zero_pages": b"7\n",
    "/sys/kernel/mm/ksm/general_profit": b"-64\n",
    "/sys/kernel/mm/ksm/full_scans": b"2\n",
    "/sys/kernel/mm/ksm/advisor_mode": b"[none] scan-time\n",
    "/sys/kernel/mm/samepage/merges": b"99\n",
    "/proc/uptime": b"12.50 20.00\n",
    "/proc/meminfo": b"MemTotal:  1000 kB\nMemFree:   600 kB\nMemAvailable: 700 kB\nHugePages_Total:  0\n",
    "/proc/zoneinfo": b"Node 0, zone  DMA\n    pagesets\n      cpu: 0\n              count: 10\n"
    b"              high:  5\n      cpu: 1\n              count:    32\n",
    "/proc/vmstat": b"nr_free_pages 150\ncow_ksm 4\nksm_swpin_copy 0\nthp_split_page 3\n",
    "/proc/7/schedstat": b"5000 100 3\n",
    "/proc/7/comm": b"ksmd\n",
    "/proc/8/schedstat": b"70000 100 3\n",
    "/proc/8/comm": b"samepaged\n",
    "/proc/9/comm": b"ksmd-helper\n",
    "/proc/21/ksm_stat": b"ksm_rmap_items 50\nksm_zero_pages 1\nksm_merging_pages 20\nksm_process_profit 100\n",
    "/proc/21/ksm_merging_pages": b"20\n",
    "/proc/22/ksm_stat": b"ksm_rmap_items 5\nksm_zero_pages 0\nksm_merging_pages 2\nksm_process_profit -10\n",
    "/proc/22/ksm_merging_pages": b"2\n",
}


class Files:
    """The files above."""

    def __init__(self, **changed: bytes) -> None:
        self.files = {**FILES, **changed}

    def read_files(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for path in paths:
            if path.endswith("/"):
                found.update({name: text for name, text in self.files.items() if name.startswith(path)})
            else:
                found[path] = self.files.get(path)
        return found


def test_everything_is_read_under_a_name() -> None:
    counters = CounterReader(Files(), (7, 8)).read([21, 22])
    assert counters.uptime == 12.5
    assert counters.folder("ksm") == {
        "pages_sharing": 120, "pages_shared": 30, "ksm_zero_pages": 7, "general_profit": -64, "full_scans": 2,
    }  # fmt: skip
    assert counters.folder("samepage") == {"merges": 99}
    assert counters.saved_pages == 127
    assert counters["vmstat.cow_ksm"] == 4
    assert "vmstat.nr_free_pages" not in counters.values
    assert counters["scanner.cpu_ns"] == 75000
    assert counters["process.ksm_rmap_items"] == 55
    assert counters["process.ksm_merging_pages"] == 22
    assert counters["process.ksm_process_profit"] == 90


def test_free_memory_has_the_cpus_lists_in_it() -> None:
    assert CounterReader(Files()).read().free_bytes == 600 * 1024 + 42 * 4096


def test_a_thread_that_is_gone_has_no_time() -> None:
    assert "scanner.cpu_ns" not in CounterReader(Files(), (7, 1234)).read().values


def test_a_process_that_is_gone_counts_nothing() -> None:
    assert CounterReader(Files()).of_processes([1234]) == {1234: {}}
    assert CounterReader(Files()).of_processes([21, 22])[22]["ksm_process_profit"] == -10


def test_scanners_are_found_by_name() -> None:
    assert find_scanners(Files(), [7, 8, 9, 10]) == (7, 8)
    assert find_scanners(Files(**{"/proc/11/comm": b"samepaged/1\n"}), [8, 9, 11]) == (8, 11)


def test_a_series_is_written_as_it_grows(tmp_path: Path) -> None:
    files, seen = Files(), list[Sample]()
    series = Series(tmp_path / "counters.csv", CounterReader(files), seen.append)
    series.phase = "merge"
    for number, saved in enumerate((0, 40, 95, 100)):
        files.files["/proc/uptime"] = f"{10 + number * 1.25} 0\n".encode()
        files.files["/sys/kernel/mm/ksm/pages_sharing"] = f"{saved}\n".encode()
        series.take()
        rows = read_series(tmp_path / "counters.csv")
        assert rows[-1][:2] == (number * 1.25, "merge")
        assert rows[-1][2]["ksm.pages_sharing"] == saved
    assert [sample.counters.saved_pages for sample in seen] == [7, 47, 102, 107]
    assert series.milestones("merge", 107) == {"50": 2.5, "90": 2.5, "95": 2.5, "99": 3.75, "100": 3.75}
    assert series.milestones("merge", 1000) == {}
    series.close()


def test_readings_go_on_while_something_else_does(tmp_path: Path) -> None:
    series = Series(tmp_path / "counters.csv", CounterReader(Files()), lambda sample: None)
    with series.sampling(0.005):
        time.sleep(0.1)
    taken = len(series.samples)
    assert taken > 2
    time.sleep(0.02)
    assert len(series.samples) == taken == len(read_series(tmp_path / "counters.csv"))


def test_a_reading_that_fails_meanwhile_fails_the_run(tmp_path: Path) -> None:
    def fail(sample: Sample) -> None:
        raise CheckFailed("the guest is gone")

    series = Series(tmp_path / "counters.csv", CounterReader(Files()), fail)
    with pytest.raises(CheckFailed, match="gone"), series.sampling(0.005):
        time.sleep(0.05)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "seconds,phase,x\n1,merge,many\n", "seconds,phase\nsoon,merge\n"])
def test_what_is_no_series_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "counters.csv"
    path.write_text(text)
    if text == "":
        assert read_series(path) == []
        return
    with pytest.raises(SamepageError, match=r"counters\.csv"):
        read_series(path)
