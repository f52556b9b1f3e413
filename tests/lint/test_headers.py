# SPDX-License-Identifier: MIT
"""Every source file says what licence it is under: GPL for what runs in or beside the kernel, MIT for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.config import PACKAGE_PARENT

FOLDERS = (".ci", "docs", "harness", "images", "kmod", "tests")
KINDS = {".py", ".toml", ".lock", ".c", ".h", ".md", ".sh", ".j2", ".html", ""}
NAMED_ELSEWHERE = "images/overlay/"  # files as the guest has them; images/guest/image.toml says where they go


def sources() -> Iterator[Path]:
    for path in PACKAGE_PARENT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            yield path
    for folder in FOLDERS:
        for path in (PACKAGE_PARENT / folder).rglob("*"):
            hidden = any(
                part.startswith((".", "__")) and part != ".ci" for part in path.parts[len(PACKAGE_PARENT.parts) :]
            )
            if path.is_file() and (not hidden or path.name == "__init__.py"):
                yield path


def test_licences() -> None:
    wrong, checked = [], 0
    for path in sources():
        name = path.relative_to(PACKAGE_PARENT).as_posix()
        if path.suffix not in KINDS or name.startswith(NAMED_ELSEWHERE) or path.name == "LICENSE":
            continue
        checked += 1
        runs_with_the_kernel = path.suffix in {".c", ".h"} or path.name == "Kbuild"
        wanted = "SPDX-License-Identifier: " + ("GPL-2.0-only" if runs_with_the_kernel else "MIT")
        if wanted not in "\n".join(path.read_text("utf-8").splitlines()[:3]):
            wrong.append(f"{name}: no {wanted} in its first three lines")
    assert checked > 50
    assert not wrong, "\n".join(wrong)
