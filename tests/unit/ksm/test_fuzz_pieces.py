# SPDX-License-Identifier: MIT
"""Pieces that are cut out of a mapping: the model still says what every page holds."""

from __future__ import annotations

import pytest

from harness.ksm.content import Kind
from harness.ksm.fuzz.pieces import cut_out
from harness.ksm.memwork import MemWork
from harness.ksm.processes import MREMAP_FIXED, MREMAP_MAYMOVE, Syscall
from harness.ksm.protocol import PAGE_BYTES


@pytest.mark.parametrize(
    ("first", "stop", "left"), [(0, 4, [6]), (3, 5, [3, 5]), (6, 10, [6]), (0, 10, []), (5, 6, [5, 4])]
)
def test_a_hole_leaves_what_is_around_it(work: MemWork, first: int, stop: int, left: list[int]) -> None:
    process = work.process()
    before, area, behind = (process.map(pages=10, merge=False) for _ in range(3))
    for number, each in enumerate((before, area, behind)):
        each.fill(Kind.FILLED, 100 * number, step=1)
    area.poke(2, 8, 7)
    area.poke(8, 16, 9)
    process.fork()
    size = (stop - first) * PAGE_BYTES
    process.post_syscall(Syscall.MUNMAP, area.address(first), size)
    cut = cut_out(area, range(first, stop))
    assert cut.pages == stop - first
    assert [each.pages for each in process.areas] == [10, *left, 10]
    assert work.check() == 30 + 20 + sum(left)


def test_a_piece_is_moved(work: MemWork) -> None:
    process = work.process()
    area = process.map(pages=10, merge=False)
    area.fill(Kind.FILLED, 1, step=1)
    area.poke(4, 8, 7)
    area.model.mergeable[4] = True
    address = process.reserve(3)
    flags = MREMAP_MAYMOVE | MREMAP_FIXED
    process.post_syscall(Syscall.MREMAP, area.address(3), 3 * PAGE_BYTES, 3 * PAGE_BYTES, flags, address)
    moved = cut_out(area, range(3, 6))
    assert moved.patches.keys() == {1}
    assert moved.mergeable.tolist() == [False, True, False]
    moved.address = address
    process.areas.append(type(area)(process, moved))
    process.areas[1].poke(0, 0, 3)
    assert work.check() == 10
