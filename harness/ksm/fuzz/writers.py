# SPDX-License-Identifier: MIT
"""Processes beside the steps that write all the time to memory that is being merged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork, work_in

WRITERS, WRITER_PAGES, WRITES_PER_SECOND = 2, 800, 400
_KEY = 71 << 40


@contextmanager
def writing(guest: Guest, round_: int) -> Iterator[MemWork]:
    """Half of each process stays as it is, the same in all; the other half is rewritten without an end.

    With other contents in each round (from 0 on).
    """
    half = WRITER_PAGES // 2
    with work_in(guest) as writers:
        for number in range(WRITERS):
            area = writers.process().map(pages=WRITER_PAGES)
            area.fill(Kind.FILLED, _KEY, step=1, pages=range(half))
            key = _KEY + (round_ * WRITERS + number << 20)
            area.rewrite(key, per_second=WRITES_PER_SECOND, pages=range(half, WRITER_PAGES))
        yield writers


def end_writing(writers: MemWork) -> tuple[int, int]:
    """Stop them and compare all they hold: return how many writes there were, and how many pages. Raises ContentError.

    No page may be wrong.
    """
    writes = sum(process.stop_rewriting() for process in writers.processes)
    return writes, writers.check()
