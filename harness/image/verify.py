# SPDX-License-Identifier: MIT
"""Proof that an image is reproducible: build it again from nothing but the packages, and compare."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from harness.config import Config
from harness.errors import CheckFailed
from harness.image.build import Image, ensure_image
from harness.progress import step
from harness.store import remove_tree

_CHUNK = 1 << 20


def verify_image(config: Config, kernel: str) -> Image:
    """Build the image for `kernel` a second time in an empty cache elsewhere, and compare every byte.

    Only the downloaded packages are shared, and their sha256 is checked again as they are unpacked.
    Raises CheckFailed, naming the first file and offset that differ.
    """
    image = ensure_image(config, kernel)
    (config.cache / "packages").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="samepage-verify-", dir=config.cache.parent))
    try:
        (folder / "packages").symlink_to(config.cache / "packages")
        with step("Building the image a second time"):
            again = ensure_image(dataclasses.replace(config, cache=folder), kernel)
        with step("Comparing"):
            for first, second in zip(image.files(), again.files(), strict=True):
                compare_files(first, second)
        if image.sha256 != again.sha256:
            raise CheckFailed(f"the recorded sha256 is not that of the files: {image.sha256}", where=image.root.parent)
    finally:
        remove_tree(folder)
    return image


def compare_files(first: Path, second: Path) -> None:
    """Raise CheckFailed with the offset of the first byte in which two files differ, if they do."""
    sizes = first.stat().st_size, second.stat().st_size
    with first.open("rb") as one, second.open("rb") as two:
        offset = 0
        while True:
            a, b = one.read(_CHUNK), two.read(_CHUNK)
            if a != b:
                at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
                raise CheckFailed(
                    f"is not the same when built again: they differ from byte {offset + at} on"
                    f" (sizes {sizes[0]} and {sizes[1]})",
                    where=first,
                )
            if not a:
                return
            offset += len(a)
