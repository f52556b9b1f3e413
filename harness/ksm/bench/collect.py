# SPDX-License-Identifier: MIT
"""From the records of all cases to a result."""

from __future__ import annotations

from collections.abc import Mapping

from harness.ksm.bench.figures import curve_of, figures_of, passes_of
from harness.ksm.bench.machine import Material
from harness.ksm.bench.records import Record, labelled
from harness.ksm.bench.result import BenchResult, Inputs, Unsupported
from harness.ksm.bench.run import Job
from harness.store import file_sha256


def collect(set_: str, material: Material, done: Mapping[Job, list[Record]]) -> BenchResult:
    """Return the figures of all cases, in their order."""
    unsupported = [job for job, records in done.items() if labelled(list(records), "unsupported")]
    done = {job: records for job, records in done.items() if job not in unsupported}
    curves = [curve_of(job.case, job.merger, records) for job, records in done.items()]
    passes = [passes_of(job.case, job.merger, records) for job, records in done.items()]
    return BenchResult(
        set=set_,
        inputs=Inputs(
            kernel=material.image.release,
            qemu=material.qemu.version,
            qemu_sha256=material.qemu.sha256,
            image_sha256=material.image.sha256,
            guest_program_sha256=file_sha256(material.init),
            module_sha256=material.module.sha256 if material.module else None,
        ),
        figures=[figure for job, records in done.items() for figure in figures_of(job.case, job.merger, records)],
        unsupported=[Unsupported(case=job.case, merger=job.merger) for job in unsupported],
        curves=[curve for curve in curves if curve is not None],
        passes=[costs for costs in passes if costs is not None],
    )
