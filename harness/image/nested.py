# SPDX-License-Identifier: MIT
"""A disk with which a guest starts virtual machines of its own: QEMU's microvm, a kernel, and a user space for them.

It is apart from the image, so that guests which start none stay small. images/nested/disk.toml says what is on it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.config import Config
from harness.document import read_toml
from harness.image.build import Image
from harness.image.erofs import make_erofs
from harness.image.initramfs import make_initramfs
from harness.image.modules import index_modules
from harness.image.programs import compile_program
from harness.image.recipe import GuestPath, ModuleName, Program
from harness.kernel import kernel_of
from harness.packages.lock import load_lock, lock_path
from harness.packages.recipe import RecipeName
from harness.progress import step
from harness.sandbox import Sandbox
from harness.store import built_folder, file_sha256, key_of, remove_tree
from harness.toolroot import tool_root, unpacked_groups

SERIAL = "nested"
"""Of the disk in the guest, by which it is found."""
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
KERNEL, INITRAMFS = "vmlinux", "initramfs"

_PAGE_BYTES = 4096
_DISK, _DIGEST = "disk.erofs", "disk.sha256"


class _Qemu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is taken of the recipe `tools`; the libraries of the program come along."""

    program: GuestPath
    firmware: list[GuestPath]


class _Modules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    boot: list[ModuleName]


class DiskRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """images/nested/disk.toml."""

    toolchain: RecipeName
    init: Program
    qemu: _Qemu
    modules: _Modules


@dataclass(frozen=True)
class NestedDisk:
    """The disk, and what is on it."""

    disk: Path
    """An erofs image."""
    sha256: str
    tree: Path
    """The folder that the disk's QEMU, firmware and libraries were taken from."""
    program: str
    """QEMU's path on the disk; LOADER, LIBRARIES, KERNEL and INITRAMFS are others."""
    firmware: tuple[str, ...]
    """Folders on the disk in which QEMU looks for its firmware."""
    files: tuple[str, ...]
    """Paths below `tree` of all regular files that were taken from there, sorted."""


def ensure_nested_disk(config: Config, image: Image) -> NestedDisk:
    """Return the disk for the guests of an image, whose kernel nested machines boot as well; build what is missing."""
    recipe = load_disk_recipe(config.images)
    tree = unpacked_groups(config, "tools", ["qemu"])
    key = key_of(
        image.sha256, tree.name, *(part for path in _inputs(config) for part in (path.name, path.read_bytes()))
    )

    def build(folder: Path) -> None:
        with step("Building the disk of nested machines"):
            _build(config, recipe, image, tree, folder)

    folder = built_folder(config.cache / "images" / f"nested-{image.kernel}-{key}", build, keep=3)
    return NestedDisk(
        disk=folder / _DISK,
        sha256=(folder / _DIGEST).read_text("ascii"),
        tree=tree,
        program=recipe.qemu.program,
        firmware=tuple(sorted({path.rpartition("/")[0] for path in recipe.qemu.firmware})),
        files=tuple(sorted((folder / "files").read_text("utf-8").splitlines())),
    )


def load_disk_recipe(images: Path) -> DiskRecipe:
    """Read disk.toml."""
    return read_toml(images / "nested/disk.toml", DiskRecipe)


def _folder(config: Config) -> Path:
    return config.images / "nested"


def _inputs(config: Config) -> Iterator[Path]:
    recipe = load_disk_recipe(config.images)
    load_lock(config.images, recipe.toolchain)  # whose errors name what is wrong
    yield lock_path(config.images, recipe.toolchain)
    yield from sorted(_folder(config).iterdir())
    yield from sorted((config.images / "guest/memwork").iterdir())
    yield from sorted(Path(__file__).parent.glob("*.py"))


def _build(config: Config, recipe: DiskRecipe, image: Image, tree: Path, folder: Path) -> None:
    scratch = folder / "scratch"
    stage = scratch / "disk"
    stage.mkdir(parents=True)
    tools = Sandbox(tool_root(config, "tools"))
    files = [recipe.qemu.program, *recipe.qemu.firmware, LOADER, *_libraries(Sandbox(tree), recipe.qemu.program)]
    for name in files:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        # Links are followed: a library is asked for by its soname.
        shutil.copyfile(tree / name, stage / name)
    for name in (LOADER, recipe.qemu.program):
        (stage / name).chmod(0o755)
    shutil.copyfile(image.vmlinux, stage / KERNEL)
    init = compile_program(Sandbox(tool_root(config, recipe.toolchain)), config.images, "init", recipe.init, scratch)
    kernel = kernel_of(config, image.kernel)
    index = index_modules(config, tools, kernel.tree, kernel.release)
    archive = make_initramfs({recipe.init.path: init}, index, kernel.tree, kernel.release, recipe.modules.boot)
    (stage / INITRAMFS).write_bytes(_padded(archive))
    make_erofs(tools, stage, folder / _DISK)
    remove_tree(scratch)
    (folder / "files").write_text("".join(f"{name}\n" for name in files), "utf-8")
    (folder / _DIGEST).write_text(file_sha256(folder / _DISK), "ascii")


def _padded(archive: bytes) -> bytes:
    """Fill up to whole pages.

    QEMU's microvm loads it as high in memory as pages allow (x86_load_linux() without room for ACPI, 10.0.13), where
    its firmware has put the ACPI tables. Of whole pages it leaves the last one to them; else it may end on top of them.
    """
    return archive + bytes(-len(archive) % _PAGE_BYTES)


def _libraries(sandbox: Sandbox, program: str) -> list[str]:
    """Ask the program's own loader for the libraries that it needs, and return their paths."""
    said = sandbox.run([f"/{LOADER}", "--list", f"/{program}"]).stdout.decode()
    found = [line.split(" => ")[1].split()[0] for line in said.splitlines() if " => " in line]
    names = {path.rpartition("/")[2] for path in found} - {LOADER.rpartition("/")[2]}
    return sorted(f"{LIBRARIES}/{name}" for name in names)
