# SPDX-License-Identifier: MIT
"""The log gate, with a guest that is a list of lines."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from harness.guest.errors import KernelLogUnreadable, KernelSplat, SplatMissing
from harness.guest.loggate import LogGate
from tests.unit.test_splats import read

TIME = "[    5.000000] "
FACTOR = 0.02  # of the gate's time limits: 30 s become 0.6


class FakeGuest:
    """Puts what it is told to say, and every mark, on its console."""

    def __init__(self) -> None:
        self.says: list[str] = []
        self.says_later: list[str] = []
        self.answers = True
        self.shows_marks = True
        self.marks: list[str] = []
        self.gate = LogGate(self.mark, timeout_factor=FACTOR)

    def mark(self, line: str, timeout: float) -> bool:
        self.gate.feed(self.says)
        self.says, self.says_later = self.says_later, []
        self.marks.append(line)
        if self.shows_marks:
            self.gate.feed([TIME + line.removeprefix("<6>").rstrip("\n")])
        return self.answers


def lines(texts: Iterable[str]) -> list[str]:
    return [TIME + text for text in texts]


@pytest.fixture
def fake() -> FakeGuest:
    return FakeGuest()


def test_a_silent_command_passes(fake: FakeGuest) -> None:
    fake.says = lines(["nothing special"])
    fake.gate.check("true")
    assert fake.gate.splats == []
    # The kernel keeps a record without a newline to itself.
    assert fake.marks[0].endswith("true\n")


def test_the_command_that_caused_it_fails_and_names_the_lines(fake: FakeGuest) -> None:
    fake.gate.check("before")
    fake.says = read("warn")
    with pytest.raises(KernelSplat) as caught:
        fake.gate.check("culprit")
    assert str(caught.value).startswith("culprit: the kernel reported WARNING:")
    assert "provoke_warn+0x15/0x20" in str(caught.value)
    assert "---[ end trace" in str(caught.value)
    fake.gate.check("after")
    assert [(splat.command, splat.expected) for splat in fake.gate.splats] == [("culprit", False)]


def test_others_that_ran_are_named(fake: FakeGuest) -> None:
    for command in ("one", "two", "three"):
        fake.gate.begin(command)
    fake.gate.check("three")
    fake.says = read("warn")
    with pytest.raises(KernelSplat, match="Running at the same time: two"):
        fake.gate.check("one")


def test_an_expected_complaint_passes(fake: FakeGuest) -> None:
    fake.says = read("warn")
    with fake.gate.expect("provoke_warn") as expectation:
        fake.gate.check("culprit")
    assert [splat.kind for splat in expectation.seen] == ["WARNING"]
    assert [splat.expected for splat in fake.gate.splats] == [True]
    fake.says = read("warn")
    with pytest.raises(KernelSplat):
        fake.gate.check("once more, outside of the block")


def test_another_complaint_than_expected_fails(fake: FakeGuest) -> None:
    fake.says = [*read("warn"), *read("bad-page")]
    with pytest.raises(KernelSplat, match="bad page") as caught, fake.gate.expect("provoke_warn"):
        fake.gate.check("culprit")
    assert [splat.kind for splat in caught.value.splats] == ["bad page"]


def test_an_expected_complaint_that_does_not_come_fails(fake: FakeGuest) -> None:
    with pytest.raises(SplatMissing, match="provoke_warn"), fake.gate.expect("provoke_warn"):
        fake.gate.check("innocent")


def test_a_report_that_goes_on_after_the_mark_is_read_to_its_end(fake: FakeGuest) -> None:
    report = read("warn")
    fake.says, fake.says_later = report[:10], report[10:]
    with pytest.raises(KernelSplat) as caught:
        fake.gate.check("culprit")
    assert len(caught.value.splats) == 1
    assert "---[ end trace" in caught.value.splats[0].lines[-1]


def test_a_mark_that_does_not_arrive_fails(fake: FakeGuest) -> None:
    fake.shows_marks = False
    with pytest.raises(KernelLogUnreadable, match="did not come over the serial console"):
        fake.gate.check("true")


def test_a_guest_that_does_not_answer_fails(fake: FakeGuest) -> None:
    fake.answers = fake.shows_marks = False
    with pytest.raises(KernelLogUnreadable, match="did not write a mark"):
        fake.gate.check("true")


def test_a_console_that_is_gone_fails_at_once(fake: FakeGuest) -> None:
    fake.shows_marks = False
    fake.gate.end()
    with pytest.raises(KernelLogUnreadable, match="it is gone"):
        fake.gate.check("true")


def test_a_mark_of_somebody_else_does_not_count(fake: FakeGuest) -> None:
    other = FakeGuest()
    other.gate.check("elsewhere")
    fake.shows_marks = False
    fake.says = [TIME + other.marks[0].removeprefix("<6>")]
    with pytest.raises(KernelLogUnreadable):
        fake.gate.check("true")


def test_dropped_messages_fail(fake: FakeGuest) -> None:
    fake.says = lines(["** 12 printk messages dropped **"])
    with pytest.raises(KernelLogUnreadable, match="lost messages"):
        fake.gate.check("true")


def test_a_dead_guests_last_words_are_judged(fake: FakeGuest) -> None:
    fake.gate.feed(read("panic"))
    assert [splat.kind for splat in fake.gate.drain("culprit")] == ["panic"]
    assert fake.gate.splats[0].command == "culprit"


def test_the_gate_can_make_another_error(fake: FakeGuest) -> None:
    gate = LogGate(lambda line, timeout: False, lambda command, why: RuntimeError(f"{command} / {why}"), FACTOR)
    with pytest.raises(RuntimeError, match="true / the guest did not write"):
        gate.check("true")


def test_many_commands_at_once(fake: FakeGuest) -> None:
    errors: list[BaseException] = []

    def check(number: int) -> None:
        try:
            for _ in range(20):
                fake.gate.check(f"command {number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=check, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert len(fake.marks) == 160
