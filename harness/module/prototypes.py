# SPDX-License-Identifier: MIT
"""Prototypes that a module repeats by hand, compared with the types that the kernel's own BTF gives.

A module that reaches functions which no header declares has to say their types itself. Nothing checks that when it is
built or loaded: a wrong one is a crash. The BTF of the kernel that boots knows the type of every function.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.config import Config
from harness.image.kernel import extract_vmlinux, find_vmlinuz
from harness.kernel import kernel_of
from harness.progress import step
from harness.sandbox import Sandbox
from harness.store import built_folder, key_of
from harness.toolroot import tool_root

_TABLE = "prototypes.txt"
_LINE = re.compile(r"^(?:inline )?(?P<result>[^(]*?)(?P<name>\w+)\((?P<parameters>.*)\);$")
# Typedefs of scalars of which one side may have the other spelling (gcc's DWARF of built-in functions, for one).
_SPELLINGS = {"size_t": "long unsigned int", "vm_flags_t": "long unsigned int"}


@dataclass(frozen=True)
class Prototype:
    """A function's type, parameters without their names, in the spelling of pahole's pfunct."""

    result: str
    parameters: str

    def __str__(self) -> str:
        return f"{self.result} ({self.parameters})"


def kernel_prototypes(config: Config, name: str) -> dict[str, set[Prototype]]:
    """Return the types of all functions in a pinned kernel's BTF by name (static functions may share one)."""
    kernel = kernel_of(config, name)

    def build(folder: Path) -> None:
        with step(f"Reading the types of Linux {kernel.release}"):
            vmlinux = folder / "vmlinux"
            vmlinuz = find_vmlinuz(kernel.tree, kernel.release)
            vmlinux.write_bytes(extract_vmlinux(Sandbox(tool_root(config, "tools")), vmlinuz))
            (folder / _TABLE).write_text(_pfunct(kernel.tools, vmlinux, "--format_path=btf"))
            vmlinux.unlink()

    key = key_of(Path(__file__).read_bytes(), kernel.tree.name, kernel.tools.name)
    table = built_folder(config.cache / "lint" / f"prototypes-{name}-{key}", build, keep=8) / _TABLE
    return parse(table.read_text())


def module_prototypes(config: Config, name: str, debug: Path) -> dict[str, set[Prototype]]:
    """Return the types of all external functions that a module with DWARF defines or uses."""
    return parse(_pfunct(kernel_of(config, name).tools, debug, "--format_path=dwarf", "--externals"))


def parse(text: str) -> dict[str, set[Prototype]]:
    """Read what `pfunct --prototypes --no_parm_names` printed."""
    found: dict[str, set[Prototype]] = {}
    for match in filter(None, map(_LINE.match, text.splitlines())):
        parameters = re.sub(r"\b\w+\b", lambda word: _SPELLINGS.get(word[0], word[0]), match["parameters"])
        prototype = Prototype(" ".join(match["result"].split()), " ".join(parameters.split()))
        found.setdefault(match["name"], set()).add(prototype)
    return found


def differing(module: dict[str, set[Prototype]], kernel: dict[str, set[Prototype]]) -> list[str]:
    """Return a line for each function of the module's that the kernel has under that name, but of another type."""
    return [
        f"{name}: the module has {_either(module[name])}, the kernel has {_either(kernel[name])}"
        for name in sorted(module.keys() & kernel.keys())
        if not module[name] <= kernel[name]
    ]


def _either(prototypes: set[Prototype]) -> str:
    return " or ".join(sorted(map(str, prototypes)))


def _pfunct(root: Path, file: Path, *arguments: str) -> str:
    command = ["pfunct", "--prototypes", "--no_parm_names", *arguments, "/file"]
    return Sandbox(root).run(command, ro={file: "/file"}).stdout.decode()
