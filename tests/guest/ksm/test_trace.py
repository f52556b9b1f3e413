# SPDX-License-Identifier: MIT
"""The nine ksm events, as tracefs shows them: the kernel's own where it has them, else the module's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.guest.guest import Guest
from harness.guest.tracing import TRACING, clear_trace, name_no_tasks, read_trace
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.control import RUN, STOP, UNMERGE, Merger

EVENTS = {
    "ksm_start_scan", "ksm_stop_scan", "ksm_enter", "ksm_exit", "ksm_merge_one_page", "ksm_merge_with_ksm_page",
    "ksm_remove_ksm_page", "ksm_remove_rmap_item", "ksm_advisor",
}  # fmt: skip
PAGES, ZEROS = 64, 16
KEY = 29 << 40


@dataclass(frozen=True)
class Event:
    """One line of the trace: the event's name and its text; pointers are hashed, each always to the same."""

    name: str
    text: str

    def field(self, label: str) -> str:
        """Return the word that follows a label."""
        found = re.search(rf"{label} (\S+)", self.text)
        assert found, f"no {label!r} in {self}"
        return found[1]

    @property
    def merged(self) -> bool:
        """Whether a try to merge succeeded."""
        return self.field("error") == "0"


@dataclass(frozen=True)
class Tracer:
    """The trace of a guest."""

    guest: Guest

    def set(self, name: str, value: str) -> None:
        self.guest.write(TRACING + name, value)

    def take(self) -> list[Event]:
        """Return the events so far, oldest first, and forget them. Fails when some were lost."""
        text = read_trace(self.guest)
        kept = re.search(r"entries-in-buffer/entries-written: (\d+)/(\d+)", text)
        assert kept
        assert kept[1] == kept[2], "the trace buffer was too small"
        clear_trace(self.guest)
        return [Event(*found) for found in re.findall(r": (ksm_\w+): (.*)$", text, re.MULTILINE)]


def of(events: list[Event], name: str) -> list[Event]:
    return [event for event in events if event.name == f"ksm_{name}"]


@pytest.fixture
def tracer(merger: Merger, guest: Guest) -> Iterator[Tracer]:
    """All ksm events switched on, and nothing traced yet."""
    name_no_tasks(guest)
    merger["run"] = STOP
    tracer = Tracer(guest)
    assert set(guest.run(["ls", TRACING + "events/ksm"]).text.split()) - {"enable", "filter"} == EVENTS
    tracer.set("buffer_size_kb", "4096")
    tracer.set("trace_clock", "counter")  # the order of events over all CPUs, whose clocks differ
    tracer.set("events/ksm/enable", "1")
    clear_trace(guest)
    yield tracer
    if guest.healthy:
        tracer.set("events/ksm/enable", "0")
        tracer.set("trace_clock", "local")


def test_the_scheduler_is_not_patched(tracer: Tracer, guest: Guest, work: MemWork) -> None:
    """Else __schedule() notes the name of each task that it switches to, and lines show them."""
    work.process().map(pages=1).fill(Kind.FILLED, KEY)
    tracer.set("events/ksm/enable", "0")
    lines = [line for line in read_trace(guest).splitlines() if "ksm_enter" in line]
    assert [line.split("-")[0].strip() for line in lines] == ["<...>"]


