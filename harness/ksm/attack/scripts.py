# SPDX-License-Identifier: MIT
"""What is done in the guest, as scripts for `attack direct` (images/guest/attack/director.c).

The attacker's roles are told which contents there are, which anybody knows. Which of them the victim has follows from
a number that the victim's role alone is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.ksm.attack.modes import Mode, Party
from harness.ksm.attack.sizes import EARLY, MAX_PAGE_SHARING, OBJECT_PAGES, Size
from harness.ksm.chance import Chance

AttackName = Literal["write", "covert", "secret", "unmap", "frame", "remote", "shared"]
_KSM = "/sys/kernel/mm/ksm/"
_TUNABLES = {"pages_to_scan": 100_000, "sleep_millisecs": 10, "max_page_sharing": 256, "use_zero_pages": 0}
_REST_MS = 1000
_EARLY_MS = 200
"""From pass to pass, where one is to end before the attacker looks and none to begin."""
_VICTIM_CPU, _ATTACKER_CPU = 0, 1
_FAR = 1 << 40
"""From one set of contents to the next."""

Lines = Iterator[str]


@dataclass(frozen=True)
class Plan:
    """An attack on a mode."""

    attack: AttackName
    mode: Mode
    size: Size
    seed: int

    @property
    def name(self) -> str:
        """Of a folder, for one."""
        return f"{self.attack}.{self.mode.name}"

    def script(self) -> str:
        """Return the lines that the guest carries out."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Lines:
        for path, _ in self.mode.settings:
            yield f"need {path}"
        yield f"set {_KSM}run 2"
        for name, number in _TUNABLES.items():
            yield f"prefer {_KSM}{name} {number}"
        yield f"prefer {_KSM}smart_scan 0"
        for path, value in self.mode.settings:
            yield f"set {path} {value}"
        yield from _SCRIPTS[self.attack](self, Chance(self.seed, "attack", self.attack))
        yield "end"

    def role(self, name: str, role: str, party: Party, cpu: int) -> str:
        """Return the line that starts a role."""
        return f"role {name} {party.uid} {party.cgroup} {role} {cpu}"

    def merge(self) -> Lines:
        """Yield the lines that have everything merged that may be, and leave the attacker the CPU from then on.

        Where there is one CPU, a merger that never rests hides more from an attacker than most machines' does.
        """
        yield f"set {_KSM}run 1"
        yield f"passes {self.size.passes}"
        yield f"set {_KSM}sleep_millisecs {_REST_MS}"
        yield "passes 0"  # the change wakes it once more


def _contents(chance: Chance) -> int:
    return chance.word() >> 2


def _held_and_planted(plan: Plan, chance: Chance, count: int, copies: int = 1) -> Lines:
    """Yield the lines after which the attacker's pages are of contents half of which the victim has."""
    key, secret = _contents(chance), chance.word()
    yield plan.role("victim", "hold", plan.mode.victim, _VICTIM_CPU)
    yield plan.role("attacker", "probe", plan.mode.attacker, _ATTACKER_CPU)
    yield f"tell victim hold {key} {count} {secret} 1"
    yield f"tell attacker plant {key} {count} {copies}"


def _write(plan: Plan, chance: Chance) -> Lines:
    yield from _held_and_planted(plan, chance, plan.size.writes)
    for name, stays in (("cloned", True), ("orphaned", False)):
        yield plan.role(name, "probe", plan.mode.attacker, _ATTACKER_CPU)
        yield f"tell {name} plant {_contents(chance)} {plan.size.forked} 1"
        yield f"tell {name} fork {stays:d}"
    yield from plan.merge()
    for name in ("attacker", "cloned", "orphaned"):
        yield f"tell {name} write {chance.word()}"
    for passes in EARLY:
        yield "end"
        yield f"set {_KSM}run 2"
        yield f"set {_KSM}sleep_millisecs {_EARLY_MS}"
        yield from _held_and_planted(plan, chance, plan.size.early)
        yield "mark"
        yield f"set {_KSM}run 1"
        yield f"reach {passes}"
        yield f"tell attacker write {chance.word()}"


