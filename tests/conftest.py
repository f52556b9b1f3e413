# SPDX-License-Identifier: MIT
"""What every guest of a test ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.guest.guest import Guest

_MODULE = "samepage"


def pytest_guest_end(guest: Guest) -> None:
    """On a debug kernel nothing of the module's is left once it went."""
    from harness.guest.leaks import check_left_behind, knows_leaks

    if _MODULE in guest.inserted and knows_leaks(guest):
        check_left_behind(guest, _MODULE)
