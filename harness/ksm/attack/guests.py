# SPDX-License-Identifier: MIT
"""Where attacks are carried out: in a measuring guest under icount, or in an ordinary one under plain emulation.

Both run the same program with the same script. Under icount every run gives the same figures, and a tick is an
instruction; what was measured is kept by the hash of its inputs. Under plain emulation time is the host's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.config import Config
from harness.document import read_bytes
from harness.errors import SamepageError
from harness.guest.guest import Guest
from harness.guest.snapshot import start_guest
from harness.guest.spec import GuestSpec
from harness.image.programs import compile_program
from harness.image.recipe import Program, guest_sources, load_image_recipe
from harness.ksm.attack.scripts import Plan
from harness.ksm.bench.machine import Extra, Material, build_init, measure
from harness.ksm.bench.machine import prepare as prepare_bench
from harness.sandbox import Sandbox
from harness.store import built_folder, key_of
from harness.toolroot import tool_root

TIMEOUT = 1200.0
"""Seconds for one attack, times `timeout_factor`."""
GUEST_PATH = "/usr/bin/attack"
_ATTACK = Program(sources=["attack/*.c", "memwork/content.c"], path="attack")
_INIT = Program(
    sources=["bench/*.c", "attack/*.c", "guest/memwork/content.c"], path="init", flags=["-Wl,--wrap=run_script"]
)


@dataclass(frozen=True)
class Tools:
    """What all attacks on a kernel are carried out with."""

    bench: Material
    program: Path


@dataclass(frozen=True)
class _Work:
    """A plan, as the measuring guest wants it."""

    plan: Plan
    cpus: int = 1
    arguments: tuple[str, ...] = ()
    has_programs: bool = False
    kernel_modules: tuple[str, ...] = ()

    @property
    def memory_mib(self) -> int:
        return self.plan.size.memory_mib

    def script(self) -> str:
        return self.plan.script()


def prepare(config: Config, kernel: str, *, module: bool) -> Tools:
    """Build what is not built yet."""
    bench = prepare_bench(config, kernel, module=module)
    init = build_init(config, _INIT, ("bench", "attack"))
    return Tools(Material(bench.qemu, bench.image, init, bench.module), build_attack(config))


def build_attack(config: Config) -> Path:
    """Return the attacks' program."""
    folder = guest_sources(config.images)
    toolchain = load_image_recipe(config.images).toolchain
    sources = sorted(path for part in ("attack", "memwork") for path in (folder / part).glob("*.[ch]"))
    key = key_of(*(path.read_bytes() for path in sources), (config.images / f"{toolchain}.lock").read_bytes())

    def build(partial: Path) -> None:
        compile_program(Sandbox(tool_root(config, toolchain)), folder, "attack", _ATTACK, partial)

    return built_folder(config.cache / "attack" / f"program-{key}", build, keep=4) / "attack"


def under_icount(
    config: Config, tools: Tools, plan: Plan, folder: Path, beat: Callable[[], None], *, fresh: bool = False
) -> str:
    """Carry out an attack and return what was said; it is kept, and not done again unless `fresh`."""
    program = tools.program.read_bytes()
    key = key_of(tools.bench.key(plan.mode.merger), program, plan.script(), str(plan.size.memory_mib))
    kept = config.cache / "attack" / "records" / f"{key}.txt"
    if kept.is_file() and not fresh:
        return read_bytes(kept).decode("ascii", "replace")
    extra = Extra(initramfs={"attack": (0o755, program)})
    text = measure(config, tools.bench, plan.mode.merger, _Work(plan), folder, TIMEOUT, beat, extra)
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text, "ascii")
    partial.replace(kept)
    return text


def under_tcg(config: Config, tools: Tools, plan: Plan, folder: Path) -> str:
    """Carry out an attack in a fresh guest with two CPUs, in which nothing else runs."""
    spec = GuestSpec(memory_mib=max(plan.size.memory_mib, 512), cpus=2, accelerator="tcg")
    with start_guest(config, tools.bench.image, spec, folder) as guest:
        if plan.mode.merger == "samepage":
            if tools.bench.module is None:
                raise SamepageError("the module was not built", where=plan.name)
            guest.insmod(tools.bench.module.ko)
        text = attack(guest, tools, plan)
        guest.poweroff()
    return text


def attack(guest: Guest, tools: Tools, plan: Plan) -> str:
    """Carry out an attack in a guest that is there, and return what was said."""
    guest.put(tools.program.read_bytes(), GUEST_PATH, 0o755)
    answer = guest.run([GUEST_PATH, "direct"], stdin=plan.script().encode(), timeout=TIMEOUT, check=False)
    if answer.exit_code and not answer.text.startswith("error") and "\nerror" not in answer.text:
        raise SamepageError(f"ended with exit code {answer.exit_code}: {answer.stderr.decode(errors='replace')}")
    return answer.text
