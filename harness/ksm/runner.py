# SPDX-License-Identifier: MIT
"""One run: one workload with one merger in a guest of its own, from booting it to result.json."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from harness.config import Config
from harness.errors import CheckFailed, SamepageError
from harness.guest.errors import KernelSplat
from harness.guest.snapshot import start_guest
from harness.guest.spec import GuestSpec
from harness.guest.splats import Splat
from harness.image import Image, ensure_image
from harness.image.nested import SERIAL, NestedDisk, ensure_nested_disk
from harness.ksm import merging, result
from harness.ksm.counters import CounterReader, find_scanners
from harness.ksm.result import Merger, Result
from harness.ksm.series import Series
from harness.ksm.session import Observer, Session
from harness.ksm.workload import Machines, Synthetic, Workload
from harness.module.build import BuiltModule, build_module

GUEST_CPUS = 2
SYSTEM_MIB = 640
"""What a guest needs besides the workload's memory."""


@dataclass(frozen=True)
class Job:
    """What to run."""

    name: str
    """Also of its folder under `runs`."""
    workload_name: str
    workload: Workload
    merger: Merger
    seed: int
    kernel: str
    memory_mib: int | None
    """None: as much as the workload needs."""
    folder: Path


@dataclass(frozen=True)
class Material:
    """What all runs on one kernel share."""

    image: Image
    module: BuiltModule | None
    disk: NestedDisk | None = None
    """What virtual machines in the guest are started from; None where no workload starts any."""


def prepare(config: Config, kernel: str, mergers: list[Merger], *, machines: bool = False) -> Material:
    """Build what is not built yet; for virtual machines in the guest (`machines`) a disk as well."""
    image = ensure_image(config, kernel)
    module = build_module(config, config.module, kernel) if "samepage" in mergers else None
    return Material(image, module, ensure_nested_disk(config, image) if machines else None)


def run(config: Config, job: Job, material: Material, observer: Observer) -> Result:
    """Carry out a run and write its result.json, counters.csv and console.log into its folder.

    Whatever goes wrong with the run is in the result (its status and error); only an interruption is raised again.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    outcome = _blank(job, material)
    began = time.monotonic()
    try:
        _carry_out(config, job, material, observer, outcome)
        _judge(outcome)
        outcome.status = "pass"
    except KernelSplat as error:
        outcome.status, outcome.error = "fail", str(error)
        outcome.splats = outcome.splats or _recorded(error.splats)
    except SamepageError as error:
        outcome.status = "fail" if isinstance(error, CheckFailed) else "error"
        outcome.error = str(error)
    except KeyboardInterrupt:
        outcome.status, outcome.error = "interrupted", "interrupted"
        raise
    except Exception as error:
        outcome.error = f"the harness itself failed: {type(error).__name__}: {error}"
        raise
    finally:
        outcome.seconds = round(time.monotonic() - began, 1)
        if not outcome.counters and outcome.stages:
            outcome.conclude_from(outcome.stages[-1])
        result.write(outcome, job.folder)
    return outcome


def _blank(job: Job, material: Material) -> Result:
    text = msgspec.json.encode(job.workload, order="deterministic")
    return Result(
        name=job.name,
        kernel=material.image.release,
        merger=job.merger,
        workload=job.workload_name,
        description=job.workload.description,
        seed=job.seed,
        processes=job.workload.processes,
        module_sha256=material.module.sha256 if material.module and job.merger == "samepage" else None,
        image_sha256=material.image.sha256,
        disk_sha256=material.disk.sha256 if material.disk and isinstance(job.workload, Machines) else None,
        workload_sha256=hashlib.sha256(text).hexdigest(),
        harness=version("samepage"),
        python=platform.python_version(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _carry_out(config: Config, job: Job, material: Material, observer: Observer, outcome: Result) -> None:
    """Boot, load, merge; `outcome` is filled in as far as it goes."""
    memory_mib = job.memory_mib or memory_for(job.workload)
    outcome.guest = {"memory_mib": memory_mib, "cpus": GUEST_CPUS}
    with ExitStack() as stack:
        observer.phase("booting")
        disks = ((SERIAL, material.disk.disk),) if material.disk and isinstance(job.workload, Machines) else ()
        spec = GuestSpec(memory_mib=memory_mib, cpus=GUEST_CPUS, disks=disks)
        guest = stack.enter_context(start_guest(config, material.image, spec, job.folder))
        stack.callback(lambda: outcome.splats.extend(_recorded(guest.splats)))
        outcome.accelerator, outcome.qemu = guest.accelerator, guest.qemu_version
        module = material.module if job.merger == "samepage" else None
        if module is not None:
            observer.phase("loading the module")
            guest.insmod(module.ko)
        outcome.tunables = merging.configure(guest, job.workload.ksm)
        reader = CounterReader(guest, find_scanners(guest, guest.pids()))
        series = Series(job.folder / "counters.csv", reader, observer.sample)
        stack.callback(series.close)
        name = None if module is None else module.name
        session = Session(guest, job.merger, name, series, observer, config.timeout_factor)
        _carry_out_in(session, job.workload, outcome, material.disk)
        merged = outcome.stage("merged")
        if merged is not None and merged.pages_expected:
            outcome.milestones = series.milestones("merge", merged.pages_expected)
        observer.phase("switching off")
        guest.poweroff()


def _recorded(splats: Sequence[Splat]) -> list[result.Splat]:
    return [result.Splat(kind=splat.kind, command=splat.command, lines=list(splat.lines)) for splat in splats]


def _carry_out_in(session: Session, workload: Workload, outcome: Result, disk: NestedDisk | None) -> None:
    # Imported when needed: the programs bring half of the standard library with them.
    if isinstance(workload, Synthetic):
        from harness.ksm.synthetic import SyntheticRun

        SyntheticRun(session, workload, outcome).carry_out()
    elif isinstance(workload, Machines):
        from harness.ksm.machinesrun import MachinesRun

        assert disk is not None, "prepare() was told of the machines"
        MachinesRun(session, workload, outcome, disk).carry_out()
    else:
        from harness.ksm.programsrun import ProgramsRun

        ProgramsRun(session, workload, outcome).carry_out()


def memory_for(workload: Workload) -> int:
    """Return a size that holds the workload unmerged, and again while everything is copied, in steps of 256 MiB.

    Machines may be on purpose more than what their host holds.
    """
    if isinstance(workload, Machines) and workload.host_mib is not None:
        return workload.host_mib
    wanted = SYSTEM_MIB + workload.footprint_mib * 3 // 2
    return max(1024, -(-wanted // 256) * 256)


def _judge(outcome: Result) -> None:
    """Raise CheckFailed for what the steps themselves let pass."""
    cow = outcome.cow
    if cow.broken != cow.writes:
        raise CheckFailed(f"of {cow.writes} writes to merged pages only {cow.broken} gave the writer a page of its own")
    for stage in outcome.stages:
        # What the kernel's own merger leaves undone is for the comparison, not a fault of this run.
        if outcome.merger == "samepage" and not stage.complete:
            raise CheckFailed(f"{stage.name}: of {stage.pages_expected} pages only {stage.pages_merged} are saved")
        if stage.pages_expected is not None and stage.pages_merged > stage.pages_expected:
            more = stage.pages_merged - stage.pages_expected
            outcome.checks[f"counters, {stage.name}"] = f"{more} pages more are counted as saved than merging can save"
