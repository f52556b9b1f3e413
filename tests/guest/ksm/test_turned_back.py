# SPDX-License-Identifier: MIT
"""A guest is saved at any moment of merging, goes on, and is set back to that moment: all is as it was then."""

from __future__ import annotations

import copy
import random
import time
from dataclasses import dataclass
from typing import cast

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.memwork import MemWork
from tests.guest.ksm.control import RUN, UNMERGE, Merger

PAGES = 1500
KEY = 43 << 40
STATE = "/tmp/state.qcow2"  # of QEMU's own: it sees no /tmp of the host
LATER = "/run/later"
JOB_SECONDS = 120

pytestmark = pytest.mark.guest(memory_mib=768, cpus=2)


@dataclass(frozen=True)
class Moments:
    """States of a guest in a file of its QEMU's."""

    guest: Guest

    def save(self, name: str) -> None:
        self._job("snapshot-save", tag=name, vmstate="state", devices=["state"])

    def set_back(self, name: str) -> None:
        """Set the guest back; QEMU stops it for that."""
        qmp = self.guest.qmp
        qmp.execute("stop")
        self._job("snapshot-load", tag=name, vmstate="state", devices=["state"])
        qmp.execute("cont")

    def create(self) -> None:
        qmp = self.guest.qmp
        # Set by who restored the guest; memory is to be in the state.
        qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": False}])
        self._job("blockdev-create", options={"driver": "file", "filename": STATE, "size": 0})
        qmp.execute("blockdev-add", driver="file", node_name="state-file", filename=STATE)
        self._job("blockdev-create", options={"driver": "qcow2", "file": "state-file", "size": 1 << 20})
        qmp.execute("blockdev-add", driver="qcow2", node_name="state", file="state-file")

    def _job(self, command: str, **arguments: object) -> None:
        """Let QEMU do something, to its end."""
        qmp = self.guest.qmp
        qmp.execute(command, JOB_SECONDS, job_id="moment", **arguments)
        deadline = time.monotonic() + JOB_SECONDS
        while (job := self._look())["status"] != "concluded":
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        qmp.execute("job-dismiss", id="moment")
        assert "error" not in job, job["error"]

    def _look(self) -> dict[str, str]:
        (job,) = cast(list[dict[str, str]], self.guest.qmp.execute("query-jobs"))
        return job


@pytest.fixture
def moments(guest: Guest) -> Moments:
    moments = Moments(guest)
    moments.create()
    return moments


def test_set_back_in_the_middle(merger: Merger, guest: Guest, work: MemWork, moments: Moments) -> None:
    chance = random.Random(7)
    for number in range(4):
        process = work.process()
        process.map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
        process.map(pages=PAGES).fill(Kind.FILLED, KEY * (number + 2), step=1)
    writer = work.process()
    written = writer.map(pages=PAGES)
    others = work.processes[:-1]
    for turn in range(5):
        written.rewrite(KEY + turn, per_second=2000)
        merger["run"] = UNMERGE
        merger["run"] = RUN
        time.sleep(chance.uniform(0, 0.5))
        moments.save(f"moment {turn}")
        models = [copy.deepcopy(area.model) for process in others for area in process.areas]
        guest.put(b"", LATER)
        for process in others:
            process.areas[0].poke_each([(page, 8, turn) for page in range(turn, PAGES, 3)])
        merger.passes(chance.randrange(1, 4))
        moments.set_back(f"moment {turn}")
        areas = [area for process in others for area in process.areas]
        for area, model in zip(areas, models, strict=True):
            area.model = model
        assert guest.read_files([LATER])[LATER] is None
        merger.check()
        writer.stop_rewriting()
        work.check()
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()
