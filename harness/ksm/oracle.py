# SPDX-License-Identifier: MIT
"""What every page of every process must hold, and what merging can save of it: computed here, never read from a guest.

Besides its content a page has a frame: which physical page it was before any merging. Fork shares frames, a write ends
the sharing. Two processes that share a frame hold one page of memory already, so there is nothing to merge.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.ksm.content import Digester, Kind, Words, page_bytes
from harness.ksm.protocol import PAGE_BYTES

ABSENT = 0
"""The frame of a page that was never written: it reads as zero, and merging does not look at it."""

_frame_numbers = itertools.count(1)


def new_frames(count: int) -> NDArray[np.int64]:
    """Return numbers for frames that nobody has yet."""
    return np.fromiter(itertools.islice(_frame_numbers, count), dtype=np.int64, count=count)


@dataclass
class AreaModel:
    """One mapping: an array element for each of its pages."""

    address: int
    kinds: NDArray[np.uint8]
    keys: Words
    frames: NDArray[np.int64]
    mergeable: NDArray[np.bool_]
    merged: NDArray[np.bool_]
    """It maps a merged page: merging was seen to have come to its end while it held a duplicate."""
    inherited: NDArray[np.bool_]
    """It maps a merged page because its parent did when it forked: max_page_sharing does not hold for it."""
    patches: dict[int, dict[int, int]] = field(default_factory=dict)
    """Bytes written over a page's content: page -> offset -> byte."""
    _digests: Words = field(default_factory=lambda: np.empty(0, np.uint64))
    _stale: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    @classmethod
    def untouched(cls, address: int, pages: int) -> AreaModel:
        """Model a fresh mapping."""
        return cls(
            address=address,
            kinds=np.zeros(pages, np.uint8),
            keys=np.zeros(pages, np.uint64),
            frames=np.zeros(pages, np.int64),
            mergeable=np.zeros(pages, np.bool_),
            merged=np.zeros(pages, np.bool_),
            inherited=np.zeros(pages, np.bool_),
            _digests=np.zeros(pages, np.uint64),
            _stale=np.ones(pages, np.bool_),
        )

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return len(self.keys)

    @property
    def candidates(self) -> NDArray[np.bool_]:
        """Which pages merging looks at."""
        candidates: NDArray[np.bool_] = self.mergeable & (self.frames != ABSENT)
        return candidates

    def fill(self, first: int, kinds: NDArray[np.uint8], keys: Words) -> None:
        """Pages from `first` on were written whole."""
        where = slice(first, first + len(keys))
        self.kinds[where] = kinds
        self.keys[where] = keys
        for page in [page for page in self.patches if first <= page < first + len(keys)]:
            del self.patches[page]
        self._written(np.arange(first, first + len(keys)))

    def poke(self, page: int, offset: int, data: bytes) -> None:
        """Some bytes of a page were written."""
        patch = self.patches.setdefault(page, {})
        patch.update(enumerate(data, offset))
        self._written(np.array([page]))

    def rewrite(self, first: int, pages: int, kind: Kind, key: int, written: int) -> None:
        """Replay `written` writes of a rewriting plan (see struct rewrite in memwork's protocol.h)."""
        last = written - 1 - (written - 1 - np.arange(min(pages, written), dtype=np.int64)) % pages
        keys = np.uint64(key) + last.astype(np.uint64)
        self.fill(first, np.full(len(keys), kind, np.uint8), keys)

    def discard(self, where: slice) -> None:
        """Pages were given back (MADV_DONTNEED): they read as zero again."""
        self.kinds[where] = Kind.ZERO
        self.keys[where] = 0
        self.frames[where] = ABSENT
        self.merged[where] = False
        self.inherited[where] = False
        self._stale[where] = True
        for page in [page for page in self.patches if page in range(self.pages)[where]]:
            del self.patches[page]

    def unmerge(self, where: slice) -> None:
        """Merged pages got frames of their own again."""
        pages = np.arange(self.pages)[where]
        pages = pages[self.merged[pages]]
        self.frames[pages] = new_frames(len(pages))
        self.merged[pages] = False
        self.inherited[pages] = False

    def resized(self, pages: int) -> AreaModel:
        """Copy the first `pages` pages, with untouched ones behind them where there are fewer."""
        result = AreaModel.untouched(self.address, pages)
        kept = min(pages, self.pages)
        result.mergeable[:] = self.mergeable.all()
        for name in ("kinds", "keys", "frames", "mergeable", "merged", "inherited", "_digests", "_stale"):
            getattr(result, name)[:kept] = getattr(self, name)[:kept]
        result.patches = {page: dict(patch) for page, patch in self.patches.items() if page < kept}
        return result

    def forked(self) -> AreaModel:
        """Copy for a child: the same contents in the same frames."""
        child = deepcopy(self)
        child.inherited = child.merged.copy()
        return child

    def page(self, page: int) -> bytes:
        """Return what the page must hold."""
        content = page_bytes(int(self.kinds[page]), int(self.keys[page]))
        for offset, byte in self.patches.get(page, {}).items():
            content[offset] = byte
        return bytes(content)

    def digests(self, digester: Digester) -> Words:
        """Return the digest that each page must have."""
        stale = np.flatnonzero(self._stale)
        if len(stale):
            self._digests[stale] = digester.of_contents(self.kinds[stale], self.keys[stale])
            for page in self.patches:
                if self._stale[page]:
                    self._digests[page] = digester.of_bytes(self.page(page))
            self._stale[:] = False
        return self._digests

    def _written(self, pages: NDArray[np.int64]) -> None:
        """Give each page a frame of its own, as a write does."""
        self.frames[pages] = new_frames(len(pages))
        self.merged[pages] = False
        self.inherited[pages] = False
        self._stale[pages] = True


