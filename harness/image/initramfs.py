# SPDX-License-Identifier: MIT
"""An initramfs: programs, the kernel modules that they load first, and the order in which they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.image.cpio import newc_archive
from harness.image.modules import ModuleIndex, read_module


def make_initramfs(
    programs: Mapping[str, Path], index: ModuleIndex, package_tree: Path, release: str, boot: Iterable[str]
) -> bytes:
    """Return an archive with `programs` (path in it: file), the modules `boot` with what they need, and /modules.load.

    /modules.load names each module's file in a line of its own, in the order of their dependencies.
    """
    files = {path: (0o755, program.read_bytes()) for path, program in programs.items()}
    return newc_archive(files | module_files(index, package_tree, release, boot))


def module_files(
    index: ModuleIndex, package_tree: Path, release: str, boot: Iterable[str]
) -> dict[str, tuple[int, bytes]]:
    """Return the modules and /modules.load of such an archive: path to mode and content."""
    files, load = {}, []
    for path in index.load_order(boot, every_provider=False):
        name = f"modules/{Path(path).name.removesuffix('.xz')}"
        files[name] = (0o644, read_module(package_tree, release, path))
        load.append(f"/{name}\n")
    files["modules.load"] = (0o644, "".join(load).encode())
    return files
