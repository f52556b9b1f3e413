# SPDX-License-Identifier: MIT
"""`images/guest/image.toml`: our own programs in the guest, and which of the kernel's modules it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from harness.document import Text, read_toml
from harness.packages.recipe import RecipeName, TreePath

GuestPath = TreePath
"""A path in the guest, relative to its root."""

ModuleName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]*\Z")]

SourcePattern = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_*?][A-Za-z0-9_.*?-]*(/[A-Za-z0-9_*?][A-Za-z0-9_.*?-]*)*\Z")
]
"""A shell pattern for sources, none of which lies outside of the folder."""


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A static C program."""

    sources: Annotated[list[SourcePattern], msgspec.Meta(min_length=1)]
    """Shell patterns, relative to images/guest."""
    without: list[Text] = []
    """Patterns of files that `sources` would match but that belong to another program."""
    flags: list[Text] = []
    """More options for the compiler."""
    path: GuestPath
    links: list[GuestPath] = []
    """More names of the same file."""
    initramfs: GuestPath | None = None
    """Where it is in the initramfs as well."""


class Modules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kernel modules by name; their dependencies come along. What the kernel has built in may be named too."""

    boot: list[ModuleName]
    root: list[ModuleName]


class ImageRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about an image that is not a Debian package."""

    toolchain: RecipeName
    program: dict[ModuleName, Program]
    modules: Modules


def guest_sources(images: Path) -> Path:
    """Return the folder of image.toml and of the guest programs' sources."""
    return images / "guest"


def overlay_folder(images: Path) -> Path:
    """Return the folder whose files are laid over the unpacked packages."""
    return images / "overlay"


def load_image_recipe(images: Path) -> ImageRecipe:
    """Read image.toml."""
    return read_toml(guest_sources(images) / "image.toml", ImageRecipe)
