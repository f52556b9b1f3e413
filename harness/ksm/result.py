# SPDX-License-Identifier: MIT
"""result.json: what a run found, and all that took part in it. docs/result.md describes every field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from harness.document import check_schema, decode_json, read_bytes, write_json
from harness.ksm.counters import Counters
from harness.ksm.cow import CowTable
from harness.ksm.oracle import Expected
from harness.ksm.protocol import PAGE_BYTES

SCHEMA = 1
"""Raised when a field changes its meaning or goes away; new fields do not raise it."""

Merger = Literal["samepage", "in-tree"]
Status = Literal["pass", "fail", "error", "interrupted"]


class _Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    pass


class Splat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that the kernel complained of."""

    kind: str
    command: str
    lines: list[str]


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A moment of a run at which everything was read and compared."""

    name: str
    seconds: float
    """Guest time since the first reading."""
    counters: dict[str, int]
    pages_merged: int
    saved_bytes: int
    pages_checked: int
    content_errors: int
    pages_expected: int | None = None
    expected: dict[str, int] | None = None
    """What pages_expected is made of, in the kernel's counters."""
    freed_bytes: int | None = None
    """How much more memory was free than before merging; whatever else the guest did is in it."""
    scanner_cpu_ns: int | None = None
    """CPU time of the merging threads since the first reading; nothing once a module's thread has gone with it."""

    @property
    def complete(self) -> bool:
        """Whether all is merged that can be."""
        return self.pages_expected is None or self.pages_merged >= self.pages_expected


class CowWay(_Record, kw_only=True):
    """Writes of one kind."""

    pages_written: int = 0
    writes: int = 0
    broken: int = 0


class Cow(_Record, kw_only=True):
    """Writes to merged pages."""

    writes: int = 0
    broken: int = 0
    content_errors: int = 0
    ways: dict[str, CowWay] = field(default_factory=dict)

    def take(self, table: CowTable) -> None:
        """Take over the counts of a table."""
        self.writes, self.broken = table.writes, table.broken
        self.ways = {
            way: CowWay(pages_written=tally.pages_written, writes=tally.writes, broken=tally.broken)
            for way, tally in table.ways.items()
            if tally.pages_written
        }


class MachineCount(_Record, kw_only=True):
    """What so many virtual machines took, when the last of them held its data."""

    machines: int
    seconds: float
    """Guest time since the first reading."""
    saved_bytes: int
    available_bytes: int
    """MemAvailable of the guest."""


class MachinesFound(_Record, kw_only=True):
    """Of a run of virtual machines: how many the guest held."""

    asked: int
    memory_mib: int
    """Of each."""
    data_mib: int
    """Of each: data whose every page is known."""
    started: int = 0
    stopped: str | None = None
    """Why no more were started; null when all that were asked for run."""
    counts: list[MachineCount] = field(default_factory=list)
    available_bytes: int | None = None
    """MemAvailable of the guest when all machines were merged."""
    data_pages_expected: int = 0
    """Pages that the machines' data alone must save when merging has come to its end."""
    zero_pages: int = 0
    """Pages of the machines that are the zero page without merging: Linux 6.12 and later make them of the empty parts
    of a huge page that is split; and who reads what was never written gets it. No counter of KSM's has them."""
    pages_changed: int = 0
    """Pages that half of the machines overwrote after merging."""
    copies_broken: int = 0
    """Merged pages that the kernel copied meanwhile (cow_ksm of /proc/vmstat)."""
    unmerged_alive: int = 0
    """Machines that ran on while everything was unmerged under them; all others had ended, to make room."""

    @property
    def together_mib(self) -> int:
        """Memory of all machines."""
        return self.started * self.memory_mib


