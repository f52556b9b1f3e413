# SPDX-License-Identifier: MIT
"""Nothing of the module's is left after it merged, lost pages to every kind of event, and went."""

from __future__ import annotations

import pytest

from harness.guest.guest import Guest
from harness.guest.leaks import check_leaks, check_pages_of_unloaded, forget_leaks
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.control import Merger

PAGES = 3000
KEY = 91 << 40

pytestmark = pytest.mark.usefixtures("watches_memory")


def test_nothing_is_left_after_unloading(fresh_guest: Guest, module: BuiltModule) -> None:
    guest = fresh_guest
    forget_leaks(guest)
    for _ in range(3):
        guest.insmod(module.ko)
        merger = Merger(guest)
        merger.reset()
        with MemWork(guest) as work:
            for number in range(3):
                area = work.process().map(pages=PAGES)
                area.fill(Kind.FILLED, KEY, step=1, pages=range(PAGES // 2))
                area.fill(Kind.FILLED, KEY + number * PAGES, step=1, pages=range(PAGES // 2, PAGES))
            merger.merge(work)
            work.areas[0].poke_each([(page, 0, page) for page in range(0, PAGES, 3)])
            work.processes[1].fork()
            merger.passes()
            work.processes[2].exit()
            merger.check()
            guest.rmmod(module.name)
            work.check()
    check_pages_of_unloaded(guest)
    check_leaks(guest)
