# SPDX-License-Identifier: MIT
"""The module with one text of its sources replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.config import Config
from harness.module.build import BuiltModule, build_module


def changed(config: Config, folder: Path, file: str, old: str, new: str) -> BuiltModule:
    """Build the module from a copy in which one text is replaced."""
    copy = folder / "kmod"
    shutil.copytree(config.root / "kmod", copy)
    text = (copy / file).read_text()
    assert text.count(old) == 1
    (copy / file).write_text(text.replace(old, new))
    return build_module(config, copy, config.kernel)
