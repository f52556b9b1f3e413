# SPDX-License-Identifier: MIT
"""Out-of-tree modules: source folder in, loadable .ko out, the same bytes wherever and whenever it is built.

The source is copied into a work folder of the cache, which appears to kbuild as /build/module: paths inside the module
do not depend on the machine. The work folder keeps its objects, so that the next build compiles only what changed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from harness.config import Config
from harness.document import is_text, read_bytes
from harness.errors import CheckFailed, SamepageError
from harness.kernel import Kernel, base_of, kernel_of
from harness.module.prototypes import differing, kernel_prototypes, module_prototypes
from harness.progress import step
from harness.sandbox import Sandbox
from harness.store import built_folder, exclusive, file_sha256, key_of

BUILD_PATH = "/build/module"

_PRODUCTS = (
    "*.o",
    "*.ko",
    "*.mod",
    "*.mod.c",
    ".*",
    "Module.symvers",
    "modules.order",
    "*.symversions",
    "*.probed",
    "*.gcno",
    "__pycache__",
)
_TIMEOUT = 900
_NOTES = "notes"
_PLACED = ".placed"
"""In a work folder: the names of the sources there, a line each."""
# Raised when modules come to be built in another way from the same inputs.
_METHOD = "2"


@dataclass(frozen=True)
class BuiltModule:
    """A module ready to be loaded into a guest that runs kernel `release`."""

    name: str
    ko: Path
    """Without debug information: this is what a guest loads."""
    sha256: str
    """Of `ko`."""
    release: str
    debug: Path
    """The same module with DWARF, for decoding addresses."""
    notes: Path
    """A folder with gcov's notes of each object file; there is none where the kernel does not count lines."""