def test_a_life_in_events(merger: Merger, tracer: Tracer, work: MemWork) -> None:
    merger["use_zero_pages"] = 1
    sharing, zeros = work.process(), work.process()
    for _ in range(3):
        sharing.map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    zeros.map(pages=ZEROS).fill(Kind.ZERO)
    registered = tracer.take()
    mms = [event.field("mm") for event in registered]
    assert [event.name for event in registered] == ["ksm_enter"] * 2
    assert len(set(mms)) == 2

    merger.merge(work)
    merger["run"] = STOP
    events = tracer.take()
    check_passes(events)
    assert not of(events, "enter") + of(events, "exit") + of(events, "advisor")
    merges = [event for event in of(events, "merge_with_ksm_page") if event.merged]
    assert {event.field("mm") for event in merges} == {mms[0]}
    new = [event.field("pfn") for event in merges if event.text.startswith("pfn ")]
    shared = [event.field("pfn") for event in merges if event.text.startswith("ksm pfn ")]
    assert len(new) == len(set(new)) == PAGES
    assert sorted(shared) == sorted(new * 2)
    assert len({event.field("rmap_item") for event in merges}) == 3 * PAGES
    zero = [event for event in of(events, "merge_one_page") if event.merged]
    assert len(zero) == len({event.field("rmap_item") for event in zero}) == ZEROS
    assert len({event.field("pfn") for event in zero}) == 1
    assert {event.field("mm") for event in zero} == {mms[1]}

    merger["run"] = UNMERGE
    events = tracer.take()
    assert {event.name for event in events} == {"ksm_remove_ksm_page", "ksm_remove_rmap_item"}
    assert sorted(event.field("pfn") for event in of(events, "remove_ksm_page")) == sorted(new)
    # The last one that shares a page goes unmentioned.
    assert sorted(event.field("pfn") for event in of(events, "remove_rmap_item")) == sorted(new * 2)
    assert {event.field("mm") for event in of(events, "remove_rmap_item")} == {mms[0]}

    zeros.exit()
    assert [(event.name, event.field("mm")) for event in tracer.take()] == [("ksm_exit", mms[1])]
    sharing.exit()
    assert [(event.name, event.field("mm")) for event in tracer.take()] == [("ksm_exit", mms[0])]


def check_passes(events: list[Event]) -> None:
    """Passes begin and end in turn, and are numbered one after the other; the last one may be under way."""
    scans = [event for event in events if event.name in ("ksm_start_scan", "ksm_stop_scan")]
    assert [event.name for event in scans[:2]] == ["ksm_start_scan", "ksm_stop_scan"]
    numbers = [int(event.field("seq")) for event in scans]
    assert numbers == [numbers[0] + index // 2 for index in range(len(numbers))]
    assert [event.name for event in scans[::2]] == ["ksm_start_scan"] * len(scans[::2])
    last = [event for event in scans if event.name == "ksm_stop_scan"][-1]
    assert int(last.field("size")) >= 3 * PAGES


def test_advisor_is_traced_at_the_end_of_each_pass(merger: Merger, tracer: Tracer, work: MemWork) -> None:
    work.process().map(pages=4 * PAGES).fill(Kind.FILLED, KEY, step=1)
    merger["advisor_mode"] = "scan-time"
    try:
        tracer.take()
        merger["run"] = RUN
        merger.passes()
        merger["run"] = STOP
        events = [event for event in tracer.take() if event.name in ("ksm_advisor", "ksm_stop_scan")]
        advised = of(events, "advisor")
        assert [event.name for event in events] == ["ksm_advisor", "ksm_stop_scan"] * len(advised)
        assert len(advised) >= 3
        assert int(advised[-1].field("pages_to_scan")) == merger["pages_to_scan"]
        assert all(int(event.field("scan time")) >= 1 for event in advised)
        assert all(1 <= int(event.field("cpu percent")) <= 100 for event in advised)
    finally:
        merger["advisor_mode"] = "none"


def test_nothing_is_traced_that_nobody_asked_for(merger: Merger, tracer: Tracer, work: MemWork) -> None:
    tracer.set("events/ksm/enable", "0")
    tracer.set("events/ksm/ksm_remove_ksm_page/enable", "1")
    for _ in range(2):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    merger["run"] = UNMERGE
    events = tracer.take()
    assert [event.name for event in events] == ["ksm_remove_ksm_page"] * PAGES


def test_events_are_as_before_after_an_unload(
    merger: Merger, tracer: Tracer, guest: Guest, module: BuiltModule
) -> None:
    """Unloaded while they are switched on: no event stays behind that was not there before the load."""
    guest.rmmod("samepage")
    known = "ksm_enter" in guest.run(["cat", TRACING + "available_events"]).text
    assert known == (not module.release.startswith("6.1."))
    guest.insmod(module.ko)
    assert guest.run(["cat", TRACING + "available_events"]).text.count("ksm:") == len(EVENTS)
    tracer.set("events/ksm/enable", "1")
    assert merger["run"] == STOP
