# SPDX-License-Identifier: MIT
"""Recipes: `images/NAME.toml` says which packages are needed; `images/NAME.lock` pins them (see lock.py)."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from harness.errors import SamepageError

PackageName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9{][a-z0-9+.{}-]+\Z")]
"""A package; `{release}` in it stands for the kernel's release, `{abi}` for that without the flavour (`-amd64`)."""

Pattern = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9+.*?-]+\Z")]
"""A shell pattern for names of packages."""


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
    compiler: str
    """The compiler that Debian built this kernel with."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One recipe: where packages come from, which groups there are, and what an unpacked tree leaves out."""

    suites: Annotated[list[Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z-]*\Z")]], msgspec.Meta(min_length=1)]
    """Debian suites, the preferred one first."""
    group: Annotated[dict[str, Group], msgspec.Meta(min_length=1)]
    kernel: Kernel | None = None
    drop: list[str] = []
    """Shell patterns of paths that are not unpacked, relative to the root."""
    link: dict[str, str] = {}
    """Symbolic links (path: target) that the packages' maintainer scripts would make."""


_T = TypeVar("_T")


def read_toml(path: Path, schema: type[_T], hint: str | None = None) -> _T:
    """Read a TOML file that must fit `schema`; the error names the file and the place in it."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), schema)
    except OSError as error:
        raise SamepageError(f"cannot be read: {error.strerror}", where=path, hint=hint) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SamepageError(f"is not valid TOML: {error}", where=path, hint=hint) from error
    except msgspec.ValidationError as error:
        raise SamepageError(str(error), where=path, hint=hint) from error


def load_recipe(images: Path, name: str) -> Recipe:
    """Read `NAME.toml` in the folder `images`."""
    known = ", ".join(sorted(path.stem for path in images.glob("*.toml")))
    return read_toml(images / f"{name}.toml", Recipe, hint=f"Recipes in {images}: {known or 'none'}")