@dataclass(frozen=True)
class Kbuild:
    """kbuild of one pinned kernel, ready to run over a module's source."""

    config: Config
    kernel: Kernel

    @property
    def root(self) -> Path:
        """The tool root that it runs in."""
        return self.kernel.tools

    @property
    def made_from(self) -> tuple[str, str]:
        """What it is: the name of a tool root or a built kernel holds the hash of everything in it."""
        return self.kernel.tools.name, self.kernel.tree.name

    @property
    def release(self) -> str:
        """What `uname -r` says where the module is loaded."""
        return self.kernel.release

    def make(self, work: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
        """Run kbuild over the folder `work` (seen as /build/module) and return what it said."""
        return Sandbox(self.root).run(
            [
                "make",
                f"--jobs={self.config.jobs}",
                "--no-print-directory",
                f"--directory={self.kernel.headers}",
                f"M={BUILD_PATH}",
                *(f"{name}={value}" for name, value in variables.items()),
                "modules",
            ],
            ro=self.kernel.mounts,
            rw={work: BUILD_PATH},
            env={"KBUILD_BUILD_TIMESTAMP": "@0", "KBUILD_BUILD_USER": "samepage", "KBUILD_BUILD_HOST": "samepage"},
            timeout=_TIMEOUT,
            check=False,
        )


def kbuild_for(config: Config, kernel: str) -> Kbuild:
    """Return kbuild of a kernel, fetching or building it if need be."""
    return Kbuild(config, kernel_of(config, kernel))


def build_module(config: Config, source: Path, kernel: str) -> BuiltModule:
    """Build the module in folder `source` for a pinned kernel; quick when that content was built before.

    Raises CheckFailed with the compiler's messages when it does not build.
    """
    source = source.resolve()
    files = source_files(source)
    kbuild = kbuild_for(config, kernel)
    variables = {} if config.module_btf else {"CONFIG_DEBUG_INFO_BTF_MODULES": ""}
    checks = "prototypes" if config.module_prototypes else ""
    key = key_of(_METHOD, *kbuild.made_from, str(variables), checks, *(part for item in files.items() for part in item))

    def build(folder: Path) -> None:
        with step(f"Building {source.name} for Linux {kbuild.release}"):
            debug = _compile(kbuild, source, files, variables, folder)
            if config.module_prototypes:
                _check_prototypes(kbuild, source, debug)
            strip = ["strip", "--strip-debug", f"/out/{debug.name}", "-o", f"/out/{debug.stem}.ko"]
            Sandbox(kbuild.root).run(strip, rw={folder: "/out"})

    folder = built_folder(config.cache / "modules" / f"{kernel}-{key}", build, keep=32)
    (ko,) = folder.glob("*.ko")
    return BuiltModule(
        name=ko.stem.replace("-", "_"),
        ko=ko,
        sha256=file_sha256(ko),
        release=kbuild.release,
        debug=folder / f"{ko.stem}.debug",
        notes=folder / _NOTES,
    )


def source_files(source: Path) -> dict[str, bytes]:
    """Return the content of every source file of a module by its path in the folder (not what a build leaves there)."""
    if not any((source / name).is_file() for name in ("Kbuild", "Makefile")):
        raise SamepageError("has no Kbuild file and no Makefile", where=source, hint="Set `module` in [tool.samepage].")
    return {path.relative_to(source).as_posix(): read_bytes(path) for path in sorted(_walk(source))}


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if any(fnmatchcase(path.name, pattern) for pattern in _PRODUCTS):
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file() and is_text(path.name):
            yield path
        else:  # a pipe would be waited for; what a link lacks, or a name that no list can hold, fails somewhere else
            raise SamepageError("is no file that a module can be built from", where=ascii(str(path)))


def work_folder(kbuild: Kbuild, source: Path, purpose: str) -> Path:
    """Return the folder of the cache in which kbuild keeps its objects of this source for this kernel and purpose."""
    key = key_of(_METHOD, *kbuild.made_from, str(source.resolve()), purpose)
    return kbuild.config.cache / "work" / f"{kbuild.kernel.name}-{key}"


def synchronise(files: Mapping[str, bytes], work: Path) -> None:
    """Make the sources in `work` equal to `files`.

    What is equal already is not touched (make looks at times), and neither is what a build made there.
    """
    work.mkdir(parents=True, exist_ok=True)
    placed = work / _PLACED
    before = placed.read_text().splitlines() if placed.is_file() else []
    placed.write_text("".join(f"{name}\n" for name in sorted({*before, *files})))
    for name in set(before) - files.keys():
        (work / name).unlink(missing_ok=True)
    for name, data in files.items():
        path = work / name
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    placed.write_text("".join(f"{name}\n" for name in sorted(files)))


def _compile(kbuild: Kbuild, source: Path, files: Mapping[str, bytes], variables: Mapping[str, str], out: Path) -> Path:
    """Bring the work folder up to date, copy NAME.ko from it to NAME.debug in `out`, and return that.

    gcov's notes, if there are any, are copied as well.
    """
    work = work_folder(kbuild, source, str(variables))
    with exclusive(work.with_name(work.name + ".lock")):
        synchronise(files, work)
        for stale in work.glob("*.ko"):
            stale.unlink()
        result = kbuild.make(work, variables)
        said = (result.stdout + result.stderr).decode(errors="replace").replace(BUILD_PATH, str(source))
        if result.returncode != 0:
            raise CheckFailed(f"does not build for Linux {kbuild.release}:\n{said.strip()}", where=source)
        modules = list(work.glob("*.ko"))
        if len(modules) != 1:
            names = ", ".join(path.name for path in modules) or "none"
            raise CheckFailed(f"one .ko was expected in the top folder, found: {names}", where=source)
        for note in work.rglob("*.gcno"):
            path = out / _NOTES / note.relative_to(work)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(note, path)
        return Path(shutil.copyfile(modules[0], out / f"{modules[0].stem}.debug"))


def _check_prototypes(kbuild: Kbuild, source: Path, debug: Path) -> None:
    """Raise CheckFailed where the module has another type for a function than the kernel.

    Options change types: a kernel that is built here is like the one that it is built from, but has no BTF to ask.
    """
    name = kbuild.kernel.name
    if base_of(kbuild.config, name) != name:
        return
    ours = module_prototypes(kbuild.config, name, debug)
    wrong = differing(ours, kernel_prototypes(kbuild.config, name))
    if wrong:
        lines = "\n".join(wrong)
        raise CheckFailed(
            f"has other types than Linux {kbuild.release} for functions of these names:\n{lines}", where=source
        )
