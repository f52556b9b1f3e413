# SPDX-License-Identifier: MIT
"""The measuring guest: QEMU with icount, and nothing in the guest that depends on the host's time.

The whole case is in the initramfs, PID 1 carries it out (images/bench), and its records come out of the debug port into
a file. With the same QEMU, kernel, module and case, every run gives the same records, byte for byte; 1 ns of the guest
is 1 instruction. https://www.qemu.org/docs/master/devel/tcg-icount.html
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.config import Config
from harness.errors import CheckFailed, SamepageError
from harness.guest.process import QemuProcess
from harness.guest.qemu import Qemu, find_qemu
from harness.guest.splats import find_splats
from harness.image import Image, ensure_image
from harness.image.cpio import newc_archive
from harness.image.initramfs import module_files
from harness.image.modules import index_modules
from harness.image.programs import compile_program
from harness.image.recipe import Program, load_image_recipe
from harness.kernel import kernel_of
from harness.ksm.bench.programs import program_files
from harness.module.build import BuiltModule, build_module
from harness.sandbox import Sandbox
from harness.store import built_folder, key_of
from harness.toolroot import tool_root

CONSOLE, RECORDS, QEMU_LOG = "console.log", "records.txt", "qemu.log"
KERNEL_ARGUMENTS = (
    *("console=ttyS0", "panic=-1", "no_timer_check", "tsc=reliable", "nokaslr", "norandmaps"),
    *("cryptomgr.notests", "initcall_blacklist=jent_mod_init"),
    "slab_nomerge",  # so that each cache's memory is told on its own
)
_LEAST_MIB = 192
_POLL_SECONDS = 0.05
_KNOWN = "workqueue cpumask: online intersect > possible intersect"
"""What Linux 6.1 says of numa=fake= while it boots (wq_calc_node_cpumask()): a node without CPUs, and no fault."""
_PROGRAM = Program(sources=["bench/*.c", "guest/memwork/content.c"], path="init")


@dataclass(frozen=True)
class Material:
    """What all cases of a kernel are measured with."""

    qemu: Qemu
    image: Image
    init: Path
    module: BuiltModule | None

    def key(self, merger: str) -> str:
        """Return a name for all of it that has a say in the figures."""
        module = self.module.ko.read_bytes() if merger == "samepage" and self.module else b""
        arguments = _arguments(self.image, Path("initramfs"), 0)
        return key_of(
            self.qemu.sha256, self.image.vmlinux.read_bytes(), self.init.read_bytes(), module, _fixed(arguments)
        )


@dataclass(frozen=True)
class Extra:
    """What somebody who looks into the guest adds to it: a plugin of QEMU's, say."""

    arguments: tuple[str, ...] = ()
    """For QEMU."""
    files: tuple[Path, ...] = ()
    """That QEMU may read."""
    descriptors: tuple[int, ...] = ()
    """Open files that QEMU inherits."""
    initramfs: Mapping[str, tuple[int, bytes]] = field(default_factory=dict)
    """Files for the guest: path to mode and content."""


class Work(Protocol):
    """What this needs of a case."""

    @property
    def memory_mib(self) -> int:
        """How much memory the guest needs."""

    @property
    def cpus(self) -> int:
        """How many CPUs."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """More arguments for the guest's kernel."""

    @property
    def has_programs(self) -> bool:
        """Whether the guest needs Python."""

    @property
    def kernel_modules(self) -> tuple[str, ...]:
        """Of the kernel's own, those that the guest needs."""

    def script(self) -> str:
        """Return the lines that the guest carries out."""


def _fixed(arguments: Sequence[str]) -> str:
    """Arguments without the names of files, which differ from one cache to another."""
    return " ".join(word for word in arguments if not word.startswith("/"))


def prepare(config: Config, kernel: str, *, module: bool) -> Material:
    """Build what is not built yet."""
    image = ensure_image(config, kernel)
    built = build_module(config, config.module, kernel) if module else None
    return Material(find_qemu(config), image, build_init(config), built)


def build_init(config: Config, program: Program = _PROGRAM, folders: Sequence[str] = ("bench",)) -> Path:
    """Return the guest's PID 1; `program` may be made of more than the sources in images/bench."""
    toolchain = load_image_recipe(config.images).toolchain
    every = [*folders, "guest/memwork"]
    sources = sorted(path for folder in every for path in (config.images / folder).glob("*.[ch]"))
    key = key_of(
        *program.flags, *(path.read_bytes() for path in sources), (config.images / f"{toolchain}.lock").read_bytes()
    )

    def build(partial: Path) -> None:
        compile_program(Sandbox(tool_root(config, toolchain)), config.images, "bench", program, partial)

    return built_folder(config.cache / "bench" / f"init-{key}", build, keep=4) / "bench"


