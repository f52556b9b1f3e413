# SPDX-License-Identifier: MIT
"""Workloads: what memory holds, how it is registered, merged and written to. docs/workloads.md explains the TOML.

Those that come with the harness lie in harness/ksm/workloads; a path to a file of one's own does as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from harness.document import is_text, toml_table
from harness.errors import SamepageError
from harness.ksm.protocol import MAX_WORKERS

WORKLOADS = Path(__file__).parent / "workloads"
HUGE_PAGES = 512
QEMU_MIB = 32
"""Memory of a QEMU besides that of its machine, about."""

Count = Annotated[int, Meta(ge=0, le=1 << 22)]
Pages = Annotated[int, Meta(ge=1, le=1 << 22)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Content(_Strict, tag_field="class", frozen=True, kw_only=True):
    """Pages that every process has of one class."""

    pages: Pages
    thp: bool = False
    """MADV_HUGEPAGE (pages must then fill huge pages), else MADV_NOHUGEPAGE."""


class Zero(_Content, tag="zero", frozen=True, kw_only=True):
    """Zeroes."""


class Same(_Content, tag="same", frozen=True, kw_only=True):
    """Page i is the same in all processes, and like no other page of its process."""


class Groups(_Content, tag="groups", frozen=True, kw_only=True):
    """Every content is held by `group` pages, which lie anywhere in any process."""

    group: Annotated[int, Meta(ge=2, le=1 << 16)] = 2


class Unique(_Content, tag="unique", frozen=True, kw_only=True):
    """No page like another."""


class Prefix(_Content, tag="prefix", frozen=True, kw_only=True):
    """No page like another, but they differ in their last 64 bytes only."""


class Rewritten(_Content, tag="rewritten", frozen=True, kw_only=True):
    """Pages that are overwritten one after the other while merging goes on, each time with another content."""

    per_second: Annotated[float, Meta(gt=0, le=1e6)]
    """Pages written in each process and second; a bound, where the guest is too slow for it."""


class Forked(_Content, tag="forked", frozen=True, kw_only=True):
    """Pages of a process that forks when it holds nothing else; the children then overwrite some of them."""

    children: Annotated[int, Meta(ge=1, le=64)] = 1
    content: Literal["same", "unique"] = "same"
    """As in the classes of these names, counted over the parents."""
    written: Count = 0
    """Pages that each child overwrites, all children of all parents with the same contents."""


Content = Zero | Same | Groups | Unique | Prefix | Rewritten | Forked


class Tunables(_Strict, frozen=True, kw_only=True):
    """Files of /sys/kernel/mm/ksm to write before merging begins; what is not named keeps the kernel's default."""

    pages_to_scan: Annotated[int, Meta(ge=1, le=1 << 31)] = 20000
    sleep_millisecs: Annotated[int, Meta(ge=0, le=60000)] = 5
    use_zero_pages: bool = False
    smart_scan: bool | None = None
    max_page_sharing: Annotated[int, Meta(ge=2, le=1 << 20)] | None = None
    merge_across_nodes: bool | None = None
    stable_node_chains_prune_millisecs: Annotated[int, Meta(ge=0)] | None = None
    advisor_mode: Literal["none", "scan-time"] | None = None

    def files(self) -> dict[str, str]:
        """Return each file's name with what is to be written to it."""
        values = msgspec.structs.asdict(self)
        return {
            name: value if isinstance(value, str) else str(int(value))
            for name, value in values.items()
            if value is not None
        }


