# SPDX-License-Identifier: MIT
"""Kernels that take signed modules only refuse ours without a trace; locked down later, what is loaded works on."""

from __future__ import annotations

import pytest

from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.control import Merger

pytestmark = pytest.mark.usefixtures("stock_kernel")

PAGES = 300
KEY = 43 << 40
LOCKDOWN = "/sys/kernel/security/lockdown"


def refused(guest: Guest, module: BuiltModule, errno_text: str, message: str) -> None:
    """Loading fails with that errno, and there is nothing of it but a line in the kernel's log."""
    modules, files = (
        guest.read("/proc/modules"),
        guest.run(["ls", "-R", "/sys/kernel/mm", "/sys/kernel/livepatch"]).text,
    )
    guest.run(["sleep", "6"])  # notices of lockdown are limited to ten in 5 s, and a boot has some
    with pytest.raises(CheckFailed, match=errno_text):
        guest.insmod(module.ko)
    assert message in guest.run(["dmesg"]).text
    assert guest.read("/proc/modules") == modules
    assert guest.run(["ls", "-R", "/sys/kernel/mm", "/sys/kernel/livepatch"]).text == files


def in_tree_merges(guest: Guest) -> None:
    with MemWork(guest) as work:
        Merger(guest).merges_all(work, KEY, PAGES)


@pytest.mark.parametrize(
    ("errno_text", "message"),
    [
        pytest.param(
            "Operation not permitted",
            "Lockdown: insmod: unsigned module loading is restricted",
            marks=pytest.mark.guest(append=("lockdown=integrity",)),
            id="integrity",
        ),
        pytest.param(
            "Operation not permitted",
            "Lockdown: insmod: unsigned module loading is restricted",
            marks=pytest.mark.guest(append=("lockdown=confidentiality",)),
            id="confidentiality",
        ),
        pytest.param(
            "Key was rejected by service",
            "Loading of unsigned module is rejected",
            marks=pytest.mark.guest(append=("module.sig_enforce=1",)),
            id="sig_enforce",
        ),
    ],
)
def test_refused_where_modules_must_be_signed(guest: Guest, module: BuiltModule, errno_text: str, message: str) -> None:
    refused(guest, module, errno_text, message)
    in_tree_merges(guest)
    refused(guest, module, errno_text, message)


@pytest.mark.guest(memory_mib=768)  # nothing unlocks it again: a guest of its own
def test_locked_down_while_loaded(merger: Merger, guest: Guest, module: BuiltModule, work: MemWork) -> None:
    guest.run(["sh", "-c", f"[ -e {LOCKDOWN} ] || mount -t securityfs none /sys/kernel/security"])
    guest.write(LOCKDOWN, "confidentiality")
    for _ in range(2):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merger.merge(work)
    assert merger.counts() == (PAGES, PAGES, 0)
    guest.rmmod("samepage")
    work.check()
    refused(guest, module, "Operation not permitted", "Lockdown: insmod: unsigned module loading is restricted")
    for process in list(work.processes):
        process.exit()
    in_tree_merges(guest)
