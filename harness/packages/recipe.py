# SPDX-License-Identifier: MIT
"""Recipes: `images/NAME.toml` says which packages are needed; `images/NAME.lock` pins them (see lock.py)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec

from harness.document import Text, read_toml
from harness.errors import SamepageError

PackageName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9{][a-z0-9+.{}-]+\Z")]
"""A package; `{release}` in it stands for the kernel's release, `{abi}` for that without the flavour (`-amd64`)."""

Pattern = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9+.*?-]+\Z")]
"""A shell pattern for names of packages."""


_NAME = r"[a-z0-9][a-z0-9.-]*"
RecipeName = Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}\Z")]
"""Another recipe, in the same folder."""

TreePath = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z")]
"""A path in a tree, relative to its root, which it cannot leave."""


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Packages that are fetched together."""

    packages: list[PackageName]
    dependencies: bool = True
    """Add everything that the packages depend on (not what they recommend)."""
    source: bool = False
    """These are source packages: of each, the archive of the original source is fetched."""
    without: list[Pattern] = []
    """Dependencies that are not needed for what the packages are used for here."""


class Kernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is particular to one kernel."""

    metapackage: PackageName
    """Its dependency `linux-image-RELEASE` names the newest release when the lock is renewed."""
    compiler: Text
    """The compiler that Debian built this kernel with."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One recipe: where packages come from, which groups there are, and what an unpacked tree leaves out."""

    suites: Annotated[list[Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z-]*\Z")]], msgspec.Meta(min_length=1)]
    """Debian suites, the preferred one first."""
    group: Annotated[dict[str, Group], msgspec.Meta(min_length=1)]
    kernel: Kernel | None = None
    drop: list[Text] = []
    """Shell patterns of paths that are not unpacked, relative to the root."""
    link: dict[TreePath, Text] = {}
    """Symbolic links (path: target) that the packages' maintainer scripts would make."""


def is_name(text: str) -> bool:
    """Say whether this can be the name of a recipe: it leads to no other folder."""
    return re.fullmatch(_NAME, text) is not None


def recipe_path(images: Path, name: str) -> Path:
    """Return where the recipe `name` is. Raises SamepageError for what is no name."""
    path = images / f"{name}.toml"
    if not is_name(name):
        raise SamepageError("a recipe's name holds small letters, digits, '.' and '-'", where=path, hint=_known(images))
    return path


def load_recipe(images: Path, name: str) -> Recipe:
    """Read `NAME.toml` in the folder `images`."""
    return read_toml(recipe_path(images, name), Recipe, hint=_known(images))


def _known(images: Path) -> str:
    names = ", ".join(sorted(path.stem for path in images.glob("*.toml")))
    return f"Recipes in {images}: {names or 'none'}"
