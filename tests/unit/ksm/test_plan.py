# SPDX-License-Identifier: MIT
from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from msgspec import toml

from harness.ksm.chance import Chance
from harness.ksm.content import Digester, Kind
from harness.ksm.plan import ProcessPlan, plan
from harness.ksm.workload import Synthetic, load

DIGESTER = Digester(1)


def make(content: str, processes: int = 3) -> Synthetic:
    text = f'kind = "synthetic"\ndescription = "x"\nprocesses = {processes}\n[[content]]\n{content}\n'
    return toml.decode(text, type=Synthetic)


def contents(plans: list[ProcessPlan]) -> list[list[int]]:
    """Digests of each process's pages."""
    return [
        [
            digest
            for area in its_plan.areas
            for digest in DIGESTER.of_contents(area.filling.kinds, area.filling.keys).tolist()
        ]
        for its_plan in plans
    ]


def test_zero() -> None:
    zero = DIGESTER.of_bytes(bytes(4096))
    assert contents(plan(make('class = "zero"\npages = 5'), 1)) == [[zero] * 5] * 3


def test_same() -> None:
    pages = contents(plan(make('class = "same"\npages = 50'), 1))
    assert pages[0] == pages[1] == pages[2]
    assert len(set(pages[0])) == 50


def test_groups() -> None:
    pages = contents(plan(make('class = "groups"\npages = 100\ngroup = 7'), 1))
    sizes = Counter(Counter(digest for process in pages for digest in process).values())
    assert sizes == {7: 42, 6: 1}
    # Dealt over the processes, not one after the other.
    assert 0 < len(set(pages[0]) & set(pages[1])) < 43


def test_unique_and_prefix() -> None:
    for name in ("unique", "prefix"):
        pages = contents(plan(make(f'class = "{name}"\npages = 100'), 1))
        assert len({digest for process in pages for digest in process}) == 300


def test_prefix_pages_share_their_beginning() -> None:
    plans = plan(make('class = "prefix"\npages = 100'), 1)
    keys = np.concatenate([its_plan.areas[0].filling.keys for its_plan in plans])
    assert len(set((keys >> np.uint64(32)).tolist())) == 1
    assert all((its_plan.areas[0].filling.kinds == Kind.PREFIX).all() for its_plan in plans)


def test_rewritten_has_a_plan_for_each_process() -> None:
    plans = plan(make('class = "rewritten"\npages = 4\nper_second = 10'), 1)
    assert {its_plan.areas[0].rewrite_per_second for its_plan in plans} == {10}
    assert len({its_plan.areas[0].rewrite_key for its_plan in plans}) == 3


def test_forked() -> None:
    for content, distinct in (("same", 1), ("unique", 3)):
        plans = plan(make(f'class = "forked"\npages = 8\nchildren = 2\nwritten = 3\ncontent = "{content}"'), 1)
        forks = [its_plan.fork for its_plan in plans if its_plan.fork]
        assert [fork.children for fork in forks] == [2, 2, 2]
        assert len({fork.area.filling.keys.tobytes() for fork in forks}) == distinct
        assert len({fork.written.keys.tobytes() for fork in forks}) == 1
        assert len(forks[0].written.keys) == 3


def test_two_classes_of_one_kind_are_apart() -> None:
    text = 'class = "same"\npages = 5\n[[content]]\nclass = "same"\npages = 5'
    first = contents(plan(make(text), 1))[0]
    assert len(set(first)) == 10


def fingerprint(workload: Synthetic, seed: int) -> str:
    whole = hashlib.sha256()
    for its_plan in plan(workload, seed):
        fork = [its_plan.fork.area.filling, its_plan.fork.written] if its_plan.fork else []
        for filling in [*fork, *(area.filling for area in its_plan.areas)]:
            whole.update(filling.kinds.tobytes() + filling.keys.astype("<u8").tobytes())
    return whole.hexdigest()


def test_a_seed_gives_the_same_anywhere() -> None:
    small = load("small")
    assert isinstance(small, Synthetic)
    assert fingerprint(small, 1) == "4a2b779ab7a3a1b76a300e1514b9811cfcdea89396de9558ff38f1da731fcc2f"
    assert fingerprint(small, 2) != fingerprint(small, 1)


def test_chance_is_fixed() -> None:
    chance = Chance(7, "label")
    numbers = [chance.word(), *chance.words(3).tolist(), chance.below(10)]
    assert numbers == [2898132373151244084, 1828203261367884023, 4132848251727577809, 16907833696782711098, 6]
    order = Chance(7, "order").order(100)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() != list(range(100))
    assert Chance(8, "label").word() != Chance(7, "label").word() != Chance(7, "other").word()
