# SPDX-License-Identifier: MIT
"""The guest's root file system: locked packages, what their maintainer scripts would have done, and our own files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from harness.config import Config
from harness.progress import step
from harness.sandbox import Sandbox
from harness.store import built_folder, key_of, remove_tree
from harness.toolroot import unpacked_groups

# Raised when the same packages come to be made into another base tree.
_METHOD = "1"

_UNNEEDED_PYTHON = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "turtledemo")


def base_tree(config: Config) -> Path:
    """Return a folder with the guest's packages, ready to be run in: linker cache and compiled Python modules."""
    packages = unpacked_groups(config, "guest", ["guest"])

    def build(partial: Path) -> None:
        copy_tree(packages, partial)
        with step("Compiling the guest's Python modules"):
            _compile_python(partial)
        Sandbox(partial).run(["ldconfig", "-X"], rw={partial / "etc": "/etc"})
        remove_tree(partial / "var/cache/ldconfig")

    return built_folder(config.cache / "roots" / f"guest-base-{key_of(_METHOD, packages.name)}", build, keep=2)


def _compile_python(tree: Path) -> None:
    """Start-up under emulation is mostly the compiling of modules: do that now.

    Hash-based .pyc files hold no time; one process and a fixed hash seed give the same bytes each time.
    """
    (library,) = tree.glob("usr/lib/python3.*")
    for name in _UNNEEDED_PYTHON:
        remove_tree(library / name)
    inside = f"/usr/lib/{library.name}"
    line = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", inside]
    Sandbox(tree).run(line, rw={library: inside}, env={"PYTHONHASHSEED": "0"})


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder's content into an existing folder, links as links, modes kept."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def root_tree(base: Path, overlay: Path, programs: Mapping[str, Path], links: Mapping[str, str], stage: Path) -> None:
    """Fill `stage` with everything that is in the root: `programs` and `links` map paths in it to files and targets."""
    copy_tree(base, stage)
    for source in sorted(path for path in overlay.rglob("*") if path.is_file()):
        executable = os.access(source, os.X_OK)
        _install(source, stage / source.relative_to(overlay), 0o755 if executable else 0o644)
    for path, program in programs.items():
        _install(program, stage / path, 0o755)
    for path, target in links.items():
        (stage / path).unlink(missing_ok=True)
        (stage / path).symlink_to(target)
    _make_folder(stage / "usr/lib/modules")
    _make_folder(stage / "root")


def _install(source: Path, target: Path, mode: int) -> None:
    """The modes are ours, not those of the checkout, which depend on the umask."""
    _make_folder(target.parent)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _make_folder(folder: Path) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        made.chmod(0o755)
