# SPDX-License-Identifier: MIT
"""Lock files: `images/NAME.lock` pins every package of a recipe by version and sha256."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from harness.document import read_toml
from harness.errors import SamepageError

_Meta = msgspec.Meta


class Package(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One exact .deb, or a source package's archive.

    `path` is its place below the root of a Debian mirror, `size` is in bytes.
    """

    name: Annotated[str, _Meta(pattern=r"^[a-z0-9][a-z0-9+.-]+\Z")]
    version: Annotated[str, _Meta(pattern=r"^[A-Za-z0-9.+:~-]+\Z")]
    suite: Annotated[str, _Meta(pattern=r"^[a-z][a-z-]*\Z")]
    groups: Annotated[list[Annotated[str, _Meta(pattern=r"^[a-z][a-z0-9-]*\Z")]], _Meta(min_length=1)]
    size: Annotated[int, _Meta(gt=0)]
    sha256: Annotated[str, _Meta(pattern=r"^[0-9a-f]{64}\Z")]
    # No component of the path may start with a dot: that keeps it below the mirror's root.
    path: Annotated[str, _Meta(pattern=r"^pool(/[A-Za-z0-9+_~%:-][A-Za-z0-9.+_~%:-]*)+\.(deb|orig\.tar\.xz)\Z")]


class Lock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The packages of one recipe, and when the snapshot service is sure to have had them."""

    format: Literal[1]
    snapshot: Annotated[str, _Meta(pattern=r"^[0-9]{8}T[0-9]{6}Z\Z")]
    release: Annotated[str, _Meta(pattern=r"^[0-9][a-z0-9.+-]*\Z")] | None = None
    """Of a kernel's lock: what `uname -r` says."""
    package: list[Package]

    def of_groups(self, groups: Collection[str]) -> list[Package]:
        """Return the packages that belong to at least one of `groups`."""
        return [package for package in self.package if not set(groups).isdisjoint(package.groups)]


def lock_path(images: Path, name: str) -> Path:
    """Return where the lock file of recipe `name` is."""
    return images / f"{name}.lock"


def renew_command(name: str) -> str:
    """Return the command that writes a fresh lock for recipe `name`."""
    return f"samepage lock {name}"


def load_lock(images: Path, name: str) -> Lock:
    """Read the lock file of recipe `name`; the error names the place, and the command that writes the file."""
    path = lock_path(images, name)
    lock = read_toml(path, Lock, hint=f"Renew it with: {renew_command(name)}")
    seen: set[str] = set()
    for package in lock.package:
        if package.name in seen:
            raise SamepageError(f"package {package.name} is listed twice", where=path)
        seen.add(package.name)
    return lock


def dump_lock(lock: Lock, name: str) -> str:
    """Return a lock as text: one line a package, so that a renewal reads well as a diff."""
    lines = [
        "# SPDX-License-Identifier: MIT",
        f"# Written by `{renew_command(name)}`; do not edit.",
        "format = 1",
        f'snapshot = "{lock.snapshot}"',
        *([] if lock.release is None else [f'release = "{lock.release}"']),
        "package = [",
        *(_package_line(package) for package in sorted(lock.package, key=lambda package: package.name)),
        "]",
    ]
    return "\n".join(lines) + "\n"


def _package_line(package: Package) -> str:
    # The schema admits nothing in these strings that TOML would want escaped.
    groups = ", ".join(f'"{group}"' for group in package.groups)
    return (
        f'  {{ name = "{package.name}", version = "{package.version}", suite = "{package.suite}", '
        f'groups = [{groups}], size = {package.size}, sha256 = "{package.sha256}", path = "{package.path}" }},'
    )


def write_lock(images: Path, name: str, lock: Lock) -> Path:
    """Write the lock file of recipe `name`, whole or not at all, and return its path."""
    path = lock_path(images, name)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(dump_lock(lock, name), "utf-8")
    partial.replace(path)
    return path
