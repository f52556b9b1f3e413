# SPDX-License-Identifier: MIT
"""`images/kernels/NAME.toml`: a kernel that is built from another recipe's source package, with other options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from harness.document import Text, read_toml
from harness.packages.recipe import is_name

Fragment = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]+\.config\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]*\Z")]


class BuiltKernelRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a kernel is configured, and what its guests need."""

    base: Name
    """The recipe `kernel-BASE`, whose source it is built from."""
    fragments: Annotated[list[Fragment], msgspec.Meta(min_length=1)]
    """Options on top of allnoconfig; files beside the recipe, a later one has the last word."""
    make: list[Annotated[str, msgspec.Meta(pattern=r"^[A-Z_]+=[a-z0-9]*\Z")]] = []
    """Variables of kbuild's for the kernel's own code; modules that are built for it do not get them."""
    append: list[Text] = []
    """Kernel arguments of every guest."""
    pvh: bool = True
    """Whether it may be started by PVH, uncompressed."""
    memory_factor: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    """Guests have so many times the memory that was asked for."""
    time_factor: Annotated[float, msgspec.Meta(ge=1, le=100)] = 1
    """Every time limit for a guest is multiplied by this."""


def built_kernels(images: Path) -> list[str]:
    """Return the names of all kernels that are built here."""
    return sorted(path.stem for path in (images / "kernels").glob("*.toml"))


def built_recipe(images: Path, name: str) -> BuiltKernelRecipe | None:
    """Return the recipe of the kernel `name`, None where that is not one that is built here."""
    path = images / "kernels" / f"{name}.toml"
    return read_toml(path, BuiltKernelRecipe) if is_name(name) and path.is_file() else None


def fragment_paths(images: Path, recipe: BuiltKernelRecipe) -> list[Path]:
    """Return the files with a kernel's options."""
    return [images / "kernels" / name for name in recipe.fragments]
