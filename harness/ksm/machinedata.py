# SPDX-License-Identifier: MIT
"""What a virtual machine's data is to hold, and what it must answer for it: all of it computed from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.ksm.chance import Chance
from harness.ksm.content import Digester, Kind, Words
from harness.ksm.oracle import Candidates, Expected, expect, new_frames
from harness.ksm.protocol import PAGE_BYTES
from harness.ksm.workload import Machines

_FACTOR = 0x100000001B3
"""As in add_page of images/nested/init.c."""
_CHANGED = 8
"""Of the pages that all machines have alike, a change overwrites one in so many."""


@dataclass(frozen=True)
class Run:
    """Consecutive pages: page first + i holds what (kind, key + i) stands for."""

    first: int
    count: int
    kind: Kind
    key: int

    def keys(self) -> Words:
        """Return each page's key."""
        return np.uint64(self.key) + np.arange(self.count, dtype=np.uint64)


class MachineData:
    """The data of one machine: pages that all machines have alike, zero pages, and pages that nobody else has."""

    def __init__(self, workload: Machines, seed: int, number: int) -> None:
        """`number`: of the machine, from 0."""
        self.pages = workload.data_pages
        self._number = number
        self._seed = seed
        self._alike = self.pages * workload.same // 100
        zero = self.pages * workload.zero // 100
        own = self.pages - self._alike - zero
        self._kinds = np.zeros(self.pages, np.uint8)
        self._keys = np.zeros(self.pages, np.uint64)
        self.filling = [
            Run(0, self._alike, Kind.FILLED, self._base("alike")),
            Run(self._alike, zero, Kind.ZERO, 0),
            Run(self._alike + zero, own, Kind.FILLED, self._base("own", number)),
        ]
        for run in self.filling:
            self._note(run)

    @property
    def change_pages(self) -> int:
        """How many pages `change` overwrites."""
        return self._alike // _CHANGED // 2 * 2

    def change(self, round_: int) -> list[Run]:
        """Return what to overwrite, half of it alike in all machines that change, and take it over into the model."""
        half = self.change_pages // 2
        changed = [
            Run(0, half, Kind.FILLED, self._base("changed alike", round_)),
            Run(half, half, Kind.FILLED, self._base("changed own", round_, self._number)),
        ]
        for run in changed:
            self._note(run)
        return changed

    def digest(self, digester: Digester, first: int, count: int) -> int:
        """Return what the machine must answer to `digest FIRST COUNT SECRET`."""
        part = slice(first, first + count)
        return fold(digester.of_contents(self._kinds[part], self._keys[part]))

    def candidates(self, digester: Digester) -> Candidates:
        """Return the pages as merging sees them, none merged yet."""
        none = np.zeros(self.pages, np.bool_)
        digests = digester.of_contents(self._kinds, self._keys)
        return Candidates(digests, new_frames(self.pages), none, none)

    def _base(self, *label: object) -> int:
        """Return the first key of a run: bases are too far apart for two runs to meet."""
        return Chance(self._seed, "machines", *label).word()

    def _note(self, run: Run) -> None:
        part = slice(run.first, run.first + run.count)
        self._kinds[part] = run.kind
        self._keys[part] = run.keys() if run.kind is not Kind.ZERO else 0


def fold(digests: Words) -> int:
    """Return the digest of pages in order, from each page's own."""
    powers = np.full(len(digests), _FACTOR, np.uint64)
    powers[:1] = 1
    total: np.uint64 = (digests * np.multiply.accumulate(powers)[::-1]).sum(dtype=np.uint64)
    return int(total)


def file_digest(digester: Digester, path: Path) -> tuple[int, int]:
    """Return what a machine must answer to `read PATH SECRET`, and the file's size in pages."""
    content = path.read_bytes()
    padded = content + bytes(-len(content) % PAGE_BYTES)
    words = np.frombuffer(padded, "<u8").astype(np.uint64).reshape(-1, PAGE_BYTES // 8)
    return fold(digester.of_words(words)), len(words)


def least_saved(machines: list[MachineData], digester: Digester, *, max_page_sharing: int) -> Expected:
    """Return what merging must at least save: what the data alone allow, whatever else the machines' memory holds."""
    parts = [machine.candidates(digester) for machine in machines]
    candidates = Candidates(
        np.concatenate([part.digests for part in parts]),
        np.concatenate([part.frames for part in parts]),
        np.concatenate([part.merged for part in parts]),
        np.concatenate([part.inherited for part in parts]),
    )
    return expect(candidates, digester, max_page_sharing=max_page_sharing, use_zero_pages=False)
