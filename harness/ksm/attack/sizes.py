# SPDX-License-Identifier: MIT
"""How much of each attack a run makes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Channel:
    """A way to use a covert channel."""

    slot_ms: int
    pages: int
    """Bits in each slot."""
    slots: int
    """With a message; one that both know comes before."""

    @property
    def bits(self) -> int:
        """Length of the message."""
        return self.pages * self.slots

    @property
    def seconds(self) -> float:
        """How long the message takes, with the slot before it."""
        return (self.slots + 1) * self.slot_ms / 1000

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.pages} pages, slots of {self.slot_ms} ms"


@dataclass(frozen=True)
class Size:
    """Of everything in a run."""

    writes: int
    """Timed writes of the disclosure, half of them to contents that the victim has."""
    early: int
    """Timed writes after each of EARLY passes."""
    forked: int
    """Timed writes to pages that fork has write-protected."""
    channels: tuple[Channel, ...]
    secret_bytes: int
    repeats: int
    """Fillers for each byte of the secret."""
    edge: int
    """Contents whose copies are unmapped, half of which the victim has."""
    frames: int
    """Pages that the attacker plants to see where the victim's content lies in the end."""
    requests: int
    """Timed answers of the service, half of them about objects that the victim has."""
    memory_mib: int
    passes: int = 8
    """Of the merger, after which what may be merged is."""


SIZES = {
    "smallest": Size(
        writes=600,
        early=200,
        forked=200,
        channels=(Channel(200, 200, 3),),
        secret_bytes=2,
        repeats=1,
        edge=60,
        frames=200,
        requests=200,
        memory_mib=256,
    ),
    "short": Size(
        writes=2000,
        early=800,
        forked=500,
        channels=(Channel(100, 400, 4), Channel(50, 400, 4)),
        secret_bytes=8,
        repeats=3,
        edge=400,
        frames=1000,
        requests=600,
        memory_mib=384,
    ),
    "long": Size(
        writes=40_000,
        early=10_000,
        forked=4000,
        channels=tuple(
            Channel(slot, pages, max(4000 // pages, 2)) for slot in (25, 50, 100, 200) for pages in (100, 400, 1600)
        ),
        secret_bytes=16,
        repeats=5,
        edge=4000,
        frames=20_000,
        requests=10_000,
        memory_mib=768,
    ),
}
EARLY = (1, 2, 3, 4)
"""Passes of the merger after which an attacker looks who does not wait until all is settled: what has a twin might be
merged in another pass than what has none."""
MAX_PAGE_SHARING = 8
"""In the attack at its edge; what the kernel has by default only needs more of the attacker's memory."""
OBJECT_PAGES = 4
"""In an object that a remote attacker asks about: a file that everybody knows, say. One request changes all of them."""
