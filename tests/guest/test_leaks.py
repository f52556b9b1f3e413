# SPDX-License-Identifier: MIT
"""Pages that outlive their process are seen, on any kernel; tests/debug has what only a debug kernel tells."""

from __future__ import annotations

import numpy as np
import pytest

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.guest.leaks import check_pages_of_nobody
from harness.ksm.content import Kind
from harness.ksm.memwork import work_in
from harness.module.build import build_module
from tests.guest.ksm.test_parity_memory import poison, prepare_poison
from tests.guest.ksm.test_reclaim import page_frames
from tests.guest.splat import PROVOKE, SPLAT


@pytest.mark.splats_allowed
def test_a_reference_too_many_of_somebodys_page_is_seen(config: Config, fresh_guest: Guest) -> None:
    fresh_guest.insmod(build_module(config, SPLAT, config.kernel).ko)
    check_pages_of_nobody(fresh_guest)
    fresh_guest.run(["sh", "-c", f"echo somebodys_page > {PROVOKE}"])
    with pytest.raises(CheckFailed, match=r"1 anonymous page that no process maps: frame [0-9a-f]+$"):
        check_pages_of_nobody(fresh_guest)


def test_a_frame_that_failed_is_kept_for_ever(fresh_guest: Guest) -> None:
    prepare_poison(fresh_guest, early=0)
    work = work_in(fresh_guest)
    area = work.process().map(pages=2, merge=False)
    area.fill(Kind.FILLED, 1, step=1)
    (frame, _) = page_frames(area)
    poison(fresh_guest, int(frame))
    work.close()
    (flags,) = np.frombuffer(fresh_guest.get("/proc/kpageflags", int(frame) * 8, 8), "<u8")
    assert {bit for bit in range(20) if int(flags) >> bit & 1} >= {12, 19}, "anonymous, and failed"
    check_pages_of_nobody(fresh_guest)