def measure(
    config: Config,
    material: Material,
    merger: str,
    case: Work,
    folder: Path,
    timeout: float,
    beat: Callable[[], None] = lambda: None,
    extra: Extra = Extra(),
) -> str:
    """Carry out a case in a guest of its own and return its records, a line each.

    Raises CheckFailed for a kernel that complained or a script that failed, SamepageError for a guest that does not
    come to its end within `timeout` seconds. `beat` is called now and then, and may raise to end the guest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {"init": (0o755, material.init.read_bytes()), "case": (0o644, case.script().encode())}
    if merger == "samepage":
        assert material.module is not None
        files["module.ko"] = (0o644, material.module.ko.read_bytes())
    if case.has_programs:
        files |= program_files(config)
    if case.kernel_modules:
        kernel = kernel_of(config, material.image.kernel)
        index = index_modules(config, Sandbox(tool_root(config, "tools")), kernel.tree, kernel.release)
        files |= module_files(index, kernel.tree, kernel.release, case.kernel_modules)
    files |= extra.initramfs
    initramfs = folder / "initramfs"
    initramfs.write_bytes(newc_archive(files))
    try:
        _run(config, material, initramfs, case, folder, timeout, beat, extra)
    finally:
        initramfs.unlink()
    return _judge(folder)


def _run(
    config: Config,
    material: Material,
    initramfs: Path,
    case: Work,
    folder: Path,
    timeout: float,
    beat: Callable[[], None],
    extra: Extra,
) -> None:
    with ExitStack() as cleanup:
        outputs = [cleanup.enter_context((folder / name).open("wb")).fileno() for name in (CONSOLE, RECORDS)]
        memory_mib = max(case.memory_mib, _LEAST_MIB)
        arguments = _arguments(material.image, initramfs, memory_mib, case.cpus, case.arguments)
        for number, descriptor in enumerate(outputs):
            arguments += ["-add-fd", f"fd={descriptor},set={number}"]
        arguments += extra.arguments
        line = material.qemu.command(arguments, [material.image.vmlinux, initramfs, *extra.files])
        process = QemuProcess(line, [*outputs, *extra.descriptors], folder / QEMU_LOG)
        cleanup.callback(process.kill)
        deadline = time.monotonic() + timeout * config.timeout_factor
        while process.running:
            beat()
            if time.monotonic() > deadline:
                raise SamepageError(
                    f"the guest needed more than {timeout * config.timeout_factor:.0f} s",
                    where=folder,
                    hint="On a slow machine, raise SAMEPAGE_TIMEOUT_FACTOR.",
                )
            process.wait(_POLL_SECONDS)
        if process.wait(0) != 0:
            raise SamepageError(f"QEMU failed: {process.said()}", where=folder / QEMU_LOG)


def _arguments(image: Image, initramfs: Path, memory_mib: int, cpus: int = 1, more: tuple[str, ...] = ()) -> list[str]:
    return [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"),
        *("-machine", "q35,sata=off,smbus=off,graphics=off,vmport=off", "-accel", "tcg,thread=single"),
        *("-icount", "shift=0,sleep=off", "-seed", "42", "-rtc", "base=2026-01-01,clock=vm"),
        # Without these two, a byte that a string instruction moves counts as an instruction.
        *("-cpu", "max,-erms,-fsrm", "-smp", str(cpus), "-m", f"{memory_mib}M"),
        *("-kernel", os.fspath(image.vmlinux), "-initrd", os.fspath(initramfs)),
        *("-append", " ".join([*KERNEL_ARGUMENTS, *more])),
        *("-chardev", "file,id=console,path=/dev/fdset/0", "-serial", "chardev:console"),
        *("-chardev", "file,id=records,path=/dev/fdset/1", "-device", "isa-debugcon,chardev=records,iobase=0xe9"),
    ]


def _judge(folder: Path) -> str:
    console = (folder / CONSOLE).read_text("utf-8", "replace")
    splats = [splat for splat in find_splats(console.splitlines())[0] if _KNOWN not in splat.title]
    if splats:
        said = "\n".join(line for splat in splats for line in splat.lines[:40])
        raise CheckFailed(f"the kernel complained:\n{said}", where=folder / CONSOLE)
    lines = (folder / RECORDS).read_text("utf-8").splitlines()
    faults = [line for line in lines if line.startswith("error ")]
    if faults or lines[-1:] != ["end"]:
        last = "\n".join(faults or ["it ended early", *console.splitlines()[-5:]])
        raise CheckFailed(f"the case could not be carried out: {last}", where=folder)
    return "".join(f"{line}\n" for line in lines[:-1])