class Merging(_Strict, frozen=True, kw_only=True):
    """When merging has come to its end: all that is expected is merged, or nothing came of some full scans."""

    least_scans: Annotated[int, Meta(ge=1, le=1000)] = 2
    """Full scans to wait for in any case."""
    idle_scans: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Full scans without another page merged after which there is nothing more to wait for.

    In-tree's smart_scan looks at a page that found no twin only in every ninth scan.
    """
    timeout: Seconds = 300
    """Seconds until the run fails because none of this came about."""


class CowPlan(_Strict, frozen=True, kw_only=True):
    """Writes to merged pages."""

    while_merging: Count = 0
    """Pages written, one at a time, while merging has not yet come to its end."""
    single: Count = 0
    """Pages that one of those who share them writes, of as many contents as there are."""
    all_writers: Count = 0
    """Merged pages of which every sharer writes."""
    after_fork: Count = 0
    """Pages written by the parent and as many by the child after a fork that came after merging."""


class Synthetic(_Strict, tag_field="kind", tag="synthetic", frozen=True, kw_only=True):
    """Processes whose every page is known."""

    description: Annotated[str, Meta(min_length=1)]
    processes: Annotated[int, Meta(ge=1, le=MAX_WORKERS)]
    register: Literal["madvise", "prctl"] = "madvise"
    content: Annotated[tuple[Content, ...], Meta(min_length=1)]
    ksm: Tunables = field(default_factory=Tunables)
    merging: Merging = field(default_factory=Merging)
    cow: CowPlan = field(default_factory=CowPlan)

    @property
    def forked(self) -> Forked | None:
        """The class that forks, of which there is at most one."""
        return next((content for content in self.content if isinstance(content, Forked)), None)

    @property
    def footprint_mib(self) -> int:
        """Memory that it fills before any merging, as if fork copied."""
        pages = sum(content.pages for content in self.content)
        pages += self.forked.pages * self.forked.children if self.forked else 0
        return -(-pages * self.processes // 256)


class Program(_Strict, frozen=True, kw_only=True):
    """Some instances of a real program."""

    name: Literal["python", "redis"]
    count: Annotated[int, Meta(ge=1, le=64)]


class Programs(_Strict, tag_field="kind", tag="programs", frozen=True, kw_only=True):
    """Real programs, all of whose memory may be merged (PR_SET_MEMORY_MERGE)."""

    description: Annotated[str, Meta(min_length=1)]
    program: Annotated[tuple[Program, ...], Meta(min_length=1)]
    data_mib: Annotated[int, Meta(ge=1, le=1024)] = 8
    """Data that each instance holds, about."""
    ksm: Tunables = field(default_factory=Tunables)
    merging: Merging = field(default_factory=Merging)

    @property
    def processes(self) -> int:
        """How many instances there are."""
        return sum(program.count for program in self.program)

    @property
    def footprint_mib(self) -> int:
        """Memory that they take before any merging, about."""
        return self.processes * (24 + 2 * self.data_mib)


class Machines(_Strict, tag_field="kind", tag="machines", frozen=True, kw_only=True):
    """Virtual machines, started one after another while merging runs, as many as the guest's memory holds."""

    description: Annotated[str, Meta(min_length=1)]
    count: Annotated[int, Meta(ge=1, le=1024)]
    """How many to start, if there is memory for them."""
    memory_mib: Annotated[int, Meta(ge=96, le=1 << 16)]
    """Memory of each."""
    kernel_mib: Annotated[int, Meta(ge=64, le=1024)] = 72
    """What each keeps for its kernel and for the files that it reads, beside 1/16 of its memory (what describes
    pages, and reserves); all other memory is filled with data."""
    same: Annotated[int, Meta(ge=0, le=100)] = 50
    """Percent of the data that are the same in all machines, page by page."""
    zero: Annotated[int, Meta(ge=0, le=100)] = 25
    """Percent of the data that are zero; what is left no two machines have alike."""
    files_mib: Annotated[int, Meta(ge=1, le=1024)] = 8
    """Files that each reads from its disk, at most so much of them."""
    host_mib: Annotated[int, Meta(ge=512, le=1 << 20)] | None = None
    """Memory of the guest that is their host; when null, enough for all of them unmerged."""
    ksm: Tunables = field(default_factory=Tunables)
    merging: Merging = field(default_factory=Merging)

    @property
    def processes(self) -> int:
        """How many machines are asked for."""
        return self.count

    @property
    def data_pages(self) -> int:
        """Pages of data of each."""
        return (self.memory_mib - self.memory_mib // 16 - self.kernel_mib) * 256

    @property
    def footprint_mib(self) -> int:
        """Memory that they take before any merging, about: each with its QEMU."""
        return self.count * (self.memory_mib + QEMU_MIB)


Workload = Synthetic | Programs | Machines


def available() -> list[str]:
    """Return the names of the workloads that come with the harness."""
    return sorted(path.stem for path in WORKLOADS.glob("*.toml"))


def load(name: str) -> Workload:
    """Read the workload of this name, or the file if it is a path to one.

    Raises SamepageError naming the file and the key for whatever does not belong there.
    """
    path = Path(name) if name.endswith(".toml") else WORKLOADS / f"{name}.toml"
    # A name leads to no other folder: that of the run is called by it.
    if not (path.is_file() if name.endswith(".toml") else name in available()):
        raise SamepageError(
            "there is no such workload",
            where=name,
            hint=f"Name one of {', '.join(available())}, or a .toml file; docs/workloads.md says what it holds.",
        )
    if not is_text(name):
        raise SamepageError("is not UTF-8, as the results that name it must be", where=repr(name))
    table = toml_table(path)
    try:
        workload: Workload = msgspec.convert(table, type=Workload)
    except msgspec.ValidationError as error:
        raise SamepageError(
            _readable(str(error)), where=path, hint="docs/workloads.md lists what is allowed."
        ) from error
    if isinstance(workload, Synthetic):
        _check(workload, path)
    elif isinstance(workload, Machines):
        _check_machines(workload, path)
    return workload


def with_processes(workload: Workload, count: int) -> Workload:
    """Return the workload with another number of processes."""
    if not isinstance(workload, Synthetic):
        raise SamepageError("--processes is for synthetic workloads; others count what they start themselves")
    changed = msgspec.structs.replace(workload, processes=count)
    _check(changed, Path("--processes"))
    return changed


def with_machines(workload: Workload, count: int | None, memory_mib: int | None) -> Workload:
    """Return a workload of machines with another number of them, or with more or less memory for each."""
    if not isinstance(workload, Machines):
        raise SamepageError("--vms and --vm-memory are for workloads of virtual machines")
    changed = msgspec.structs.replace(
        workload, count=count or workload.count, memory_mib=memory_mib or workload.memory_mib
    )
    _check_machines(changed, Path("--vm-memory"))
    return changed


def _check_machines(workload: Machines, path: Path) -> None:
    if workload.data_pages <= 0:
        raise SamepageError("key kernel_mib: less than 15/16 of memory_mib, or there is no room for data", where=path)
    if workload.same + workload.zero > 100:
        raise SamepageError("keys same and zero: no more than 100 percent together", where=path)


def _readable(message: str) -> str:
    """Turn msgspec's `... - at `$.content[0].pages`` into `key content[0].pages: ...`."""
    match = re.fullmatch(r"(.*) - at `\$\.?(.*)`", message, re.DOTALL)
    return f"key {match[2]}: {match[1]}" if match else message


def _check(workload: Synthetic, path: Path) -> None:
    """Check what goes beyond single values."""
    if not 1 <= workload.processes <= MAX_WORKERS:
        raise SamepageError(f"key processes: from 1 to {MAX_WORKERS}", where=path)
    forked = [content for content in workload.content if isinstance(content, Forked)]
    for kind, name in ((Forked, "forked"), (Rewritten, "rewritten")):
        if sum(isinstance(content, kind) for content in workload.content) > 1:
            raise SamepageError(f"key content: at most one of class {name}", where=path)
    every = workload.processes * (1 + (forked[0].children if forked else 0))
    # One more process is forked for cow.after_fork.
    if every + 1 > MAX_WORKERS:
        raise SamepageError(f"{every} processes with their children are too many (of {MAX_WORKERS - 1})", where=path)
    for index, content in enumerate(workload.content):
        if content.thp and content.pages % HUGE_PAGES:
            raise SamepageError(f"key content[{index}].pages: with thp a multiple of {HUGE_PAGES}", where=path)
        if isinstance(content, Forked) and content.written > content.pages:
            raise SamepageError(f"key content[{index}].written: no more than pages", where=path)
