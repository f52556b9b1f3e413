# SPDX-License-Identifier: MIT
"""Our own programs in the guest: compiled statically with the locked compiler, at a fixed path."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from harness.errors import CheckFailed, SamepageError
from harness.image.recipe import Program
from harness.sandbox import Sandbox

_FLAGS = ["-std=gnu11", "-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror"]


def program_sources(folder: Path, name: str, program: Program) -> list[str]:
    """Return the sources of a program, relative to `folder`, sorted."""
    found = {
        path.relative_to(folder).as_posix()
        for pattern in program.sources
        for path in folder.glob(pattern)
        if not any(fnmatchcase(path.relative_to(folder).as_posix(), unwanted) for unwanted in program.without)
    }
    if not found:
        raise SamepageError(f"no source of the program {name} matches {', '.join(program.sources)}", where=folder)
    return sorted(found)


def compile_program(toolchain: Sandbox, folder: Path, name: str, program: Program, out: Path) -> Path:
    """Compile one program into the folder `out` and return its file; CheckFailed with gcc's messages if it does not."""
    sources = program_sources(folder, name, program)
    line = ["gcc", *_FLAGS, "-o", f"/out/{name}", *sources, *program.flags]
    result = toolchain.run(line, ro={folder: "/src"}, rw={out: "/out"}, cwd="/src", check=False)
    if result.returncode != 0:
        raise CheckFailed(f"{name} does not compile:\n{result.stderr.decode(errors='replace').strip()}", where=folder)
    return out / name
