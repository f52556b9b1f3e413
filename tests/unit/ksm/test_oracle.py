# SPDX-License-Identifier: MIT
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ksm.content import Digester, Kind, page_bytes
from harness.ksm.oracle import AreaModel, Candidates, Expected, expect, mark_merged

DIGESTER = Digester(99)
PAGES = 6


def area(*keys: int, kind: Kind = Kind.FILLED) -> AreaModel:
    model = AreaModel.untouched(0, len(keys))
    model.mergeable[:] = True
    model.fill(0, np.full(len(keys), kind, np.uint8), np.array(keys, np.uint64))
    return model


def reach(*areas: AreaModel, limit: int = 256, zero: bool = False, least: dict[int, int] | None = None) -> Expected:
    candidates = Candidates.of_areas(areas, DIGESTER)
    return expect(candidates, DIGESTER, max_page_sharing=limit, use_zero_pages=zero, least_frames=least)


def test_nothing_and_unique_pages() -> None:
    assert reach() == Expected(0, 0, 0)
    assert reach(area(1, 2, 3)) == Expected(0, 0, 0)


def test_duplicates_within_and_across_processes() -> None:
    assert reach(area(1, 1, 2), area(1, 2, 3)) == Expected(pages_shared=2, pages_sharing=3, ksm_zero_pages=0)


def test_untouched_and_unregistered_pages_do_not_count() -> None:
    model = area(1, 1, 1)
    model.mergeable[2] = False
    untouched = AreaModel.untouched(0, 5)
    untouched.mergeable[:] = True
    assert reach(model, untouched) == Expected(1, 1, 0)


def test_zero_pages() -> None:
    zeroes = area(0, 0, 0, kind=Kind.ZERO)
    assert reach(zeroes) == Expected(1, 2, 0)
    assert reach(zeroes, zero=True) == Expected(0, 0, 3)
    # A single one is worth it with the zero page only; a page of the byte 0 is the same content.
    assert reach(area(0x100, kind=Kind.BYTE), area(5), zero=True) == Expected(0, 0, 1)


@pytest.mark.parametrize(
    ("mapped", "shared", "sharing"),
    [(2, 1, 1), (3, 1, 2), (4, 1, 2), (5, 2, 3), (6, 2, 4), (7, 2, 4), (9, 3, 6)],
)
def test_max_page_sharing(mapped: int, shared: int, sharing: int) -> None:
    # With 3 to a page, a 4th and a 7th page stay alone.
    assert reach(area(*[1] * mapped), limit=3) == Expected(shared, sharing, 0)


def test_frames_that_fork_shares_are_no_duplicates() -> None:
    parent = area(1, 2)
    child = parent.forked()
    assert reach(parent, child) == Expected(0, 0, 0)
    # A third page with the content makes it worth merging for all three.
    assert reach(parent, child, area(1)) == Expected(1, 2, 0)
    child.poke(1, 0, b"\x01")
    assert reach(parent, child) == Expected(0, 0, 0)
    child.fill(1, np.array([Kind.FILLED], np.uint8), np.array([2], np.uint64))
    assert reach(parent, child) == Expected(1, 1, 0)


def test_what_was_merged_stays_so_over_fork_and_partial_writes() -> None:
    first, second = area(1, 7), area(1, 8)
    mark_merged([first, second], DIGESTER, max_page_sharing=256)
    assert first.merged.tolist() == [True, False]
    child = first.forked()
    assert reach(first, second, child) == Expected(1, 2, 0)
    second.poke(0, 5, b"x")
    first.poke(0, 5, b"y")
    assert reach(first, second, child) == Expected(pages_shared=1, pages_sharing=0, ksm_zero_pages=0)


def test_thinned_out_pages_are_not_packed_again() -> None:
    models = [area(1, 1, 1, 1) for _ in range(2)]
    least = mark_merged(models, DIGESTER, max_page_sharing=4)
    assert list(least.values()) == [2]
    for page in range(3):
        models[0].poke(page, 0, bytes([page + 1]))
    assert reach(*models, limit=4) == Expected(1, 3, 0)
    assert reach(*models, limit=4, least=least) == Expected(2, 3, 0)


def test_fork_goes_beyond_the_limit() -> None:
    parent, other = area(1, 1), area(1, 1)
    least = mark_merged([parent, other], DIGESTER, max_page_sharing=4)
    child = parent.forked()
    assert reach(parent, other, child, limit=4, least=least) == Expected(1, 5, 0)
    # A page that came otherwise does not.
    assert reach(parent, other, child, area(1), limit=4, least=least) == Expected(1, 5, 0)
    for model in (parent, other):
        model.discard(slice(None))
    assert reach(parent, other, child, limit=4, least=least) == Expected(1, 1, 0)


def test_against_counting_by_hand() -> None:
    random = np.random.default_rng(3)
    areas = [area(*random.integers(0, 40, 50).tolist()) for _ in range(4)]
    counts = Counter(int(key) for model in areas for key in model.keys)
    expected = reach(*areas, limit=5)
    shared = sharing = 0
    for left in counts.values():
        for taken in [5] * (left // 5) + [left % 5]:
            shared, sharing = (shared + 1, sharing + taken - 1) if taken >= 2 else (shared, sharing)
    assert (expected.pages_shared, expected.pages_sharing) == (shared, sharing)


pages = st.integers(0, PAGES - 1)
operations = st.one_of(
    st.tuples(st.just("fill"), pages, st.sampled_from(list(Kind)), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("poke"), pages, st.integers(0, 4088), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("discard"), pages),
    st.tuples(st.just("rewrite"), pages, st.integers(0, 2**40), st.integers(0, 15)),
)


@given(st.lists(operations, max_size=25))
def test_a_model_holds_what_was_written(steps: list[tuple[object, ...]]) -> None:
    model = AreaModel.untouched(0, PAGES)
    plain = [bytearray(4096) for _ in range(PAGES)]
    for step in steps:
        match step:
            case ("fill", int(page), Kind() as kind, int(key)):
                model.fill(page, np.array([kind], np.uint8), np.array([key], np.uint64))
                plain[page] = page_bytes(kind, key)
            case ("poke", int(page), int(offset), bytes(data)):
                model.poke(page, offset, data)
                plain[page][offset : offset + len(data)] = data
            case ("discard", int(page)):
                model.discard(slice(page, page + 1))
                plain[page] = bytearray(4096)
            case ("rewrite", int(page), int(key), int(written)):
                model.rewrite(page, PAGES - page, Kind.FILLED, key, written)
                for number in range(written):
                    plain[page + number % (PAGES - page)] = page_bytes(Kind.FILLED, key + number)
        model.digests(DIGESTER)
    assert [model.page(page) for page in range(PAGES)] == [bytes(page) for page in plain]
    assert model.digests(DIGESTER).tolist() == [DIGESTER.of_bytes(page) for page in plain]
    wider = model.resized(PAGES + 2)
    assert wider.digests(DIGESTER).tolist()[PAGES:] == [DIGESTER.of_bytes(bytes(4096))] * 2
    assert wider.page(0) == bytes(plain[0])
