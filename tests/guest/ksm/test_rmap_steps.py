# SPDX-License-Identifier: MIT
"""A walk over who maps a merged page asks for one index: it does not visit every mapping of a common parent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.guest.guest import Guest
from harness.guest.tracing import TRACING, probed
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.ksm.processes import PROT_READ, Area
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, STOP, UNMERGE, Merger

PAGES = 1000
PAGE = 500  # the one that is merged
CHILDREN = 4
KEY = 41 << 40
# A migration walks twice; each walk goes over the sharers twice, and at an index the last step leads nowhere.
MOST_STEPS = 2 * 2 * 2 * (CHILDREN + 2)

pytestmark = pytest.mark.guest(memory_mib=1024, cpus=2, numa_nodes=2)


@dataclass(frozen=True)
class Steps:
    """Counts the steps from mapping to mapping in the kernel's trees of anonymous memory."""

    guest: Guest

    @property
    def count(self) -> int:
        """How many there were so far."""
        ((name, hits, _),) = [line.split() for line in self.guest.read(TRACING + "kprobe_profile").splitlines()]
        assert name == "steps"
        return int(hits)


@pytest.fixture
def steps(guest: Guest) -> Iterator[Steps]:
    with probed(guest, "steps", "anon_vma_interval_tree_iter_next", "anon_rmap_tree_iter_next"):
        yield Steps(guest)


def many_mappings(work: MemWork) -> Area:
    """Two processes with one page in common, of which one has PAGES mappings; return the other's page."""
    parent, other = work.process(), work.process()
    area = parent.map(pages=PAGES)
    area.fill(Kind.FILLED, KEY, step=1)
    with work.together():
        for page in range(1, PAGES, 2):
            area.protect(PROT_READ, range(page, page + 1))
    single = other.map(pages=1)
    single.fill(Kind.FILLED, KEY + PAGE)
    return single


def move_there_and_back(area: Area, steps: Steps) -> list[int]:
    """Return the steps of each migration."""
    taken = []
    area.move_to_node(0)
    for node in (1, 0, 1):
        before = steps.count
        assert (area.move_to_node(node) == node).all()
        taken.append(steps.count - before)
    return taken


def test_steps_are_as_many_as_sharers(merger: Merger, guest: Guest, work: MemWork, steps: Steps) -> None:
    single = many_mappings(work)
    merger["run"] = RUN
    merger.passes(3)
    assert merger.counts() == (1, 1, 0)
    merger["run"] = STOP
    for _ in range(CHILDREN):
        work.processes[0].fork()
    maps = guest.read(f"/proc/{work.processes[0].pid}/maps").count("\n")
    assert maps > PAGES
    taken = move_there_and_back(single, steps)
    assert min(taken) > 0
    assert max(taken) <= MOST_STEPS, f"{taken} steps, with {maps} mappings in each of {CHILDREN + 1} processes"
    work.check()
    frames = [area.frames()["pagemap"][PAGE if area.pages > 1 else 0] for area in work.areas]
    assert len({int(frame) & ((1 << 55) - 1) for frame in frames}) == 1, "all see it where it is now"


def test_in_tree_visits_all_where_it_does_not_ask_for_an_index(
    merger: Merger, guest: Guest, module: BuiltModule, work: MemWork, steps: Steps
) -> None:
    """What is counted is what is meant: in-tree KSM of older kernels goes from mapping to mapping."""
    if "anon_rmap_tree_iter_next" in guest.run(["cat", "/proc/kallsyms"]).text:
        pytest.skip("this kernel's own KSM asks for one index, too")
    guest.rmmod("samepage")
    merger.hurry()
    single = many_mappings(work)
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (1, 1, 0)
    merger["run"] = STOP
    taken = move_there_and_back(single, steps)
    assert min(taken) > PAGES > MOST_STEPS
    work.check()
    merger["run"] = UNMERGE
    merger["run"] = STOP
    guest.insmod(module.ko)
