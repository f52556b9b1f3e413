# SPDX-License-Identifier: MIT
"""Choosing and ordering the kernel's modules, from depmod's text files."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SamepageError
from harness.image.modules import ModuleIndex, canonical

DEP = """\
kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/arch/x86/crypto/crc32c-intel.ko.xz:
kernel/arch/x86/kvm/kvm-amd.ko.xz: kernel/drivers/crypto/ccp/ccp.ko.xz kernel/arch/x86/kvm/kvm.ko.xz
kernel/arch/x86/kvm/kvm.ko.xz:
kernel/drivers/crypto/ccp/ccp.ko.xz:
kernel/a.ko: kernel/b.ko
kernel/b.ko:
"""
SOFTDEP = """\
# Soft dependencies extracted from modules themselves.
softdep libcrc32c pre: crc32c
softdep a pre: nothing-has-this post: b
softdep b post: a
"""
ALIAS = """\
alias crc32c crc32c_intel
alias crc32c crc32c_generic
alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel
"""


@pytest.fixture
def index(tmp_path: Path) -> ModuleIndex:
    for name, text in (("dep", DEP), ("softdep", SOFTDEP), ("alias", ALIAS), ("builtin", "kernel/fs/ext2/virtio.ko\n")):
        (tmp_path / f"modules.{name}").write_text(text)
    return ModuleIndex.from_depmod(tmp_path)


def names(paths: list[str]) -> list[str]:
    return [canonical(path) for path in paths]


def test_canonical() -> None:
    assert (
        canonical("kernel/arch/x86/kvm/kvm-amd.ko.xz") == canonical("kvm_amd") == canonical("kvm-amd.ko") == "kvm_amd"
    )


def test_soft_dependencies_come_first_and_the_boot_takes_the_generic_one(index: ModuleIndex) -> None:
    order = names(index.load_order(["erofs"], every_provider=False))
    assert order == ["crc32c_generic", "libcrc32c", "erofs"]


def test_the_root_gets_every_provider(index: ModuleIndex) -> None:
    order = names(index.load_order(["erofs"], every_provider=True))
    assert set(order) == {"crc32c_intel", "crc32c_generic", "libcrc32c", "erofs"}
    assert order[-1] == "erofs"


def test_each_module_once_after_what_it_needs(index: ModuleIndex) -> None:
    order = names(index.load_order(["kvm-amd", "kvm", "erofs", "kvm_amd"], every_provider=True))
    assert len(order) == len(set(order))
    assert order.index("kvm") < order.index("kvm_amd")


def test_builtin_needs_no_file(index: ModuleIndex) -> None:
    assert index.load_order(["virtio"], every_provider=False) == []


def test_missing_soft_dependencies_do_no_harm(index: ModuleIndex) -> None:
    assert names(index.load_order(["a"], every_provider=False)) == ["b", "a"]


def test_an_unknown_module_is_an_error(index: ModuleIndex) -> None:
    with pytest.raises(SamepageError, match="no module zram"):
        index.load_order(["zram"], every_provider=False)
