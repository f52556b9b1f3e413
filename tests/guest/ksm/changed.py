# SPDX-License-Identifier: MIT
"""The module with one text of its sources replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.config import Config
from harness.module.build import BuiltModule, build_module


def changed(config: Config, folder: Path, file: str, old: str, new: str) -> BuiltModule:
    """Build the module from a copy in which one text is replaced.

    It counts no lines: Linux 6.12 adds the counts of a module to those of an unloaded one of its name whatever their
    layout is, as the stamp by which it knows them is the same (gcc 14 with -frandom-seed): out of bounds.
    """
    copy = folder / "kmod"
    shutil.copytree(config.root / "kmod", copy)
    text = (copy / file).read_text()
    assert text.count(old) == 1
    (copy / file).write_text(text.replace(old, new))
    kbuild = (copy / "Kbuild").read_text()
    assert kbuild.count("GCOV_PROFILE := y") == 1
    (copy / "Kbuild").write_text(kbuild.replace("GCOV_PROFILE := y", "GCOV_PROFILE := n"))
    return build_module(config, copy, config.kernel)
