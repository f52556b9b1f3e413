# SPDX-License-Identifier: MIT
"""A run of real programs: their memory must be the same before and after merging, and they must go on working.

While its memory is compared a program stands still (SIGSTOP), so that nobody but the merger could change a byte.
"""

from __future__ import annotations

import secrets
import time

from harness.errors import CheckFailed
from harness.ksm import merging
from harness.ksm.content import Digester
from harness.ksm.differences import ContentError
from harness.ksm.memwork import MEMWORK
from harness.ksm.oracle import Expected, expect
from harness.ksm.processdigest import Records, candidates, copies, decode_digests, differing, mergeable_ranges
from harness.ksm.programs import KINDS, Programs, WrongAnswer, install
from harness.ksm.result import CowWay, Result, checked, make_stage
from harness.ksm.series import Sample
from harness.ksm.session import Session
from harness.ksm.workload import Programs as ProgramsWorkload

DIGEST_SECONDS = 300
STOP_SECONDS = 30
SAMPLE_SECONDS = 0.5
SHOWN_PAGES = 8


class ProgramsRun:
    """One workload of programs in one guest."""

    def __init__(self, session: Session, workload: ProgramsWorkload, result: Result) -> None:
        self._session = session
        self._guest = session.guest
        self._workload = workload
        self._result = result
        self._digester = Digester(secrets.randbits(64))
        self._programs: list[Programs] = []
        self._last: dict[int, Records] = {}
        session.series.processes = lambda: self._pids

    @property
    def _pids(self) -> list[int]:
        return [pid for programs in self._programs for pid in programs.pids]

    @property
    def _names(self) -> dict[int, str]:
        return {
            pid: f"{programs.name} {number}" for programs in self._programs for number, pid in enumerate(programs.pids)
        }

    def carry_out(self) -> None:
        """Do everything; raises CheckFailed for the first thing that is wrong."""
        session, result = self._session, self._result
        session.phase("start", "starting programs")
        install(self._guest)
        for program in self._workload.program:
            programs = KINDS[program.name](self._guest, program.count, result.seed, self._workload.data_mib)
            programs.start()
            self._programs.append(programs)
        self._check_registered()
        self._verify()
        self._stop()
        self._compare_stage("filled", session.series.take())
        session.before_merging = session.series.samples[-1].counters

        session.phase("merge", "merging")
        merging.switch(self._guest, merging.RUN)
        self._settle_and_compare("merged")
        counted = session.series.reader.of_processes(self._pids)
        result.per_process = {self._names[pid]: values for pid, values in counted.items()}

        session.phase("cow", "programs go on and change their data")
        before = self._last
        self._continue()
        with session.series.sampling(SAMPLE_SECONDS):
            self._verify()
            for programs in self._programs:
                programs.change()
            self._verify()
        self._stop()
        self._last = {}
        self._compare_stage("changed", session.series.take())
        self._count_copies(before)

        session.phase("settle", "merging what is left")
        sample = self._settle_and_compare("final")
        result.conclude_from(result.stages[-1])
        result.samepage = sample.counters.folder("samepage")

        session.phase("unmerge", "giving every page its own frame back")
        session.hand_back()
        self._compare_stage("handed back", session.series.take())
        self._continue()
        self._verify()
        for programs in self._programs:
            programs.end()
        result.checks["programs"] = f"{len(self._pids)} answered right to the end and ended well"

    def _settle_and_compare(self, name: str) -> Sample:
        # What can be merged shows only afterwards: the kernel itself takes empty pages out of huge ones it splits.
        sample = self._session.settle(self._workload.merging, lambda: None)
        self._compare_stage(name, sample, expecting=True)
        return sample

    def _check_registered(self) -> None:
        """See that PR_SET_MEMORY_MERGE was inherited over exec: without it nothing would be shown."""
        for pid, ranges in self._mergeable().items():
            if not ranges:
                raise CheckFailed("no mapping of the program is mergeable after exec", where=f"pid {pid}")

    def _mergeable(self) -> dict[int, list[tuple[int, int]]]:
        paths = {pid: f"/proc/{pid}/smaps" for pid in self._pids}
        smaps = self._guest.read_files(paths.values())
        return {pid: mergeable_ranges((smaps[path] or b"").decode()) for pid, path in paths.items()}

    def _verify(self) -> None:
        for programs in self._programs:
            try:
                programs.verify()
            except WrongAnswer:
                self._result.cow.content_errors += 1
                raise

    def _stop(self) -> None:
        self._signal("STOP")
        deadline = time.monotonic() + STOP_SECONDS * self._session.timeout_factor
        paths = [f"/proc/{pid}/stat" for pid in self._pids]
        while True:
            found = self._guest.read_files(paths)
            states = [(found[path] or b"").decode().rpartition(")")[2][1:2] for path in paths]
            if set(states) == {"T"}:
                return
            if time.monotonic() > deadline:
                raise CheckFailed(f"the programs do not stop; their states are {' '.join(states)}")

    def _continue(self) -> None:
        self._signal("CONT")

    def _signal(self, name: str) -> None:
        self._guest.run(["sh", "-c", f'kill -{name} "$@"', "sh", *map(str, self._pids)])

    def _digest(self) -> dict[int, Records]:
        command = [MEMWORK, "digest", str(self._digester.secret), *map(str, self._pids)]
        output = self._guest.run(command, timeout=DIGEST_SECONDS).stdout
        return dict(zip(self._pids, decode_digests(output), strict=True))

    def _expected(self) -> Expected:
        """Count duplicates among the pages as they were last read."""
        ranges = self._mergeable()
        found = candidates([(records, ranges[pid]) for pid, records in self._last.items()])

        def compute(*, max_page_sharing: int, use_zero_pages: bool) -> Expected:
            return expect(found, self._digester, max_page_sharing=max_page_sharing, use_zero_pages=use_zero_pages)

        return self._session.expected(compute, self._workload.ksm)

    def _compare_stage(self, name: str, sample: Sample, *, expecting: bool = False) -> None:
        """Read all pages of all programs, and compare them with the last reading while they stood still."""
        found = self._digest()
        wrong = {
            pid: addresses
            for pid, records in self._last.items()
            if (addresses := differing(records, found[pid], self._digester))
        }
        self._last = found
        expected = self._expected() if expecting else None
        series = self._session.series
        first = series.samples[0].counters
        stage = make_stage(name, sample.seconds, sample.counters, expected, first, self._session.before_merging)
        pages = sum(len(records) for records in found.values())
        self._result.stages.append(checked(stage, pages, sum(map(len, wrong.values()))))
        if wrong:
            self._result.cow.content_errors += sum(map(len, wrong.values()))
            raise ContentError(self._describe(name, wrong))
        self._guest.log.check(name)

    def _describe(self, name: str, wrong: dict[int, list[int]]) -> str:
        lines = [f"after {name!r}, pages of programs that stood still have changed:"]
        for pid, addresses in wrong.items():
            shown = ", ".join(f"{address:#x}" for address in addresses[:SHOWN_PAGES])
            lines.append(f"  {self._names[pid]} (pid {pid}): {len(addresses)} pages, at {shown}")
        return "\n".join(lines)

    def _count_copies(self, before: dict[int, Records]) -> None:
        counts = [copies(records, self._last[pid]) for pid, records in before.items()]
        writes, broken = sum(count[0] for count in counts), sum(count[1] for count in counts)
        cow = self._result.cow
        cow.writes, cow.broken = writes, broken
        cow.ways = {"programs": CowWay(pages_written=writes, writes=writes, broken=broken)}
