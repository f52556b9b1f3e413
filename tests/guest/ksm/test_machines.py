# SPDX-License-Identifier: MIT
"""`samepage run vms`: KVM virtual machines inside of the guest, merged while they run, and right to the end."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from harness.config import Config
from harness.guest.guest import Guest
from harness.guest.spec import GuestSpec
from harness.image import ensure_image
from harness.image.nested import INITRAMFS, SERIAL, ensure_nested_disk
from harness.ksm import machine, workload
from harness.ksm.content import Digester
from harness.ksm.display import Display
from harness.ksm.machine import Machine, MachineDied, WrongContent
from harness.ksm.machinedata import MachineData, file_digest
from harness.ksm.protocol import PAGE_BYTES
from harness.ksm.result import read
from harness.ksm.runner import Job, prepare, run

pytestmark = pytest.mark.usefixtures("stock_kernel")


def small(count: int) -> workload.Machines:
    shipped = workload.load("vms")
    assert isinstance(shipped, workload.Machines)
    # 24 MiB of data; Linux 7.3 runs out of memory where it has less beside them.
    return msgspec.structs.replace(shipped, count=count, memory_mib=112, kernel_mib=81, files_mib=2)


@pytest.mark.timeout(900)
def test_two_machines_are_merged_and_stay_right(config: Config, tmp_path: Path) -> None:
    job = Job("test", "vms", small(2), "samepage", 3, config.kernel, None, tmp_path)
    material = prepare(config, config.kernel, ["samepage"], machines=True)
    outcome = run(config, job, material, Display("vms, samepage"))
    assert outcome.status == "pass", outcome.error
    assert read(tmp_path / "result.json") == outcome
    found = outcome.machines
    assert found is not None
    assert found.started == found.asked == found.unmerged_alive == 2
    assert found.stopped is None
    merged, final, handed_back = (outcome.stage(name) for name in ("merged", "final", "handed back"))
    assert merged is not None
    assert final is not None
    assert handed_back is not None
    # Of 6144 pages of data each has 3072 like the other, and 1536 zero ones, of which 256 share a page; the first
    # machine then overwrote 384 of those alike. Their kernels are merged on top of it.
    assert merged.pages_merged > 3072 + 2 * 1536 - 12
    assert final.pages_merged > found.data_pages_expected == 3072 - 384 + 2 * 1536 - 12
    assert handed_back.counters["pages_sharing"] == 0
    # Parts of huge pages that are in use, or have few twins, are left unmerged.
    assert found.copies_broken > found.pages_changed * 3 // 4 > 0
    assert sum(stage.content_errors for stage in outcome.stages) == 0


@pytest.mark.timeout(600)
def test_wrong_data_and_a_death_are_found_and_named(config: Config, tmp_path: Path) -> None:
    image = ensure_image(config, config.kernel)
    disk = ensure_nested_disk(config, image)
    digester = Digester(77)
    data = MachineData(small(1), 5, 0)
    with Guest.start(config, image, GuestSpec(disks=((SERIAL, disk.disk),)), tmp_path) as guest:
        one = Machine(guest, disk, machine.prepare(guest), 0, 112)
        # Else its end may lie on the machine's ACPI tables, and what becomes of the machine is luck.
        size = int(guest.run(["stat", "-c", "%s", f"{machine.MOUNT}/{INITRAMFS}"]).text)
        assert size % PAGE_BYTES == 0
        one.ready()
        # On the first one QEMU 10.0.13 loses track of whether a machine runs (docs/vms.md).
        cpus = [line for line in guest.read(f"/proc/{one.pid}/status").splitlines() if "Cpus_allowed_list" in line]
        assert cpus == ["Cpus_allowed_list:\t1"]
        one.fill(data)
        one.check_data(data, digester)
        data.change(1)
        with pytest.raises(WrongContent, match=r"of its \d+ pages of data these \(at least\) are wrong: 0, 1, 2, 3"):
            one.check_data(data, digester)
        path = disk.firmware[0] + "/pvh.bin"
        expected, _ = file_digest(digester, disk.tree / path)
        one.check_file(path, expected, digester)
        with pytest.raises(WrongContent, match="with another content"):
            one.check_file(path, expected ^ 1, digester)
        one.end()
        # It ends by a triple fault, and so does one that ought not to.
        with pytest.raises(MachineDied) as died:
            one.check_data(data, digester)
    assert "ended (exit code 0)" in str(died.value)
    assert f"\n@ok {expected:x}" in str(died.value)
    assert re.search(r"reason shutdown rip .*\nrip is in native_machine_emergency_restart", str(died.value))
