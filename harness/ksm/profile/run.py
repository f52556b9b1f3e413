# SPDX-License-Identifier: MIT
"""One profile: a merging thread's passes over some memory, in the measuring guest, watched by our plugin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.config import Config
from harness.image.recipe import Program
from harness.ksm.bench.cases import Case, filled
from harness.ksm.bench.machine import Extra, Material, build_init, measure
from harness.ksm.bench.machine import prepare as prepare_bench
from harness.ksm.bench.records import labelled, parse
from harness.ksm.profile.fold import Stack, by_function, fold
from harness.ksm.profile.plugin import build_plugin
from harness.ksm.profile.shared import read_counted
from harness.ksm.profile.symbols import Symbols, kernel_symbols
from harness.ksm.result import Merger

TIMEOUT = 900.0
TOLERANCE = 1.0
"""Per cent beyond which it is worth a warning that the kernel's own account of the thread (schedstat) differs."""
THREADS: dict[Merger, str] = {"samepage": "samepaged", "in-tree": "ksmd"}
_BEGIN, _END = "profile-begin", "profile-end"
_PROGRAM = Program(
    sources=["bench/*.c", "profile/*.c", "guest/memwork/content.c"], path="init", flags=["-Wl,--wrap=run_script"]
)


@dataclass(frozen=True)
class Tools:
    """What all profiles on a kernel are made with."""

    bench: Material
    plugin: Path
    symbols: Symbols


@dataclass(frozen=True)
class Job:
    """What to profile; satisfies machine.Work."""

    case: Case
    merger: Merger
    skip: int
    """Passes before counting begins."""
    passes: int

    @property
    def memory_mib(self) -> int:
        """The case's."""
        return self.case.memory_mib

    @property
    def cpus(self) -> int:
        """The plugin follows one."""
        return 1

    @property
    def arguments(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def has_programs(self) -> bool:
        """The case's."""
        return self.case.has_programs

    @property
    def kernel_modules(self) -> tuple[str, ...]:
        """The case's."""
        return self.case.kernel_modules

    def script(self) -> str:
        """Return the guest's script: fill, skip, count."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        memory, case = self.case.memory, self.case
        yield from case.settings()
        yield from filled(case)
        for number in range(self.skip):
            yield "passes skipped 1"
            yield from memory.rewrite(number + 1)
        yield "counters before"
        yield f"set /proc/self/comm {_BEGIN}"
        for number in range(self.passes):
            yield "passes counted 1"
            yield from memory.rewrite(self.skip + number + 1)
        # At the end of the processes the thread has work once more.
        yield f"set /proc/self/comm {_END}"
        yield "end"


class Function(msgspec.Struct, frozen=True):
    """A row of the table."""

    name: str
    own: int
    """Instructions of the function itself."""
    total: int
    """Those of all that it called included."""


class Profile(msgspec.Struct, frozen=True):
    """profile.json."""

    workload: str
    merger: Merger
    kernel: str
    qemu: str
    processes: int
    pages: int
    """Registered, of all processes."""
    skipped_passes: int
    passes: int
    instructions: int
    """Of the merging thread in these passes, without interrupts."""
    schedstat: int
    """What the kernel charged the thread with, in ns: with icount, instructions."""
    interrupts: int
    """Instructions of interrupts that came meanwhile."""
    functions: list[Function]
    counts: str = "instructions, not time: cache misses and memory bandwidth do not show"

    @property
    def per_page(self) -> float:
        """Instructions per registered page and pass."""
        return self.instructions / (self.pages * self.passes)

    @property
    def difference(self) -> float:
        """Per cent that the sum is off what the kernel charged."""
        return 100 * (self.instructions / self.schedstat - 1) if self.schedstat else float("inf")


def prepare(config: Config, kernel: str, *, module: bool) -> Tools:
    """Build what is not built yet."""
    plugin = build_plugin(config)
    bench = prepare_bench(config, kernel, module=module)
    init = build_init(config, _PROGRAM, ("bench", "profile"))
    material = Material(bench.qemu, bench.image, init, bench.module)
    return Tools(material, plugin, kernel_symbols(config, bench.image))


def profile(config: Config, tools: Tools, job: Job, folder: Path) -> tuple[Profile, dict[Stack, int]]:
    """Carry out a job and return the profile and its stacks. Raises CheckFailed for a run that gives none."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = folder / "counts.bin"
    try:
        with shared.open("w+b") as file:
            extra = _extra(tools, job, file.fileno())
            text = measure(config, tools.bench, job.merger, job, folder, TIMEOUT, extra=extra)
        counted = read_counted(shared)
    finally:
        shared.unlink(missing_ok=True)
    symbols, readings = _separate(text)
    stacks, interrupts = fold(counted, tools.symbols.with_more(symbols))
    records = parse(readings)
    before, after = labelled(records, "before")[-1], labelled(records, "counted")[-1]
    outcome = Profile(
        workload=job.case.content,
        merger=job.merger,
        kernel=tools.bench.image.release,
        qemu=tools.bench.qemu.version,
        processes=job.case.processes,
        pages=job.case.memory.pages,
        skipped_passes=job.skip,
        passes=job.passes,
        instructions=sum(stacks.values()),
        schedstat=after["scanner_ns"] - before["scanner_ns"],
        interrupts=interrupts,
        functions=[Function(name, own, total) for name, (own, total) in by_function(stacks).items()],
    )
    return outcome, stacks


def _extra(tools: Tools, job: Job, descriptor: int) -> Extra:
    symbols = tools.symbols
    words = [
        str(tools.plugin),
        f"fd={descriptor}",
        f"thread={THREADS[job.merger]}",
        f"switch={symbols.address('__switch_to_asm'):x}",
        f"name={symbols.address('__set_task_comm'):x}",
        *(f"entry={address:x}" for address in symbols.interrupt_entries()),
    ]
    return Extra(("-plugin", ",".join(words)), (tools.plugin,), (descriptor,))


def _separate(text: str) -> tuple[list[tuple[int, str]], str]:
    """Part what images/profile/show.c said from the readings."""
    symbols, readings = [], []
    for line in text.splitlines():
        if line.startswith("symbol "):
            name, address = (field.partition("=")[2] for field in line.split()[1:])
            symbols.append((int(address, 16), name))
        else:
            readings.append(line)
    return symbols, "\n".join(readings)
