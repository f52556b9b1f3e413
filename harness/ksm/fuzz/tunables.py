# SPDX-License-Identifier: MIT
"""What the step `tune` writes to, and what each file holds at the begin of a script."""

from __future__ import annotations

import errno
import posixpath

from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.ksm.counters import KSM

CHECK_PASSES = "/sys/module/samepage/parameters/check_passes"
TUNABLES: tuple[tuple[str, tuple[int | str, ...]], ...] = (
    ("pages_to_scan", (100, 1000, 100000)),
    ("sleep_millisecs", (1, 2, 20)),
    ("use_zero_pages", (0, 1, 1)),
    ("smart_scan", (0, 1, 1)),
    ("max_page_sharing", (2, 4, 256)),
    ("stable_node_chains_prune_millisecs", (0, 10, 2000)),
    ("merge_across_nodes", (0, 1, 1)),
    ("../samepage/huge_min_twins", (1, 64, 513)),
    ("../samepage/threads", (1, 2, 4)),
    ("../samepage/reserve_percent", (0, 30, 100)),
    ("../samepage/timing_safe", (0, 1, 1)),
    ("../samepage/domain_by", ("none", "user", "cgroup")),
    ("../samepage/domain_by", ("explicit", "explicit", "user")),
    ("../samepage/domain_cgroup_level", (0, 1, 2)),
    ("advisor_mode", ("none", "scan-time", "scan-time")),
    ("advisor_max_cpu", (10, 70, 100)),
    ("advisor_min_pages_to_scan", (100, 500, 5000)),
    ("advisor_max_pages_to_scan", (1000, 30000, 100000)),
    ("advisor_target_scan_time", (1, 2, 200)),
    ("../samepage/convergence_seconds", (0, 1, 30)),
    ("../samepage/convergence_max_cpu", (20, 50, 100)),
    (CHECK_PASSES, ("N", "Y", "N")),
)
"""Files, from /sys/kernel/mm/ksm on, with the values to choose from: none with which passes take minutes."""
WITH_STEPS = {KSM + "run"}
"""What is writable and has a step of its own."""

# In this order: who sets pages_to_scan lets nobody else, and what is merged keeps its limits.
_AT_BEGIN: tuple[tuple[str, int | str], ...] = (
    ("../samepage/convergence_seconds", 0),
    ("../samepage/convergence_max_cpu", 20),
    ("advisor_mode", "none"),
    ("advisor_max_cpu", 70),
    ("advisor_min_pages_to_scan", 500),
    ("advisor_max_pages_to_scan", 30000),
    ("advisor_target_scan_time", 200),
    (CHECK_PASSES, "N"),
    ("pages_to_scan", 100000),
    ("sleep_millisecs", 1),
    ("use_zero_pages", 0),
    ("smart_scan", 0),
    ("max_page_sharing", 256),
    ("stable_node_chains_prune_millisecs", 2000),
    ("merge_across_nodes", 1),
    ("../samepage/huge_min_twins", 64),
    ("../samepage/threads", 1),
    ("../samepage/reserve_percent", 0),
    ("../samepage/timing_safe", 0),
    ("../samepage/domain_cgroup_level", 0),
    ("../samepage/domain_by", "user"),
)
# By a file's name: what keys mean cannot change while pages are merged, and the advisor and the governor set rates.
_REFUSALS = {"max_page_sharing": errno.EBUSY, "merge_across_nodes": errno.EBUSY, "pages_to_scan": errno.EINVAL}


def path_of(name: str) -> str:
    """Return the file's path."""
    return posixpath.normpath(posixpath.join(KSM, name))


def tune(guest: Guest, file: int, value: int) -> bool:
    """Write a value; return whether the module took it. Raises GuestFileError for a refusal that is none of those."""
    name, values = TUNABLES[file]
    try:
        guest.write(path_of(name), str(values[value]))
    except GuestFileError as error:
        if error.errno != _REFUSALS.get(name):
            raise
        return False
    return True


def reset(guest: Guest, timeout: float) -> None:
    """Unmerge everything within `timeout` seconds, set all as at the begin of a script, and let scanning go on."""
    guest.write(KSM + "run", "2", timeout=timeout)
    for name, value in _AT_BEGIN:
        guest.write(path_of(name), str(value))
    guest.write(KSM + "run", "1")
