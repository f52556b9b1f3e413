# SPDX-License-Identifier: MIT
"""From the records of a case to figures: every cost counts instructions, not time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

from harness.errors import CheckFailed
from harness.ksm.bench.cases import CHILDREN, THREADED_PASSES, Case, Kind
from harness.ksm.bench.content import Memory
from harness.ksm.bench.records import Record, labelled
from harness.ksm.bench.result import Curve, Figure, PassCosts
from harness.ksm.protocol import PAGE_BYTES
from harness.ksm.result import Merger

PER_PAGE, TOTAL, PAGES, BYTES = "instructions/page", "instructions", "pages", "bytes"
MILESTONES = (50, 90, 95, 99)
_CACHES = ("ksm_", "sp_", "samepage")
"""How the names of the mergers' slab caches begin."""

Metrics = Iterator[tuple[str, float, str]]


def figures_of(case: Case, merger: Merger, records: Sequence[Record]) -> list[Figure]:
    """Return all figures of a case."""
    return [
        Figure(case=case, merger=merger, metric=metric, value=round(value, 3), unit=unit)
        for metric, value, unit in METRICS[case.kind](case, list(records))
    ]


def curve_of(case: Case, merger: Merger, records: Sequence[Record]) -> Curve | None:
    """Return how savings build up, for a case of that kind."""
    if case.kind != "curve":
        return None
    points = labelled(list(records), "curve")
    return Curve(
        case=case,
        merger=merger,
        possible=_possible(case, list(records)),
        scanner_instructions=list(itertools.accumulate(point["scanner_ns"] for point in points)),
        saved=[point["saved"] for point in points],
    )


def _pages(case: Case, records: list[Record]) -> int:
    """All pages that are registered: as the case says, or as the guest has counted."""
    counted = labelled(records, "counted")
    return counted[0]["pages"] if counted else case.memory.pages


def _possible(case: Case, records: list[Record]) -> int:
    """Pages that merging can save."""
    memory = case.memory
    if isinstance(memory, Memory):
        return memory.possible(use_zero_pages=case.use_zero_pages)
    return labelled(records, "counted")[0]["possible"]


def _differences(records: list[Record], *labels: str, name: str = "scanner_ns") -> list[int]:
    chosen = [record for label in labels for record in labelled(records, label)]
    return [after[name] - before[name] for before, after in itertools.pairwise(chosen)]


def _pass_costs(records: list[Record]) -> list[int]:
    return _differences(records, "ready", "first", "second", "steady")


def passes_of(case: Case, merger: Merger, records: Sequence[Record]) -> PassCosts | None:
    """Return what each pass cost, for a case of that kind; None for others."""
    if case.kind != "passes":
        return None
    costs = _pass_costs(list(records))
    return PassCosts(case=case, merger=merger, pages=_pages(case, list(records)), scanner_instructions=costs)


def _passes(case: Case, records: list[Record]) -> Metrics:
    pages = _pages(case, records)
    costs = [cost / pages for cost in _pass_costs(records)]
    yield "first pass", costs[0], PER_PAGE
    yield "second pass", costs[1], PER_PAGE
    yield "steady state", fmean(costs[2:]), PER_PAGE
    yield "steady state, cheapest pass", min(costs[2:]), PER_PAGE
    yield "steady state, dearest pass", max(costs[2:]), PER_PAGE
    steady = labelled(records, "steady")
    if "ksm.pages_skipped" in steady[-1].values:
        skipped = _differences(records, "second", "steady", name="ksm.pages_skipped")
        yield "steady state, pages skipped in a pass", fmean(skipped) * 100 / pages, "%"
    last = steady[-1]
    yield "pages saved", last.saved, PAGES
    yield "pages not saved", _possible(case, records) - last.saved, PAGES
    if case.huge:
        yield "huge pages split", last.values.get("vmstat.thp_split_pmd", 0), PAGES


def _milestones(case: Case, records: list[Record], points: list[Record], name: str, metric: str) -> Metrics:
    """Yield what the named field came to when so many percent were saved; nothing for what was never reached."""
    possible = _possible(case, records)
    left = list(MILESTONES)
    for point in points:
        while left and point["saved"] * 100 >= left[0] * possible:
            yield f"{metric} to {left.pop(0)} %", point[name], TOTAL


def _curve(case: Case, records: list[Record]) -> Metrics:
    points = labelled(records, "curve")
    sums = itertools.accumulate(point["scanner_ns"] for point in points)
    summed = [Record("curve", {**point.values, "sum": total}) for point, total in zip(points, sums, strict=True)]
    return _milestones(case, records, summed, "sum", "scanner")


