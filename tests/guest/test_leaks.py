# SPDX-License-Identifier: MIT
"""Pages that outlive their process are seen, on any kernel; tests/debug has what only a debug kernel tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.guest.leaks import check_pages_of_nobody
from harness.module.build import build_module

SPLAT = Path(__file__).parent / "modules/splat"
PROVOKE = "/sys/kernel/debug/splat/provoke"


@pytest.mark.splats_allowed
def test_a_reference_too_many_of_somebodys_page_is_seen(config: Config, fresh_guest: Guest) -> None:
    fresh_guest.insmod(build_module(config, SPLAT, config.kernel).ko)
    check_pages_of_nobody(fresh_guest)
    fresh_guest.run(["sh", "-c", f"echo somebodys_page > {PROVOKE}"])
    with pytest.raises(CheckFailed, match=r"1 anonymous page that no process maps: frame [0-9a-f]+$"):
        check_pages_of_nobody(fresh_guest)
