# SPDX-License-Identifier: MIT
"""A run of a synthetic workload: fill, merge, write to what is merged, unmerge; everything compared after each step."""

from __future__ import annotations

from collections.abc import Callable

from harness.ksm import merging
from harness.ksm.cow import CowBreaker
from harness.ksm.differences import ContentError, describe
from harness.ksm.memwork import MemWork
from harness.ksm.plan import AreaPlan, ProcessPlan, plan
from harness.ksm.processes import Area, Process
from harness.ksm.result import Result, Stage, checked, make_stage
from harness.ksm.series import Sample
from harness.ksm.session import Session
from harness.ksm.workload import Synthetic

SAMPLE_SECONDS = 0.5
"""Between readings while memory is filled."""

WRITE_ROUNDS = 12
"""The writes that are made while merging goes on come in about so many parts."""


class SyntheticRun:
    """One workload in one guest."""

    def __init__(self, session: Session, workload: Synthetic, result: Result) -> None:
        self._session = session
        self._workload = workload
        self._result = result
        self._work = MemWork(session.guest)
        self._series = session.series
        self._series.processes = lambda: [process.pid for process in self._work.processes]
        self._breaker = CowBreaker(self._work, workload.cow, result.seed)
        self._rewritten: list[tuple[Area, AreaPlan]] = []

    def carry_out(self) -> None:
        """Do everything; raises CheckFailed for the first thing that is wrong."""
        with self._work:
            self._session.phase("start", "starting processes")
            plans = plan(self._workload, self._result.seed)
            processes = [self._start_process(number) for number in range(len(plans))]
            self._series.take()
            self._session.phase("fill", "filling memory")
            with self._series.sampling(SAMPLE_SECONDS), self._work.together():
                for process, its_plan in zip(processes, plans, strict=True):
                    self._fill(process, its_plan)
            self._compare(self._stage("filled", self._series.take(), expected=False))
            self._merge()
            self._break_copies()
            self._unmerge()

    def _start_process(self, number: int) -> Process:
        process = self._work.process(f"p{number}")
        if self._workload.register == "prctl":
            process.merge_any()
        return process

    def _fill(self, process: Process, its_plan: ProcessPlan) -> None:
        fork = its_plan.fork
        if fork is not None:
            self._map(process, fork.area)
            for _ in range(fork.children):
                child = process.fork()
                child.areas[0].fill_each(fork.written.kinds, fork.written.keys)
        for area_plan in its_plan.areas:
            area = self._map(process, area_plan)
            if area_plan.rewrite_per_second:
                self._rewritten.append((area, area_plan))

    def _map(self, process: Process, area_plan: AreaPlan) -> Area:
        filling = area_plan.filling
        madvise = self._workload.register == "madvise"
        area = process.map(len(filling.keys), merge=madvise, thp=area_plan.thp)
        area.fill_each(filling.kinds, filling.keys)
        return area

    def _merge(self) -> None:
        self._session.phase("merge", "merging")
        self._session.before_merging = self._series.samples[-1].counters
        self._expected()
        for area, area_plan in self._rewritten:
            area.rewrite(area_plan.rewrite_key, per_second=area_plan.rewrite_per_second)
        merging.switch(self._session.guest, merging.RUN)
        writes = self._breaker.while_merging(WRITE_ROUNDS)
        sample = self._session.settle(self._workload.merging, self._expected, meanwhile=writes)
        for area, _ in self._rewritten:
            area.process.stop_rewriting()
        self._result.cow.take(self._breaker.table)
        self._compare(self._stage("merged", sample), counts_as_cow=True)
        self._work.note_merged(max_page_sharing=self._session.max_page_sharing)
        names = {process.pid: process.name for process in self._work.processes}
        counted = self._series.reader.of_processes(names)
        self._result.per_process = {names[pid]: values for pid, values in counted.items()}

    def _break_copies(self) -> None:
        steps: list[tuple[str, Callable[[], object]]] = [
            ("single writer", self._breaker.single),
            ("all writers", self._breaker.all_writers),
            ("after fork", self._breaker.after_fork),
        ]
        self._session.phase("cow", "breaking copies")
        for name, step in steps:
            step()
            self._result.cow.take(self._breaker.table)
            self._compare(self._stage(name, self._series.take(), expected=False), counts_as_cow=True)
        self._session.phase("settle", "merging what is left")
        sample = self._session.settle(self._workload.merging, self._expected)
        stage = self._stage("final", sample)
        self._result.conclude_from(stage)
        self._result.samepage = sample.counters.folder("samepage")
        self._compare(stage, counts_as_cow=True)

    def _unmerge(self) -> None:
        self._session.phase("unmerge", "giving every page its own frame back")
        self._session.hand_back()
        self._compare(self._stage("handed back", self._series.take(), expected=False))

    def _expected(self) -> int:
        return self._session.expected(self._work.expected, self._workload.ksm).saved

    def _stage(self, name: str, sample: Sample, *, expected: bool = True) -> Stage:
        possible = self._session.expected(self._work.expected, self._workload.ksm) if expected else None
        first = self._series.samples[0].counters
        return make_stage(name, sample.seconds, sample.counters, possible, first, self._session.before_merging)

    def _compare(self, stage: Stage, *, counts_as_cow: bool = False) -> None:
        """Compare everything with the oracle, and add the stage to the result."""
        wrong, shown = self._work.compare()
        pages = sum(area.pages for area in self._work.areas)
        self._result.stages.append(checked(stage, pages, wrong))
        if wrong:
            if counts_as_cow:
                self._result.cow.content_errors += wrong
            raise ContentError(f"after {stage.name!r}: {describe(wrong, shown)}")
        self._session.guest.log.check(stage.name)