def _time(case: Case, records: list[Record]) -> Metrics:
    return _milestones(case, records, labelled(records, "race"), "wall_ns", "virtual time")


def _writes(case: Case, records: list[Record]) -> Metrics:
    for label in ("first_touch", "own_page", "fork_copy", "merged_page"):
        (record,) = labelled(records, label)
        name = label.replace("_", " ")
        yield f"write, {name}", record["sum"] / record["count"], PER_PAGE
        yield f"write, {name}, median", record["median"], PER_PAGE
    (advice,) = labelled(records, "unmergeable")
    if labelled(records, "before_advice")[0].saved >= _possible(case, records):
        # All are merged: in-tree's counters hear of this only with the next pass.
        yield "MADV_UNMERGEABLE", advice["took_ns"] / case.pages, PER_PAGE


def _unmerge(case: Case, records: list[Record]) -> Metrics:
    del case
    (before,), (run_2,), (after,) = (labelled(records, label) for label in ("before", "unmerge_all", "after"))
    yield "run=2", run_2["took_ns"] / max(before.in_trees - after.in_trees, 1), PER_PAGE


def _memory(case: Case, records: list[Record]) -> Metrics:
    before, registered, merged = (labelled(records, label)[0] for label in ("before", "registered", "merged"))
    pages = _pages(case, records)

    def slabs(record: Record) -> int:
        return sum(value for name, value in record.values.items() if _is_cache(name))

    own = slabs(merged) - slabs(before)
    yield "slab per page", own / pages, BYTES
    if merged.in_trees:
        yield "slab per merged page", own / merged.in_trees, BYTES
    if not case.has_programs:  # whose address spaces are registered when they start
        yield "slab per address space", (slabs(registered) - slabs(before)) / case.processes, BYTES
    if "samepage.metadata_bytes" in merged.values:
        yield "metadata_bytes per page", merged["samepage.metadata_bytes"] / pages, BYTES
    if "module.core_bytes" in merged.values:
        yield "module's code and data", merged["module.core_bytes"], BYTES
    yield "memory really freed", (merged["free_pages"] - before["free_pages"]) * PAGE_BYTES, BYTES
    yield "pages saved", merged.saved, PAGES


def _is_cache(name: str) -> bool:
    kind, _, cache = name.partition(".")
    return kind == "slab" and cache.startswith(_CACHES)


def _latency(case: Case, records: list[Record]) -> Metrics:
    del case
    for label in ("idle", "first", "second", "third", "steady", "unmerging"):
        (record,) = labelled(records, label)
        name = label if label in ("idle", "unmerging") else f"{label} pass"
        yield f"longest wait of a real-time task, {name}", record["max_ns"], TOTAL


def _sparse(case: Case, records: list[Record]) -> Metrics:
    del case
    costs = _differences(records, "ready", "first", "second", "steady")
    for label, cost in zip(("first pass", "second pass", "steady state"), costs, strict=True):
        yield label, cost, TOTAL
    (advice,) = labelled(records, "unmergeable")
    yield "MADV_UNMERGEABLE of 32 GiB", advice["took_ns"], TOTAL


def _rmap(case: Case, records: list[Record]) -> Metrics:
    del case
    if labelled(records, "merging")[-1].saved != 1:
        raise CheckFailed("the page that is to move was not merged")
    (move,), (steps,) = labelled(records, "move"), labelled(records, "steps")
    yield "moving a merged page", move["took_ns"], TOTAL
    yield f"steps of the rmap walks, {CHILDREN + 2} sharers", steps["steps"], "steps"


def _threads(case: Case, records: list[Record]) -> Metrics:
    """Several CPUs share the clock: it goes on by an instruction of any of them."""
    pages, lock_waits = _pages(case, records), "samepage.lock_waits"
    for label in THREADED_PASSES:
        (took,) = labelled(records, f"{label}_together")
        yield f"all CPUs, {label} pass", took["all_ns"] / pages, PER_PAGE
        yield f"threads at work at once, {label} pass", took["threads_ns"] / took["all_ns"], "threads"
    (ready,), (last,) = labelled(records, "ready"), labelled(records, THREADED_PASSES[-1])
    if lock_waits in last.values:
        yield "waits for a lock", last[lock_waits] - ready[lock_waits], "waits"
    yield "pages saved", last.saved, PAGES
    yield "pages not saved", _possible(case, records) - last.saved, PAGES


METRICS: Mapping[Kind, Callable[[Case, list[Record]], Metrics]] = {
    "passes": _passes,
    "curve": _curve,
    "time": _time,
    "writes": _writes,
    "unmerge": _unmerge,
    "memory": _memory,
    "latency": _latency,
    "sparse": _sparse,
    "rmap": _rmap,
    "threads": _threads,
}
