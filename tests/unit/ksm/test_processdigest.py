# SPDX-License-Identifier: MIT
from __future__ import annotations

import numpy as np
import pytest

from harness.errors import SamepageError
from harness.ksm.content import Digester
from harness.ksm.oracle import expect
from harness.ksm.processdigest import (
    RECORD,
    Records,
    candidates,
    copies,
    decode_digests,
    differing,
    mergeable_ranges,
)

DIGESTER = Digester(5)
ZERO = DIGESTER.of_bytes(bytes(4096))
KSM, THP, EXCLUSIVE, ZERO_PAGE = 1 << 21, 1 << 22, 1 << 34, 1 << 24


def records(*rows: tuple[int, int, int, int]) -> Records:
    return np.array(list(rows), dtype=RECORD)


def test_each_process_s_records_are_told_apart() -> None:
    end = 2**64 - 1
    whole = records((1, 10, 0, 0), (2, 20, 0, 0), (end, 2, 0, 0), (end, 0, 0, 0), (3, 30, 0, 0), (end, 1, 0, 0))
    assert [part["address"].tolist() for part in decode_digests(whole.tobytes())] == [[1, 2], [], [3]]


@pytest.mark.parametrize("cut", [slice(0, 2), slice(1, None), slice(0, 5)])
def test_a_cut_stream_is_refused(cut: slice) -> None:
    end = 2**64 - 1
    whole = records((1, 10, 0, 0), (2, 20, 0, 0), (end, 2, 0, 0), (end, 0, 0, 0), (3, 30, 0, 0), (end, 1, 0, 0))
    with pytest.raises(SamepageError):
        decode_digests(whole[cut].tobytes())
    with pytest.raises(SamepageError):
        decode_digests(whole.tobytes() + b"x")


def test_a_changed_page_is_named() -> None:
    before = records((0x1000, 1, 0, 0), (0x2000, 2, 0, 0))
    assert differing(before, before, DIGESTER) == []
    assert differing(before, records((0x1000, 1, 0, 0), (0x2000, 3, 0, 0)), DIGESTER) == [0x2000]


def test_only_empty_pages_may_come_and_go() -> None:
    before = records((0x1000, 1, 0, 0), (0x2000, ZERO, 0, 0))
    assert differing(before, records((0x1000, 1, 0, 0), (0x3000, ZERO, 0, 0)), DIGESTER) == []
    assert differing(before, records((0x2000, ZERO, 0, 0)), DIGESTER) == [0x1000]
    assert differing(before, records((0x1000, 1, 0, 0), (0x3000, 9, 0, 0)), DIGESTER) == [0x3000]


SMAPS = """00400000-00402000 r--p 00000000 00:14 5 /bin/x
Size:                  8 kB
VmFlags: rd mr mw me mg
7f0000-7f2000 rw-p 00000000 00:00 0
KSM:                   0 kB
VmFlags: rd wr mr mw me ac
7f2000-7f3000 rw-p 00000000 00:00 0 [heap]
VmFlags: rd wr mg
"""


def test_mergeable_mappings_are_found() -> None:
    assert mergeable_ranges(SMAPS) == [(0x400000, 0x402000), (0x7F2000, 0x7F3000)]


def test_candidates_lie_in_mergeable_mappings_and_not_on_the_zero_page() -> None:
    first = records((0x1000, 1, 100, EXCLUSIVE | KSM), (0x2000, ZERO, 7, ZERO_PAGE), (0x9000, 1, 101, KSM))
    second = records((0x1000, 1, 102, EXCLUSIVE | KSM), (0x2000, ZERO, 7, ZERO_PAGE))
    found = candidates([(first, [(0x1000, 0x3000)]), (second, [(0x1000, 0x3000)])])
    assert found.digests.tolist() == [1, 1]
    assert found.frames.tolist() == [100, 102]
    assert found.merged.tolist() == [False, False]
    expected = expect(found, DIGESTER, max_page_sharing=256, use_zero_pages=True)
    assert (expected.pages_sharing, expected.ksm_zero_pages) == (1, 0)


def test_parts_of_huge_pages_are_no_candidates() -> None:
    first = records((0x1000, 1, 100, EXCLUSIVE), (0x2000, 2, 101, EXCLUSIVE))
    second = records((0x1000, 1, 102, EXCLUSIVE | THP), (0x2000, 2, 103, EXCLUSIVE))
    found = candidates([(pages, [(0x1000, 0x3000)]) for pages in (first, second)])
    assert expect(found, DIGESTER, max_page_sharing=256, use_zero_pages=False).pages_sharing == 1


def test_copies_are_counted_by_content_and_frame() -> None:
    before = records((0x1000, 1, 50, KSM), (0x2000, 2, 51, KSM), (0x3000, 3, 52, KSM | EXCLUSIVE), (0x4000, 4, 53, KSM))
    after = records((0x1000, 9, 60, EXCLUSIVE), (0x2000, 9, 51, KSM), (0x3000, 9, 61, EXCLUSIVE), (0x4000, 4, 53, KSM))
    # Page 0x1000 got its own frame, 0x2000 was written where others still look.
    assert copies(before, after) == (2, 1)