class Result(_Record, kw_only=True):
    """What a run found."""

    schema: int = SCHEMA
    name: str
    status: Status = "error"
    error: str | None = None
    """Why it did not pass."""
    kernel: str
    """The guest kernel's release."""
    merger: Merger
    workload: str
    description: str
    seed: int
    processes: int
    accelerator: str | None = None
    qemu: str | None = None
    module_sha256: str | None = None
    image_sha256: str | None = None
    disk_sha256: str | None = None
    """Of the disk that virtual machines in the guest are started from."""
    workload_sha256: str | None = None
    harness: str
    python: str
    guest: dict[str, int] = field(default_factory=dict)
    """Its size: memory_mib and cpus."""
    tunables: dict[str, str] = field(default_factory=dict)
    """What was written to /sys/kernel/mm/ksm."""
    started: str
    """When, in UTC, ISO 8601."""
    seconds: float = 0
    """On the host, from the beginning to the end of the run."""
    counters: dict[str, int] = field(default_factory=dict)
    pages_expected: int | None = None
    pages_merged: int | None = None
    saved_bytes: int | None = None
    milestones: dict[str, float] = field(default_factory=dict)
    """Guest seconds from switching merging on until so many percent of what is possible were merged."""
    samepage: dict[str, int] = field(default_factory=dict)
    """What /sys/kernel/mm/samepage said at the last stage; nothing with the kernel's own merger."""
    cow: Cow = field(default_factory=Cow)
    machines: MachinesFound | None = None
    """Of a workload of virtual machines."""
    stages: list[Stage] = field(default_factory=list)
    per_process: dict[str, dict[str, int]] = field(default_factory=dict)
    """/proc/PID/ksm_stat of each process when merging had come to its end."""
    checks: dict[str, str] = field(default_factory=dict)
    """What else was looked at, and what was found."""
    splats: list[Splat] = field(default_factory=list)

    def conclude_from(self, stage: Stage) -> None:
        """Report this stage's figures as those of the run."""
        self.counters = stage.counters
        self.pages_expected = stage.pages_expected
        self.pages_merged = stage.pages_merged
        self.saved_bytes = stage.saved_bytes

    def stage(self, name: str) -> Stage | None:
        """Return the stage of this name."""
        return next((stage for stage in self.stages if stage.name == name), None)


class Collection(_Record, kw_only=True):
    """result.json of a run of several: each of them, as it stands in its own folder too."""

    schema: int = SCHEMA
    name: str
    status: Status
    runs: Annotated[list[Result], Meta(min_length=1)]


def make_stage(
    name: str, seconds: float, counters: Counters, expected: Expected | None, first: Counters, before: Counters | None
) -> Stage:
    """Make a stage of a reading; `first` is the run's first reading, `before` the last one before merging began.

    The figures of what was compared are added by `checked`.
    """
    return Stage(
        name=name,
        seconds=seconds,
        counters=counters.folder("ksm"),
        pages_merged=counters.saved_pages,
        saved_bytes=counters.saved_pages * PAGE_BYTES,
        pages_checked=0,
        content_errors=0,
        pages_expected=None if expected is None else expected.saved,
        expected=None
        if expected is None
        else {
            "pages_shared": expected.pages_shared,
            "pages_sharing": expected.pages_sharing,
            "ksm_zero_pages": expected.ksm_zero_pages,
        },
        freed_bytes=None if before is None else counters.free_bytes - before.free_bytes,
        scanner_cpu_ns=counters["scanner.cpu_ns"] - first["scanner.cpu_ns"]
        if "scanner.cpu_ns" in counters.values
        else None,
    )


def checked(stage: Stage, pages: int, wrong: int) -> Stage:
    """Return the stage with what a comparison found."""
    return msgspec.structs.replace(stage, pages_checked=pages, content_errors=wrong)


def worst(results: list[Result]) -> Status:
    """Return the status that speaks for all: a failed check comes before a run that could not be made."""
    order: list[Status] = ["interrupted", "fail", "error", "pass"]
    return next(status for status in order if any(result.status == status for result in results))


def write(document: Result | Collection, folder: Path) -> Path:
    """Write result.json into a folder, whole or not at all."""
    return write_json(document, folder / "result.json")


def read(path: Path) -> Result:
    """Read the result.json of a single run. Raises SamepageError for what is none, or of another schema."""
    result = decode_json(read_bytes(path), Result, what="result of a single run", where=path)
    check_schema(result.schema, SCHEMA, path)
    return result


def point_latest(runs: Path, name: str) -> None:
    """Let runs/latest be the run `name`."""
    partial = runs / f".latest.{os.getpid()}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(name)
    partial.replace(runs / "latest")
