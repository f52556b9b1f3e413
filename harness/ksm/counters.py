# SPDX-License-Identifier: MIT
"""What the kernel counts of merging, and what it counts of memory: read from a guest in one round trip."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from harness.ksm.protocol import PAGE_BYTES

KSM = "/sys/kernel/mm/ksm/"
SAMEPAGE = "/sys/kernel/mm/samepage/"
SCANNERS = ("ksmd", "samepaged")
"""Names of kernel threads that merge: the kernel's own, and ours where it has one of its own."""

_SYSTEM = ("/proc/uptime", "/proc/meminfo", "/proc/zoneinfo", "/proc/vmstat")
_MEMINFO = ("MemTotal", "MemFree", "MemAvailable", "AnonPages", "AnonHugePages", "Slab", "SUnreclaim", "SwapFree")
_VMSTAT = re.compile(r"(?:cow_ksm|ksm_\w+|thp_split_page|pgfault|pgmajfault|pswpin|pswpout|oom_kill)\Z")
# A /proc/zoneinfo line of a per-CPU list of free pages.
_PER_CPU_COUNT = re.compile(rb"^\s+count:\s+(\d+)$", re.MULTILINE)


class FileReader(Protocol):
    """Where files are read: a guest."""

    def read_files(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        """Return the files' contents; a path that ends in / stands for every file in that folder."""


@dataclass(frozen=True)
class Counters:
    """One reading. Names are `ksm.FILE`, `samepage.FILE`, `meminfo.NAME`, `process.NAME` ...; pages unless they say."""

    uptime: float
    """The guest's, in seconds."""
    values: Mapping[str, int]

    def folder(self, name: str) -> dict[str, int]:
        """Return what /sys/kernel/mm/`name` says, under the names there."""
        prefix = name + "."
        return {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    @property
    def saved_pages(self) -> int:
        """Pages that need no frame of their own, by the merger's counters."""
        return self["ksm.pages_sharing"] + self.values.get("ksm.ksm_zero_pages", 0)

    @property
    def free_bytes(self) -> int:
        """Free memory, with what lies on the CPUs' lists of free pages."""
        return self["meminfo.MemFree_kb"] * 1024 + self["zoneinfo.per_cpu_free"] * PAGE_BYTES


@dataclass(frozen=True)
class CounterReader:
    """Reads all counters of a guest."""

    files: FileReader
    scanners: tuple[int, ...] = ()
    """Process ids of the threads that merge."""

    def read(self, processes: Iterable[int] = ()) -> Counters:
        """Read everything, with the sums over these processes' own counters."""
        pids = list(processes)
        schedstats = [f"/proc/{pid}/schedstat" for pid in self.scanners]
        own = [f"/proc/{pid}/{name}" for pid in pids for name in ("ksm_stat", "ksm_merging_pages")]
        found = self.files.read_files([KSM, SAMEPAGE, *_SYSTEM, *schedstats, *own])
        texts = {path: text for path, text in found.items() if text is not None}
        values: dict[str, int] = {}
        for folder, prefix in ((KSM, "ksm"), (SAMEPAGE, "samepage")):
            values.update(_folder(texts, folder, prefix))
        values.update(_meminfo(texts["/proc/meminfo"]))
        values["zoneinfo.per_cpu_free"] = sum(map(int, _PER_CPU_COUNT.findall(texts["/proc/zoneinfo"])))
        values.update(_vmstat(texts["/proc/vmstat"]))
        if all(path in texts for path in schedstats):
            values["scanner.cpu_ns"] = sum(int(texts[path].split()[0]) for path in schedstats)
        if pids:
            values.update(_processes([texts[path] for path in own if path in texts]))
        return Counters(float(texts["/proc/uptime"].split()[0]), values)

    def of_processes(self, pids: Iterable[int]) -> dict[int, dict[str, int]]:
        """Return each process's own counters (ksm_stat and ksm_merging_pages)."""
        paths = {pid: [f"/proc/{pid}/ksm_stat", f"/proc/{pid}/ksm_merging_pages"] for pid in pids}
        found = self.files.read_files([path for two in paths.values() for path in two])
        sums = {pid: _processes([text for path in two if (text := found[path])]) for pid, two in paths.items()}
        return {
            pid: {name.removeprefix("process."): value for name, value in values.items()}
            for pid, values in sums.items()
        }


def find_scanners(files: FileReader, pids: Iterable[int]) -> tuple[int, ...]:
    """Return which of the processes are threads that merge."""
    paths = {pid: f"/proc/{pid}/comm" for pid in pids}
    names = files.read_files(paths.values())
    return tuple(pid for pid, path in paths.items() if _is_scanner((names[path] or b"").decode().strip()))


def _is_scanner(name: str) -> bool:
    """Whether a thread of this name merges; of several, all but the first have a number: samepaged/1."""
    return name.partition("/")[0] in SCANNERS


def _folder(texts: Mapping[str, bytes], folder: str, prefix: str) -> dict[str, int]:
    """Take a sysfs folder's files that hold one number; `[a] b` (a choice) is no number."""
    values = {}
    for path, text in sorted(texts.items()):
        if path.startswith(folder) and re.fullmatch(rb"-?\d+\s*", text):
            values[f"{prefix}.{path.removeprefix(folder)}"] = int(text)
    return values


def _meminfo(text: bytes) -> dict[str, int]:
    rows = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    return {f"meminfo.{name}_kb": int(rows[name].split()[0]) for name in _MEMINFO if name in rows}


def _vmstat(text: bytes) -> dict[str, int]:
    rows = (line.split() for line in text.decode().splitlines())
    return {f"vmstat.{name}": int(value) for name, value in rows if _VMSTAT.match(name)}


def _processes(texts: Iterable[bytes]) -> dict[str, int]:
    """Sum the `name value` lines of ksm_stat and the bare number of ksm_merging_pages over processes."""
    sums: dict[str, int] = {}
    for text in texts:
        for line in text.decode().splitlines():
            name, _, value = line.rpartition(" ")
            # The bare number is in ksm_stat too on newer kernels, where it is taken from.
            key = f"process.{name.rstrip(':') or 'merging_pages_file'}"
            if re.fullmatch(r"-?\d+", value):
                sums[key] = sums.get(key, 0) + int(value)
    return sums