def _shared(plan: Plan, chance: Chance) -> Lines:
    yield from _held_and_planted(plan, chance, plan.size.writes)
    yield from plan.merge()
    yield "shared both victim attacker"


def _covert(plan: Plan, chance: Chance) -> Lines:
    key = _contents(chance)
    yield plan.role("sender", "transmit", plan.mode.victim, _VICTIM_CPU)
    yield plan.role("receiver", "transmit", plan.mode.attacker, _ATTACKER_CPU)
    yield f"set {_KSM}sleep_millisecs 1"
    yield f"set {_KSM}run 1"
    for number, channel in enumerate(plan.size.channels):
        agreed = f"{key + number * _FAR} {channel.slot_ms * 1000} {channel.pages} {channel.slots} @"
        yield "clock 100"
        yield f"begin sender send {agreed} {chance.word()}"
        yield f"begin receiver receive {agreed}"
        yield "finish sender"
        yield "finish receiver"


def _secret(plan: Plan, chance: Chance) -> Lines:
    size = plan.size
    yield plan.role("service", "provide", plan.mode.victim, _VICTIM_CPU)
    yield plan.role("attacker", "steal", plan.mode.attacker, _ATTACKER_CPU)
    yield f"tell service listen {size.secret_bytes * size.repeats} {chance.word()} {size.secret_bytes}"
    yield f"set {_KSM}run 1"
    yield f"tell attacker steal {_contents(chance)} {size.secret_bytes} {size.repeats} {size.passes} {chance.word()}"


def _unmap(plan: Plan, chance: Chance) -> Lines:
    """As many copies as share a frame at most: with the victim's there is one more. They are dropped, then written."""
    yield f"set {_KSM}max_page_sharing {MAX_PAGE_SHARING}"
    for way in ("unmap", "write_copies"):
        yield f"set {_KSM}run 2"
        yield f"set {_KSM}sleep_millisecs {_TUNABLES['sleep_millisecs']}"
        yield from _held_and_planted(plan, chance, plan.size.edge, MAX_PAGE_SHARING)
        yield from plan.merge()
        yield f"tell attacker {way} {chance.word()}"
        yield "end"


def _frame(plan: Plan, chance: Chance) -> Lines:
    """Make two tries, each with contents of its own: the attacker comes after the victim, and before it."""
    parties = {
        "victim": ("hold", plan.mode.victim, _VICTIM_CPU),
        "attacker": ("probe", plan.mode.attacker, _ATTACKER_CPU),
    }
    for order in (("victim", "attacker"), ("attacker", "victim")):
        key = _contents(chance)
        yield f"set {_KSM}run 2"
        yield f"set {_KSM}sleep_millisecs {_TUNABLES['sleep_millisecs']}"
        for name in order:
            role, party, cpu = parties[name]
            yield plan.role(name, role, party, cpu)
            yield f"tell {name} {'hold_all' if name == 'victim' else 'plant'} {key} {plan.size.frames} 1"
        yield "remember attacker"
        yield from plan.merge()
        yield "landed landed attacker victim"
        yield "end"


def _remote(plan: Plan, chance: Chance) -> Lines:
    """The service keeps the attacker's pages: it is the service's domain that the victim's must be apart from."""
    key, secret, count = _contents(chance), chance.word(), plan.size.requests
    yield plan.role("victim", "hold", plan.mode.victim, _VICTIM_CPU)
    yield plan.role("service", "provide", plan.mode.attacker, _ATTACKER_CPU)
    yield plan.role("attacker", "remote", Party(1003), _ATTACKER_CPU)  # waking another CPU takes far longer than a copy
    yield f"tell victim hold {key} {count} {secret} {OBJECT_PAGES}"
    yield f"tell service listen {count * OBJECT_PAGES} 0 0"
    yield f"tell attacker store {key} {count} {OBJECT_PAGES}"
    yield from plan.merge()
    yield f"tell attacker touch {chance.word()}"


_SCRIPTS: Mapping[AttackName, Callable[[Plan, Chance], Lines]] = {
    "write": _write,
    "covert": _covert,
    "secret": _secret,
    "unmap": _unmap,
    "frame": _frame,
    "remote": _remote,
    "shared": _shared,
}
