# SPDX-License-Identifier: MIT
"""Whole runs of the small workload on the host, with a merger that is only pretended: its counters say what they must.

What is real: memwork, its processes, their contents, and the comparison of every page.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from harness.errors import CheckFailed
from harness.ksm import memwork, merging, workload
from harness.ksm.chance import Chance
from harness.ksm.counters import CounterReader
from harness.ksm.cow import CowBreaker
from harness.ksm.differences import ContentError
from harness.ksm.processes import Place
from harness.ksm.result import Result
from harness.ksm.series import Sample, Series
from harness.ksm.session import Session
from harness.ksm.synthetic import SyntheticRun
from harness.ksm.workload import Merging, Synthetic
from tests.unit.ksm.conftest import Host
from tests.unit.ksm.test_counters import FILES

KSM = "/sys/kernel/mm/ksm/"


class Log:
    """A kernel log with nothing in it."""

    def check(self, command: str) -> None:
        pass


class PretendedGuest(Host):
    """The host, with sysfs files of its own: another full scan at each reading, and as much saved as is asked for."""

    def __init__(self) -> None:
        self.log = Log()
        self.files = {**FILES, KSM + "pages_sharing": b"0", KSM + "ksm_zero_pages": b"0", KSM + "pages_shared": b"0"}
        self.files |= {KSM + "max_page_sharing": b"256", KSM + "full_scans": b"0"}
        self.possible = 0
        self.shortfall = 0
        self.written: list[tuple[str, str]] = []

    def read_files(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        if self.files.get(KSM + "run") == b"1":
            self.files[KSM + "full_scans"] = str(int(self.files[KSM + "full_scans"]) + 1).encode()
            self.files[KSM + "pages_sharing"] = str(self.possible - self.shortfall).encode()
        found: dict[str, bytes | None] = {}
        for path in paths:
            if path.endswith("/"):
                found.update({name: text for name, text in self.files.items() if name.startswith(path)})
            else:
                found[path] = self.files.get(path)
        return found

    def read(self, path: str) -> str:
        return self.files[path].decode()

    def write(self, path: str, text: str) -> None:
        self.written.append((path, text))
        self.files[path] = text.encode()
        if (path, text) == (KSM + "run", "2"):
            self.files |= {KSM + "pages_sharing": b"0", KSM + "pages_shared": b"0"}


class Watcher:
    """Remembers phases, and tells the pretended merger what it could save."""

    def __init__(self, guest: PretendedGuest) -> None:
        self.phases: list[str] = []
        self._guest = guest

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def sample(self, sample: Sample) -> None:
        pass

    def expected(self, pages: int) -> None:
        self._guest.possible = pages


def blank() -> Result:
    return Result(
        name="x", kernel="6", merger="in-tree", workload="small", description="x", seed=1, processes=3, harness="0",
        python="3", started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


@pytest.fixture
def guest(memwork_program: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedGuest:
    monkeypatch.setattr(memwork.MemWork.__init__, "__kwdefaults__", {"program": str(memwork_program)} | {
        "secret": 1, "timeout": 60
    })  # fmt: skip
    monkeypatch.setattr(merging, "POLL_SECONDS", 0)
    return PretendedGuest()


def session_of(guest: PretendedGuest, folder: Path) -> Session:
    watcher = Watcher(guest)
    series = Series(folder / "counters.csv", CounterReader(guest, (7,)), watcher.sample)
    return Session(guest, "in-tree", None, series, watcher, 1)  # type: ignore[arg-type]


def small() -> Synthetic:
    loaded = workload.load("small")
    assert isinstance(loaded, Synthetic)
    return loaded


def test_a_whole_run(guest: PretendedGuest, tmp_path: Path) -> None:
    result = blank()
    SyntheticRun(session_of(guest, tmp_path), small(), result).carry_out()
    assert [stage.name for stage in result.stages] == [
        "filled", "merged", "single writer", "all writers", "after fork", "final", "handed back",
    ]  # fmt: skip
    merged = result.stage("merged")
    assert merged is not None
    assert merged.pages_expected == merged.pages_merged > 900
    # 3 parents with 512 pages and 3 children with 64; after fork one more with as many as its parent.
    assert [stage.pages_checked for stage in result.stages] == [1728] * 4 + [2240] * 3
    assert result.counters["pages_sharing"] == result.pages_merged == result.pages_expected
    assert result.cow.content_errors == 0
    ways = {way: tally.pages_written for way, tally in result.cow.ways.items()}
    assert (ways["while_merging"], ways["single"], ways["after_fork"]) == (20, 30, 40)
    assert ways["all_writers"] >= 20
    assert [text for path, text in guest.written if path == KSM + "run"] == ["1", "2"]
    assert len(result.per_process) == 6


def test_one_wrong_byte_fails_the_run(guest: PretendedGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupt(run: SyntheticRun) -> None:
        victim = run._work.areas[-1]
        with Path(f"/proc/{victim.process.pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(victim.address(5) + 77)
            memory.write(b"\xff")

    whole_break = SyntheticRun._break_copies

    def break_copies(run: SyntheticRun) -> None:
        corrupt(run)
        whole_break(run)

    monkeypatch.setattr(SyntheticRun, "_break_copies", break_copies)
    result = blank()
    with pytest.raises(ContentError, match=r"page 5 at 0x[0-9a-f]+, offset 77: 1 wrong bytes, expected .* found ff"):
        SyntheticRun(session_of(guest, tmp_path), small(), result).carry_out()
    assert result.cow.content_errors == 1
    assert result.stages[-1].content_errors == 1


def test_merging_that_stops_short_comes_to_its_end(guest: PretendedGuest, tmp_path: Path) -> None:
    guest.shortfall = 3
    result = blank()
    SyntheticRun(session_of(guest, tmp_path), small(), result).carry_out()
    merged = result.stage("merged")
    assert merged is not None
    assert merged.pages_expected == merged.pages_merged + 3
    assert not merged.complete


def test_merging_that_does_not_end_fails(
    guest: PretendedGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.shortfall = 1
    short = msgspec.structs.replace(small(), merging=Merging(idle_scans=1000, timeout=0.3))
    monkeypatch.setattr(merging, "POLL_SECONDS", 0.05)
    with pytest.raises(CheckFailed, match="has not come to its end"):
        SyntheticRun(session_of(guest, tmp_path), short, blank()).carry_out()


def test_pages_that_stay_merged_fail(guest: PretendedGuest, tmp_path: Path) -> None:
    session = session_of(guest, tmp_path)
    guest.files[KSM + "pages_shared"] = b"4"
    guest.write = lambda path, text: None  # type: ignore[method-assign]
    with pytest.raises(CheckFailed, match="4 pages are still merged"):
        session.hand_back()


def test_chosen_writes_are_the_same_in_every_run(
    guest: PretendedGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pokes: list[tuple[str, str, int]] = []
    write = CowBreaker._write

    def note(self: CowBreaker, way: str, places: list[Place], chance: Chance) -> None:
        pokes.extend((way, place.area.process.name, place.address) for place in places)
        write(self, way, places, chance)

    monkeypatch.setattr(CowBreaker, "_write", note)
    seen = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        SyntheticRun(session_of(guest, folder), small(), blank()).carry_out()
        guest.files |= {KSM + "run": b"0", KSM + "full_scans": b"0"}
        seen.append(pokes[:])
        pokes.clear()
    assert seen[0] == seen[1]
    assert len(seen[0]) > 100
