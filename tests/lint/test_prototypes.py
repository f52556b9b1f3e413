# SPDX-License-Identifier: MIT
"""What the module repeats of the kernel's internal prototypes is what that kernel's own BTF says, or it does not build.

On another kernel: --samepage-kernel. Every build checks the functions of the kernel's own names; the pairs that the
livepatch is made of are checked here.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from harness.config import Config
from harness.errors import CheckFailed
from harness.module.build import build_module
from harness.module.prototypes import Prototype, kernel_prototypes, module_prototypes

SHIM = "__SCT__sp_shim_"
# Ours on the left has the type of the kernel's on the right.
SAME_TYPE = {
    "sp_original_enter": "__ksm_enter",
    "sp_original_exit": "__ksm_exit",
    "__SCT__sp_lookup": "kallsyms_lookup_name",
}
Types = dict[str, set[Prototype]]


@pytest.fixture(scope="module")
def types(config: Config) -> tuple[Types, Types]:
    """The module's functions, and the kernel's."""
    module = build_module(config, config.root / "kmod", config.kernel)
    ours = module_prototypes(config, config.kernel, module.debug)
    return ours, kernel_prototypes(config, config.kernel)


def test_every_shim_has_the_kernels_type(types: tuple[Types, Types]) -> None:
    ours, theirs = types
    shims = [name.removeprefix(SHIM) for name in ours if name.startswith(SHIM)]
    assert len(shims) > 15
    assert {name: ours[name] for name in shims} == {name: theirs.get(name) for name in shims}
    assert {name: ours[SHIM + name] for name in shims} == {name: theirs.get(name) for name in shims}


def test_every_replacement_has_the_originals_type(config: Config, types: tuple[Types, Types]) -> None:
    ours, theirs = types
    text = (config.root / "kmod/compat/functions.def").read_text()
    pairs = {new: old for old, new in re.findall(r"^FUNCTION\((\w+), (\w+)\)$", text, re.MULTILINE)}
    pairs = {new: old for new, old in pairs.items() if old in theirs} | SAME_TYPE
    if "ksm_enable_merge_any" in theirs:  # of a kernel with the prctl: what stands in for it is not needed
        pairs = {new: old for new, old in pairs.items() if new not in STAND_INS}
    assert len(pairs) >= 6 + len(SAME_TYPE)
    assert {new: ours.get(new) for new in pairs} == {new: theirs.get(old) for new, old in pairs.items()}


def test_a_wrong_prototype_is_a_failed_build(config: Config, tmp_path: Path) -> None:
    """Planted where it is repeated and where it is used, so that the compiler has nothing to say."""
    copy = tmp_path / "kmod"
    shutil.copytree(config.root / "kmod", copy)
    replace(copy / "compat/compat.h", RIGHT, "struct anon_vma *folio_anon_vma(struct page *folio);")
    replace(
        copy / "compat/symbols.def",
        RIGHT_SHIM,
        "SHIM(struct anon_vma *, folio_anon_vma, (struct page *folio), (folio))",
    )
    for name, argument in (("merge.c", "f->folio"), ("rmap.c", "folio")):
        replace(copy / name, f"folio_anon_vma({argument})", f"folio_anon_vma((void *){argument})")
    with pytest.raises(CheckFailed, match=r"\nfolio_anon_vma: the module has .*, the kernel has struct anon_vma \* \("):
        build_module(config, copy, config.kernel)


STAND_INS = {"sp_hook_task_prctl", "sp_hook_begin_new_exec", "sp_hook_mmap_event", "sp_hook_ksm_stat"}

RIGHT = "struct anon_vma *folio_anon_vma(sp_collect_const struct folio *folio);"
RIGHT_SHIM = "SHIM(struct anon_vma *, folio_anon_vma, (sp_collect_const struct folio *folio), (folio))"


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name}: {old}"
    file.write_text(text.replace(old, new))
