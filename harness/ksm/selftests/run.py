# SPDX-License-Identifier: MIT
"""Running the tests with one merger, in a guest of its own with two NUMA nodes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.guest.leaks import check_left_behind, knows_leaks
from harness.guest.snapshot import start_guest
from harness.guest.spec import GuestSpec
from harness.image import Image
from harness.ksm.selftests.cases import Case
from harness.ksm.selftests.parse import Check, Status, checks_of
from harness.module.build import BuiltModule
from harness.progress import step

# test_prot_none writes to a PROT_NONE page through /proc/self/mem, which Debian's kernels allow a debugger only.
SPEC = GuestSpec(memory_mib=1024, cpus=2, numa_nodes=2, append=("proc_mem.force_override=always",))
FOLDER = "/tmp/"
TIMEOUT = 300
"""Seconds for one program; ksm_tests itself gives up after 120 seconds of the guest's."""


@dataclass(frozen=True)
class Outcome:
    """One run of one command line."""

    case: Case
    checks: tuple[Check, ...]
    output: str
    seconds: float


class Bench:
    """A guest with the test programs in it; one whose kernel complained is replaced by a new one."""

    def __init__(
        self, config: Config, image: Image, module: BuiltModule | None, programs: Mapping[str, Path], folder: Path
    ) -> None:
        """`module` None: in-tree KSM. Logs of guests go into folders below `folder`."""
        self._config = config
        self._image = image
        self._module = module
        self._programs = programs
        self._folder = folder
        self._booted = 0
        self._guest: Guest | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(unharmed=kind is None)

    def usage(self) -> str:
        """Return what `ksm_tests -h` prints."""
        return self._healthy_guest().run([f"{FOLDER}ksm_tests", "-h"]).text

    def run(self, case: Case) -> list[Outcome]:
        """Run a command line as often as it says."""
        return [self._once(case) for _ in range(case.runs)]

    def _once(self, case: Case) -> Outcome:
        guest = self._healthy_guest()
        began = time.monotonic()
        try:
            done = guest.run([f"{FOLDER}{case.program}", *case.arguments], cwd=FOLDER, timeout=TIMEOUT, check=False)
        except CheckFailed as error:  # a splat, a time-out, a guest that is gone
            checks, output = [Check("", Status.FAIL, str(error))], str(error)
        else:
            output = (done.stdout + done.stderr).decode(errors="replace")
            checks = checks_of(output, done.exit_code)
        return Outcome(case, tuple(checks), output, time.monotonic() - began)

    def _healthy_guest(self) -> Guest:
        if self._guest is None or not self._guest.healthy:
            self._close()
            self._guest = self._boot()
        return self._guest

    def _boot(self) -> Guest:
        self._booted += 1
        guest = start_guest(self._config, self._image, SPEC, self._folder / f"guest-{self._booted}")
        try:
            if self._module is not None:
                guest.insmod(self._module.ko)
            for name, path in self._programs.items():
                guest.put(path.read_bytes(), f"{FOLDER}{name}", 0o755)
        except BaseException:
            guest.__exit__(BaseException, None, None)  # as after any error: the first one counts
            raise
        return guest

    def _close(self, *, unharmed: bool = True) -> None:
        guest, self._guest = self._guest, None
        if guest is None:
            return
        try:
            if unharmed and self._module is not None and guest.healthy and knows_leaks(guest):
                check_left_behind(guest, self._module.name)
        finally:
            guest.close()


def run_all(bench: Bench, chosen: Sequence[Case], title: str) -> list[Outcome]:
    """Run all command lines."""
    outcomes = []
    with step(title, total=len(chosen)) as progress:
        for case in chosen:
            times = f" {case.runs} times" if case.runs > 1 else ""
            with step(f"{case.name}{times}"):
                outcomes += bench.run(case)
            progress.advance(1)
    return outcomes
