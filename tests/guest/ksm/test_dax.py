# SPDX-License-Identifier: MIT
"""Mappings of a DAX file system, private ones included, are left alone; the same without DAX are merged."""

from __future__ import annotations

import pytest

from harness.guest.guest import Guest
from tests.guest.ksm.control import RUN, Merger

# 128 MiB of the guest's memory are persistent memory (drivers/nvdimm/e820.c).
pytestmark = pytest.mark.guest(memory_mib=1024, append=("memmap=128M!512M",))

PAGES = 64
DISK, MOUNTED = "/dev/pmem0", "/run/dax"
PROGRAM = f"""
import mmap, re, time

def passes():
    return int(open("/sys/kernel/mm/ksm/full_scans").read())

# Something mergeable, as the scanner rests where nothing is.
other = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
other[:] = b"o" * 4096
other.madvise(mmap.MADV_MERGEABLE)

file = open("{MOUNTED}/file", "r+b")
area = mmap.mmap(file.fileno(), {PAGES} * 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
area[:] = b"s" * len(area)
area.madvise(mmap.MADV_MERGEABLE)
(mapping,) = re.findall("{MOUNTED}/file.*?VmFlags:([^\\n]*)", open("/proc/self/smaps").read(), re.DOTALL)
goal, deadline = passes() + 6, time.monotonic() + 60
while passes() < goal:
    assert time.monotonic() < deadline, "the scanner makes no passes"
    time.sleep(0.05)
shared = [int(open("/sys/kernel/mm/ksm/" + name).read()) for name in ("pages_shared", "pages_sharing")]
assert area[:] == b"s" * len(area)
print("mg" in mapping.split(), *shared)
"""


@pytest.mark.parametrize(
    ("options", "outcome"),
    [("dax", "False 0 0"), ("dax=never", f"True 1 {PAGES - 1}")],
    ids=["dax", "page cache"],
)
def test_private_mapping_of_a_file(merger: Merger, guest: Guest, options: str, outcome: str) -> None:
    script = (
        f"modprobe nd_pmem && modprobe nd_e820 && for i in $(seq 100); do test -b {DISK} && break; sleep 0.1; done; "
        f"mkfs.ext4 -q -b 4096 {DISK} && mkdir -p {MOUNTED} && mount -t ext4 -o {options} {DISK} {MOUNTED} && "
        f"dd if=/dev/zero of={MOUNTED}/file bs=4096 count={PAGES} status=none"
    )
    guest.run(["sh", "-c", script], timeout=120)
    try:
        merger["run"] = RUN
        assert guest.run(["python3", "-c", PROGRAM], timeout=120).text.strip() == outcome
    finally:
        guest.run(["umount", MOUNTED])
