# SPDX-License-Identifier: MIT
"""Processes in a guest whose every page is known: a client for `memwork` that keeps the oracle in step.

    with MemWork(guest) as work:
        first, second = work.process(), work.process()
        areas = [process.map(pages=64) for process in (first, second)]
        for area in areas:
            area.fill(Kind.FILLED, key=7)
        ...
        areas[0].poke(page=3, offset=100, value=1)
        work.check()

`check` compares all pages of all processes.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm import protocol
from harness.ksm.content import Digester
from harness.ksm.differences import ContentError, Difference, describe
from harness.ksm.link import Launcher, Link
from harness.ksm.oracle import ABSENT, Candidates, Expected, duplicated, expect, mark_merged
from harness.ksm.processes import KPF_ZERO_PAGE, Area, Place, Process, encode_ranges, merged_by_flags, split
from harness.ksm.protocol import PAGE_BYTES, Op, Request

MEMWORK = "/usr/bin/memwork"

_NO_SECRET = 1
DIGEST_PAGES = 16384
"""Pages to digest by one request: under a second in an emulated guest."""


def work_in(guest: Guest) -> MemWork:
    """Return work in a guest, where all of it repeats if the guest is in lockstep."""
    return MemWork(guest, secret=_NO_SECRET if guest.spec.lockstep else None)


class MemWork:
    """All the processes of a piece of work, through one `memwork` in the guest (or on the host, in unit tests)."""

    def __init__(
        self, launcher: Launcher, *, program: str = MEMWORK, secret: int | None = None, timeout: float = 120
    ) -> None:
        """`timeout` is for one request, in seconds; `secret` keys the digests (chosen at random when None)."""
        self._launcher = launcher
        self._names = itertools.count()
        self._least_frames: dict[int, int] = {}
        self.digester = Digester(secrets.randbits(64) if secret is None else secret)
        self.processes: list[Process] = []
        self._posted: list[Request] | None = None
        self._link = Link(launcher.spawn([program, "drive"]), timeout)

    def __enter__(self) -> MemWork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # What went wrong first is what counts; the program may be gone with its guest.
        with contextlib.suppress(CheckFailed):
            self.close()

    def close(self) -> None:
        """End all processes."""
        self.processes.clear()
        self._link.close()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let what is done to areas within wait, and be done at its end at once; an error is raised then.

        Thousands of small steps in as many processes take one pass through the guest this way. What needs an answer (a
        new process, frames, a comparison) has what waits done first.
        """
        assert self._posted is None, "together is not entered twice"
        self._posted = []
        try:
            yield
            self.ask([])
        finally:
            self._posted = None

    def post(self, request: Request) -> None:
        """Make a request whose answer nobody needs; it waits within `together`."""
        if self._posted is None:
            self._link.ask([request])
        else:
            self._posted.append(request)

    def ask(self, requests: Sequence[Request]) -> list[bytes]:
        """Make requests, after all that wait, and return their answers in the same order."""
        if self._posted:
            posted, self._posted = self._posted, []
            self._link.ask(posted)
        return self._link.ask(requests)

    def process(self, name: str | None = None) -> Process:
        """Start an empty process."""
        worker, default = self.new_name("process")
        pid = self.ask([Request(protocol.DRIVER, Op.SPAWN, argument=worker)])[0]
        process = Process(self, worker, int.from_bytes(pid, "little"), name or default)
        process.give_secret()
        self.processes.append(process)
        return process

    def new_name(self, stem: str) -> tuple[int, str]:
        """Return a free worker number, and a name for the process."""
        used = {process.worker for process in self.processes}
        worker = next(number for number in itertools.count() if number not in used)
        return worker, f"{stem} {next(self._names)}"

    @property
    def areas(self) -> list[Area]:
        """Every area of every process."""
        return [area for process in self.processes for area in process.areas]

    def compare(self, limit: int = 8) -> tuple[int, list[Difference]]:
        """Compare every page of every process with the oracle.

        Returns how many pages differ, and details of the first `limit` of them.
        """
        wrong = 0
        shown: list[Difference] = []
        for area, pages in self._wrong_pages():
            wrong += len(pages)
            for page in pages[: limit - len(shown)]:
                shown.append(self._difference(area, int(page)))
        return wrong, shown

    def check(self) -> int:
        """As compare; raise ContentError if anything differs, else return how many pages were compared."""
        wrong, shown = self.compare()
        if wrong:
            raise ContentError(describe(wrong, shown))
        return sum(area.pages for area in self.areas)

    def expected(self, *, max_page_sharing: int = 256, use_zero_pages: bool = False) -> Expected:
        """Count what merging can reach from here."""
        candidates = Candidates.of_areas((area.model for area in self.areas), self.digester)
        return expect(
            candidates,
            self.digester,
            max_page_sharing=max_page_sharing,
            use_zero_pages=use_zero_pages,
            least_frames=self._least_frames,
        )

    def duplicates(self) -> dict[int, list[Place]]:
        """Return the pages that can be merged (or are), grouped by content, in a fixed order."""
        candidates = Candidates.of_areas((area.model for area in self.areas), self.digester)
        contents = duplicated(candidates)
        groups: dict[int, list[Place]] = {}
        for area in self.areas:
            digests = area.model.digests(self.digester)
            for page in np.flatnonzero(area.model.candidates & np.isin(digests, contents)).tolist():
                groups.setdefault(int(digests[page]), []).append(Place(area, page))
        return groups

    def merged(self, places: Sequence[Place]) -> list[bool]:
        """Return for each place whether the kernel has merged its page, into a shared page or the zero page.

        A frame that a fork shares counts only once merging was seen to have come to its end (note_merged): before, the
        kernel does not tell the two kinds of sharing apart.
        """
        frames, users = np.unique(np.concatenate([area.model.frames for area in self.areas]), return_counts=True)
        forked = set(frames[users > 1].tolist())
        merged = []
        for place, flags in zip(places, self._flags(places), strict=True):
            if flags & KPF_ZERO_PAGE:
                # A page that was only ever read maps the zero page too, without any merging.
                merged.append(place.frame != ABSENT)
            else:
                certain = place.frame not in forked or place.known_merged
                merged.append(certain and bool(merged_by_flags(flags)))
        return merged

    def _flags(self, places: Sequence[Place]) -> NDArray[np.uint64]:
        """Return /proc/kpageflags of each place's page: one request for each process."""
        by_worker: dict[int, list[int]] = {}
        for index, place in enumerate(places):
            by_worker.setdefault(place.area.process.worker, []).append(index)
        requests = [
            Request(worker, Op.FRAMES, encode_ranges([(places[index].address, 1) for index in indices]))
            for worker, indices in by_worker.items()
        ]
        result = np.zeros(len(places), np.uint64)
        for indices, answer in zip(by_worker.values(), self.ask(requests), strict=True):
            result[indices] = np.frombuffer(answer, dtype=protocol.FRAME)["flags"]
        return result

    def note_merged(self, *, max_page_sharing: int = 256) -> None:
        """Tell the model that merging has come to its end; forks and writes from here on start from merged pages."""
        models = [area.model for area in self.areas]
        self._least_frames = mark_merged(models, self.digester, max_page_sharing=max_page_sharing)

    def _wrong_pages(self) -> list[tuple[Area, NDArray[np.int64]]]:
        parts = [(area, start, stop) for area in self.areas for start, stop in split(range(area.pages), DIGEST_PAGES)]
        busy = [process.name for process in self.processes if process.rewriting]
        assert not busy, f"what {busy} hold is not known while they rewrite"
        answers = self.ask(
            [
                Request(area.process.worker, Op.DIGEST, encode_ranges([(area.address(start), stop - start)]))
                for area, start, stop in parts
            ]
        )
        wrong = []
        for (area, start, stop), answer in zip(parts, answers, strict=True):
            expected = area.model.digests(self.digester)[start:stop]
            differing = np.flatnonzero(np.frombuffer(answer, dtype="<u8") != expected)
            if len(differing):
                wrong.append((area, differing + start))
        return wrong

    def _difference(self, area: Area, page: int) -> Difference:
        path = f"/proc/{area.process.pid}/mem"
        found = self._launcher.get(path, area.address(page), PAGE_BYTES)
        return Difference(area.process.name, area.process.pid, page, area.address(page), area.model.page(page), found)
