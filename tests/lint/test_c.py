# SPDX-License-Identifier: MIT
"""Our C: no warning of the compiler or of sparse in the module, kernel style throughout."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import PACKAGE_PARENT, Config, load_config
from harness.lint.checkpatch import checkpatch_findings
from harness.lint.kbuild import module_findings


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(PACKAGE_PARENT)


def test_module_has_no_warning(config: Config) -> None:
    findings = module_findings(config, config.module, config.kernel)
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(
    "folder",
    ["kmod", "images/attack", "images/bench", "images/guest", "images/nested", "images/plugin", "images/profile"],
)
def test_kernel_style(config: Config, folder: str) -> None:
    base = PACKAGE_PARENT / folder
    files = sorted([*base.rglob("*.c"), *base.rglob("*.h")])
    assert files
    findings = checkpatch_findings(config, base, files, config.kernel)
    assert not findings, "\n".join(findings)


BAD_MODULE = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/uaccess.h>
int undeclared(void __user *from) { return *(int *)from; }
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("what the checks must find");
"""


def test_the_checks_find_what_is_bad(config: Config, tmp_path: Path) -> None:
    (tmp_path / "Kbuild").write_text("obj-m := bad.o\n")
    bad = tmp_path / "bad.c"
    bad.write_text(BAD_MODULE)
    findings = "\n".join(module_findings(config, tmp_path, config.kernel))
    assert "missing-prototypes" in findings  # the compiler's
    assert "removes address space '__user'" in findings  # sparse's
    bad.write_text(BAD_MODULE.replace("return", "if(from) return"))
    assert "SPACING" in "\n".join(checkpatch_findings(config, tmp_path, [bad], config.kernel))
