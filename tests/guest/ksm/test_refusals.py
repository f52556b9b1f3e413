# SPDX-License-Identifier: MIT
"""Where the module cannot run it says why, gives an errno, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.changed import changed
from tests.guest.ksm.control import RUN, STOP, UNMERGE, Merger

MANY = 5000  # more than a process at its limit can find by giving up something else
KEY = 13 << 40
CGROUP = "/sys/fs/cgroup/small"


@pytest.fixture
def in_tree(merger: Merger, guest: Guest, module: BuiltModule) -> Iterator[Merger]:
    """The kernel's own merger in force; the module is loaded again afterwards."""
    guest.rmmod("samepage")
    merger.hurry()
    yield merger
    merger["run"] = UNMERGE
    merger["run"] = STOP
    guest.insmod(module.ko)


def refused(guest: Guest, module: BuiltModule, errno_text: str, *messages: str) -> None:
    """Loading fails with that errno, and the kernel's log says all of `messages`."""
    with pytest.raises(CheckFailed) as failure:
        guest.insmod(module.ko)
    assert errno_text in str(failure.value)
    log = guest.run(["dmesg"]).text
    assert all(message in log for message in messages), log[-2000:]
    assert guest.run(["ls", "/sys/kernel/mm"]).text.split().count("samepage") == 0


def test_kernel_outside_the_range(config: Config, in_tree: Merger, guest: Guest, work: MemWork, tmp_path: Path) -> None:
    module = changed(config, tmp_path, "compat/version.c", "KERNEL_VERSION(7, 4, 0)", "KERNEL_VERSION(6, 1, 0)")
    refused(guest, module, "Operation not supported", "samepage: built for Linux", "supported are 6.1 up to below 6.1")
    in_tree.merges_all(work, KEY)


def test_missing_symbol(config: Config, in_tree: Merger, guest: Guest, work: MemWork, tmp_path: Path) -> None:
    module = changed(config, tmp_path, "compat/symbols.c", 'sp_lookup("ksm_attr_group")', 'sp_lookup("ksm_not_there")')
    refused(guest, module, "Unknown symbol", "samepage: this kernel has no symbol ksm_not_there")
    in_tree.merges_all(work, KEY)


def test_in_tree_pages_that_cannot_be_unmerged(
    in_tree: Merger, guest: Guest, module: BuiltModule, work: MemWork
) -> None:
    """A process at its memory limit that must not be killed: copies of its merged pages find no memory."""
    guest.write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    guest.run(["mkdir", CGROUP])
    first, limited = work.process(), work.process()
    guest.write(f"{CGROUP}/cgroup.procs", str(limited.pid))
    guest.write(f"/proc/{limited.pid}/oom_score_adj", "-1000")
    first.map(pages=MANY).fill(Kind.FILLED, KEY, step=1)
    in_tree["run"] = RUN
    in_tree.passes(2)
    limited.map(pages=MANY).fill(Kind.FILLED, KEY, step=1)
    in_tree.passes(4)
    assert in_tree.counts()[:2] == (MANY, MANY)
    guest.write(f"{CGROUP}/memory.max", guest.read(f"{CGROUP}/memory.current"))
    with guest.log.expect("invoked oom-killer"):
        refused(guest, module, "Cannot allocate memory", "in-tree KSM cannot unmerge all its pages")
    assert in_tree["run"] == RUN, "in-tree KSM goes on"
    guest.write(f"{CGROUP}/memory.max", "max")
    work.check()
    guest.insmod(module.ko)
    work.check()
    guest.rmmod("samepage")
    limited.exit()
    guest.run(["rmdir", CGROUP])
