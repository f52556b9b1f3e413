# SPDX-License-Identifier: MIT
"""Every source file says what licence it is under: GPL for what runs in or beside the kernel, MIT for the rest."""

from __future__ import annotations

import subprocess

import pytest

from harness.config import PACKAGE_PARENT

CHECKED = {".py", ".toml", ".lock", ".c", ".h", ".md", ".sh", ".j2", ".html", ""}
WITHOUT = {"LICENSE", ".gitignore", ".checkpatch.conf"}
OVERLAY = "images/overlay/"  # files as the guest has them
KERNEL_SIDE = ("kmod/", "images/guest/")


def tracked_files() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PACKAGE_PARENT, capture_output=True, text=True, timeout=60, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.split("\0") if name]


def test_licences() -> None:
    wrong = []
    for name in tracked_files():
        path = PACKAGE_PARENT / name
        if path.suffix not in CHECKED or path.name in WITHOUT or name.startswith(OVERLAY) or not path.is_file():
            continue
        kernel_side = name.startswith(KERNEL_SIDE) and path.suffix in {".c", ".h", ""}
        wanted = "SPDX-License-Identifier: " + ("GPL-2.0-only" if kernel_side else "MIT")
        if wanted not in "\n".join(path.read_text("utf-8").splitlines()[:3]):
            wrong.append(f"{name}: no {wanted} in its first three lines")
    assert not wrong, "\n".join(wrong)