@dataclass(frozen=True)
class Expected:
    """What merging can reach, in the kernel's counters (pages)."""

    pages_shared: int
    pages_sharing: int
    ksm_zero_pages: int

    @property
    def saved(self) -> int:
        """Pages that need no frame of their own any more."""
        return self.pages_sharing + self.ksm_zero_pages


@dataclass(frozen=True)
class Candidates:
    """Pages that merging looks at, in any processes: an array element for each."""

    digests: Words
    frames: NDArray[np.int64]
    merged: NDArray[np.bool_]
    inherited: NDArray[np.bool_]

    @classmethod
    def of_areas(cls, areas: Iterable[AreaModel], digester: Digester) -> Candidates:
        """Collect them from models."""
        parts = [
            (area.digests(digester)[chosen], area.frames[chosen], area.merged[chosen], area.inherited[chosen])
            for area in areas
            if (chosen := area.candidates).any()
        ]
        if not parts:
            none = np.empty(0, np.bool_)
            return cls(np.empty(0, np.uint64), np.empty(0, np.int64), none, none)
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def expect(
    candidates: Candidates,
    digester: Digester,
    *,
    max_page_sharing: int,
    use_zero_pages: bool,
    least_frames: Mapping[int, int] | None = None,
) -> Expected:
    """Count what merging can reach with these pages, once it has come to its end.

    No more than `max_page_sharing` pages share one merged page (fork may add to them); the one page that this may leave
    over stays alone.
    `least_frames` says for contents (by digest) into how many pages they were merged once: writes thin out the sharers
    of each, and no merger packs them again.
    """
    groups = _group(candidates)
    zero = groups.digests == digester.of_bytes(bytes(PAGE_BYTES))
    zero_pages = int(groups.mapped[zero].sum()) if use_zero_pages else 0
    counted = groups.duplicated & ~zero if use_zero_pages else groups.duplicated
    mapped, inherited = groups.mapped[counted], groups.inherited[counted]
    counting = np.maximum(mapped - inherited, 1)
    shared = _merged_pages(counting, max_page_sharing)
    for digest, least in (least_frames or {}).items():
        at = groups.digests[counted] == np.uint64(digest)
        shared[at] = np.maximum(shared[at], np.minimum(least, mapped[at]))
    left_over = counting > shared * max_page_sharing
    return Expected(int(shared.sum()), int((mapped - left_over - shared).sum()), zero_pages)


def mark_merged(areas: Iterable[AreaModel], digester: Digester, *, max_page_sharing: int) -> dict[int, int]:
    """Note that merging has come to its end: every duplicate now maps a merged page, and keeps it over a fork.

    Returns `least_frames` for `expect`.
    """
    listed = list(areas)
    groups = _group(Candidates.of_areas(listed, digester))
    duplicates = groups.digests[groups.duplicated]
    for area in listed:
        area.merged |= area.candidates & np.isin(area.digests(digester), duplicates)
    large = groups.duplicated & (groups.mapped > max_page_sharing)
    frames = _merged_pages(groups.mapped[large], max_page_sharing)
    return dict(zip(groups.digests[large].tolist(), frames.tolist(), strict=True))


def duplicated(candidates: Candidates) -> Words:
    """Return the digests of the contents that can be merged, or are."""
    groups = _group(candidates)
    return groups.digests[groups.duplicated]


def _merged_pages(mapped: NDArray[np.int64], max_page_sharing: int) -> NDArray[np.int64]:
    """Return into how many pages so many equal ones are merged; one that is left over stays alone."""
    full, rest = np.divmod(mapped, max_page_sharing)
    pages: NDArray[np.int64] = full + ((rest > 1) | ((rest == 1) & (full == 0)))
    return pages


@dataclass(frozen=True)
class _Groups:
    """For each distinct content: how many pages hold it, and whether they can be merged."""

    digests: Words
    mapped: NDArray[np.int64]
    inherited: NDArray[np.int64]
    duplicated: NDArray[np.bool_]


def _group(candidates: Candidates) -> _Groups:
    contents, which, mapped = np.unique(candidates.digests, return_inverse=True, return_counts=True)
    # One row for each frame that a content lies in.
    lies_in = np.unique(np.stack([which, candidates.frames], axis=1), axis=0)
    distinct_frames = np.bincount(lies_in[:, 0], minlength=len(contents))
    was_merged = np.bincount(which, weights=candidates.merged, minlength=len(contents)) > 0
    inherited = np.bincount(which, weights=candidates.inherited, minlength=len(contents)).astype(np.int64)
    return _Groups(contents, mapped, inherited, (distinct_frames > 1) | was_merged)
