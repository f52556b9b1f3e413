# SPDX-License-Identifier: MIT
"""Modes of merging that attacks are made on, and who attacker and victim are in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.ksm.result import Merger

ModeName = Literal["in-tree", "none", "user", "cgroup", "timing-safe"]
Protection = Literal["open", "apart", "timing-safe"]
"""What a mode promises: nothing, that the parties' domains differ, or that time tells nothing within a domain."""

_SAMEPAGE = "/sys/kernel/mm/samepage/"


@dataclass(frozen=True)
class Party:
    """Whom a process belongs to."""

    uid: int
    cgroup: str = "-"
    """Below the root; `-` is the root itself."""


@dataclass(frozen=True)
class Mode:
    """A way of merging."""

    name: ModeName
    merger: Merger
    protection: Protection
    settings: tuple[tuple[str, str], ...]
    """Files and what is written to them, in order."""
    victim: Party
    attacker: Party
    title: str


_ONE, _OTHER = Party(1001), Party(1002)
MODES: dict[ModeName, Mode] = {
    mode.name: mode
    for mode in (
        Mode("in-tree", "in-tree", "open", (), _ONE, _OTHER, "the kernel's own, two users"),
        Mode("none", "samepage", "open", ((_SAMEPAGE + "domain_by", "none"),), _ONE, _OTHER, "one domain, two users"),
        Mode("user", "samepage", "apart", ((_SAMEPAGE + "domain_by", "user"),), _ONE, _OTHER, "two users"),
        Mode(
            "cgroup",
            "samepage",
            "apart",
            ((_SAMEPAGE + "domain_by", "cgroup"),),
            Party(1001, "victim"),
            Party(1001, "attacker"),
            "one user, two cgroups",
        ),
        Mode(
            "timing-safe",
            "samepage",
            "timing-safe",
            ((_SAMEPAGE + "domain_by", "user"), (_SAMEPAGE + "timing_safe", "1")),
            _ONE,
            _ONE,
            "one user, timing-safe",
        ),
    )
}
