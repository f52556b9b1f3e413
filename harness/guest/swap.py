# SPDX-License-Identifier: MIT
"""Swap on compressed memory in a guest (zram)."""

from __future__ import annotations

from harness.guest.guest import Guest

ZRAM = "/dev/zram0"
_TIMEOUT = 180.0
"""Seconds: what is out must come in again."""


def make_zram(guest: Guest, mib: int = 256) -> None:
    """Make a swap device of `mib` MiB, which is not in use yet."""
    guest.run(["modprobe", "zram", "num_devices=1"])
    guest.write("/sys/block/zram0/disksize", str(mib << 20))
    guest.run(["mkswap", ZRAM])


def set_zram(guest: Guest, *, on: bool) -> None:
    """Begin or end swapping to it."""
    guest.run(["swapon" if on else "swapoff", ZRAM], timeout=_TIMEOUT)


def drop_zram(guest: Guest) -> None:
    """Give its memory back; it is not in use any more."""
    guest.write("/sys/block/zram0/reset", "1")
