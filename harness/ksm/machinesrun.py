# SPDX-License-Identifier: MIT
"""A run of virtual machines: how many the guest's memory holds while merging runs, and whether each stays right.

The machines run all the time: their kernels' own memory changes, so that what merging must save is known of data only.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import CheckFailed
from harness.image.nested import NestedDisk
from harness.ksm import merging
from harness.ksm.content import Digester
from harness.ksm.inguest import zeros
from harness.ksm.machine import Machine, MachineDied, WrongContent, prepare
from harness.ksm.machinedata import MachineData, file_digest, least_saved
from harness.ksm.protocol import PAGE_BYTES
from harness.ksm.result import MachineCount, MachinesFound, Result, checked, make_stage
from harness.ksm.series import Sample
from harness.ksm.session import Session
from harness.ksm.workload import QEMU_MIB, Machines

MARGIN_MIB = 192
"""Memory of the guest that is never given to machines."""
SAMPLE_SECONDS = 1.0
RESTLESS_PAGES = 128
"""Pages of each machine by which what is merged may go up and down while its kernel does this and that."""
ZEROS = "/run/zeros.py"
ZEROS_SECONDS = 600
"""To look through the page tables of dozens of machines under emulation."""
HOLES = "/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none"


class MachinesRun:
    """One workload of machines in one guest."""

    def __init__(self, session: Session, workload: Machines, result: Result, disk: NestedDisk) -> None:
        self._session = session
        self._guest = session.guest
        self._workload = workload
        self._result = result
        self._disk = disk
        self._digester = Digester(secrets.randbits(63))
        self._machines: list[Machine] = []
        self._data: list[MachineData] = []
        self._files = dict(self._choose_files())
        self._found = MachinesFound(
            asked=workload.count, memory_mib=workload.memory_mib, data_mib=workload.data_pages * PAGE_BYTES >> 20
        )
        result.machines = self._found
        session.series.processes = lambda: [machine.pid for machine in self._machines]

    def carry_out(self) -> None:
        """Do everything; raises CheckFailed for the first thing that is wrong."""
        session, result = self._session, self._result
        session.phase("merge", "starting machines")
        device = prepare(self._guest)
        # Khugepaged would fill what machines have never touched with zeros, for ever, and merging save these.
        self._guest.write(HOLES, "0")
        self._guest.put(Path(zeros.__file__).read_bytes(), ZEROS)
        session.series.take()
        merging.switch(self._guest, merging.RUN)
        self._start_all(device)
        session.phase("merge", "merging")
        self._settle_and_check("merged")
        counted = session.series.reader.of_processes(machine.pid for machine in self._machines)
        result.per_process = {machine.name: counted[machine.pid] for machine in self._machines}

        session.phase("cow", "machines overwrite data")
        self._change()
        self._check_stage("changed", session.series.take())

        session.phase("settle", "merging what is left")
        sample = self._settle_and_check("final")
        result.conclude_from(result.stages[-1])
        result.samepage = sample.counters.folder("samepage")
        self._hand_back()

    def _start_all(self, device: str) -> None:
        """Start machines one after another, until there are as many as asked for or memory is nearly full."""
        for number in range(self._workload.count):
            if not self._room(self._machine_mib):
                self._found.stopped = f"no memory for {self._machine_mib} MiB more, and merging freed no more"
                break
            self._session.observer.progress("machines", number, self._workload.count)
            with self._sampled():
                machine = Machine(self._guest, self._disk, device, number, self._workload.memory_mib)
                machine.ready()
                data = MachineData(self._workload, self._result.seed, number)
                machine.fill(data)
            self._machines.append(machine)
            self._data.append(data)
            self._count(self._session.series.take())
        if not self._machines:
            raise CheckFailed(f"the guest has no memory for a single machine of {self._workload.memory_mib} MiB")
        self._session.observer.progress("machines", len(self._machines), len(self._machines))
        self._check_mergeable()

    @property
    def _machine_mib(self) -> int:
        return self._workload.memory_mib + QEMU_MIB

    def _room(self, mib: int) -> bool:
        """Whether there is memory for so much more that is not merged; merging gets the time to make some."""
        wanted = (mib + MARGIN_MIB) << 10
        sample = self._session.series.take()
        most, scans = 0, sample.counters["ksm.full_scans"]
        while (available := sample.counters["meminfo.MemAvailable_kb"]) < wanted:
            if available > most + (RESTLESS_PAGES * PAGE_BYTES >> 10):
                most, scans = available, sample.counters["ksm.full_scans"]
            if sample.counters["ksm.full_scans"] - scans > self._workload.merging.idle_scans:
                return False
            sample = self._session.series.take_after(SAMPLE_SECONDS)
        return True

    def _count(self, sample: Sample) -> None:
        """Note what so many machines take."""
        counters = sample.counters
        self._found.started = len(self._machines)
        self._found.counts.append(
            MachineCount(
                machines=len(self._machines),
                seconds=sample.seconds,
                saved_bytes=counters.saved_pages * PAGE_BYTES,
                available_bytes=counters["meminfo.MemAvailable_kb"] << 10,
            )
        )

    def _check_mergeable(self) -> None:
        """See that QEMU has said MADV_MERGEABLE for its machine's memory: without it nothing would be shown."""
        smaps = self._guest.read_files(f"/proc/{machine.pid}/smaps" for machine in self._machines)
        for path, text in smaps.items():
            flags = [line.split() for line in (text or b"").decode().splitlines() if line.startswith("VmFlags:")]
            if not any("mg" in words for words in flags):
                raise CheckFailed("QEMU has no mergeable memory", where=path)

    def _change(self) -> None:
        """Let every second machine overwrite data, while there is memory for the copies, and count those."""
        before = self._session.series.take().counters
        written = 0
        asked = list(zip(self._machines, self._data, strict=True))[::2]
        for number, (machine, data) in enumerate(asked):
            if not self._room((data.change_pages * PAGE_BYTES >> 20) + 1):
                self._result.checks["machines that changed"] = f"{number} of {len(asked)}: no memory for more copies"
                break
            with self._sampled():
                runs = data.change(1)
                machine.write(runs)
            written += sum(run.count for run in runs)
        after = self._session.series.take().counters
        self._found.pages_changed = written
        self._found.copies_broken = after["vmstat.cow_ksm"] - before["vmstat.cow_ksm"]

    def _settle_and_check(self, name: str) -> Sample:
        slack = RESTLESS_PAGES * len(self._machines)
        sample = self._session.settle(self._workload.merging, lambda: None, slack=slack)
        self._check_stage(name, sample)
        self._check_saved(name, sample)
        self._found.available_bytes = sample.counters["meminfo.MemAvailable_kb"] << 10
        return sample

    def _check_saved(self, name: str, sample: Sample) -> None:
        """Compare what is saved with what the data alone must give: merged, or the zero page in a split huge page."""
        sharing = self._session.max_page_sharing
        least = least_saved(self._data, self._digester, max_page_sharing=sharing).saved
        self._found.data_pages_expected = least
        self._found.zero_pages = self._zero_pages()
        saved = sample.counters.saved_pages + self._found.zero_pages
        if saved >= least:
            return
        said = f"of {least} pages of data that can be saved only {saved} are"
        if self._result.merger == "samepage":
            raise CheckFailed(f"{name}: {said}")
        # What the kernel's own merger leaves undone is for the comparison, not a fault of this run.
        self._result.checks[f"data merged, {name}"] = said

    def _zero_pages(self) -> int:
        pids = [str(machine.pid) for machine in self._machines]
        with self._sampled():
            found: dict[str, int] = json.loads(self._guest.run(["python3", ZEROS, *pids], timeout=ZEROS_SECONDS).text)
        return sum(found.values())

    def _check_stage(self, name: str, sample: Sample) -> None:
        """Ask every machine for its data and for its files."""
        series = self._session.series
        stage = make_stage(
            name, sample.seconds, sample.counters, None, series.samples[0].counters, self._session.before_merging
        )
        pages, wrong = 0, []
        with self._sampled():
            for machine, data in zip(self._machines, self._data, strict=True):
                try:
                    machine.check_data(data, self._digester)
                    for path, (digest, _) in self._files.items():
                        machine.check_file(path, digest, self._digester)
                except (WrongContent, MachineDied) as error:
                    wrong.append(str(error))  # the others are asked nevertheless: what is wrong with them belongs to it
                pages += data.pages + sum(size for _, size in self._files.values())
        self._result.stages.append(checked(stage, pages, len(wrong)))
        if wrong:
            raise CheckFailed("\n".join([f"{name}:", *wrong]))
        self._guest.log.check(name)

    def _choose_files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield files of the disk with their digests and sizes in pages, from the packages that they are from."""
        left = self._workload.files_mib << 20
        for path in self._disk.files:
            size = (self._disk.tree / path).stat().st_size
            if 0 < size <= left:
                left -= size
                yield path, file_digest(self._digester, self._disk.tree / path)

    def _hand_back(self) -> None:
        """Unmerge everything under the machines that still run, once there are no more of them than fit unmerged."""
        session = self._session
        session.phase("unmerge", "giving every page its own frame back")
        while len(self._machines) > 1 and not self._fits_unmerged():
            self._end_last()
        with self._sampled():
            session.hand_back()
        self._check_stage("handed back", session.series.take())
        self._found.unmerged_alive = len(self._machines)
        while self._machines:
            self._end_last()
        self._result.checks["machines"] = f"{self._found.started} answered right to the end and ended well"

    def _fits_unmerged(self) -> bool:
        counters = self._session.series.take().counters
        return counters.saved_pages * PAGE_BYTES + (MARGIN_MIB << 20) < counters["meminfo.MemAvailable_kb"] << 10

    def _end_last(self) -> None:
        self._data.pop()
        self._machines.pop().end()

    @contextmanager
    def _sampled(self) -> Iterator[None]:
        with self._session.series.sampling(SAMPLE_SECONDS):
            yield
