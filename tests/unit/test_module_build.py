# SPDX-License-Identifier: MIT
"""Building out-of-tree modules with the locked compiler (fetched when it is missing)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.config import PACKAGE_PARENT, Config, load_config
from harness.errors import CheckFailed, SamepageError
from harness.module.build import build_module, source_files, synchronise
from harness.store import file_sha256

MAIN = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
int answer(void);
static int __init start(void) { pr_info("%d\\n", answer()); return 0; }
module_init(start);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("test");
"""
OTHER = "int answer(void);\nint answer(void) { return 42; }\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The real tool roots, but no module that was built before."""
    config = load_config(PACKAGE_PARENT)
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("packages", "roots"):
        (config.cache / name).mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to(config.cache / name)
    return dataclasses.replace(config, cache=cache)


def make_source(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "Kbuild").write_text("obj-m := two-parts.o\ntwo-parts-y := main.o sub/other.o\n")
    (folder / "main.c").write_text(MAIN)
    (folder / "sub/other.c").write_text(OTHER)
    return folder


def test_same_bytes_from_anywhere_and_after_edits(config: Config, tmp_path: Path) -> None:
    source = make_source(tmp_path / "one")
    first = build_module(config, source, config.kernel)
    assert first.name == "two_parts"
    assert first.release.startswith("6.12.")
    assert first.sha256 == file_sha256(first.ko)
    assert first.debug.stat().st_size > 2 * first.ko.stat().st_size

    (source / "sub/other.c").write_text(OTHER.replace("42", "43"))
    edited = build_module(config, source, config.kernel)
    assert edited.sha256 != first.sha256
    elsewhere = make_source(tmp_path / "deeper/elsewhere")
    (elsewhere / "sub/other.c").write_text(OTHER.replace("42", "43"))
    # Built from scratch under another path, against what an incremental build gave.
    fresh = dataclasses.replace(config, cache=tmp_path / "cache2")
    fresh.cache.mkdir()
    (fresh.cache / "roots").symlink_to(config.cache / "roots")
    assert build_module(fresh, elsewhere, config.kernel).sha256 == edited.sha256
    assert str(tmp_path).encode() not in edited.debug.read_bytes()

    (source / "sub/other.c").write_text(OTHER)
    assert build_module(config, source, config.kernel) == first


def test_compiler_errors_name_the_source(config: Config, tmp_path: Path) -> None:
    source = make_source(tmp_path / "one")
    (source / "main.c").write_text("#error broken on purpose\n")
    with pytest.raises(CheckFailed, match="broken on purpose") as caught:
        build_module(config, source, config.kernel)
    assert str(source / "main.c") in str(caught.value)
    assert caught.value.exit_code == 1
    (source / "main.c").write_text(MAIN)
    assert build_module(config, source, config.kernel).ko.is_file()


def test_two_modules_are_refused(config: Config, tmp_path: Path) -> None:
    source = make_source(tmp_path / "one")
    (source / "Kbuild").write_text("obj-m := main.o again.o\n")
    for name in ("main.c", "again.c"):
        (source / name).write_text(MAIN.replace("answer()", "0"))
    with pytest.raises(CheckFailed, match=r"again\.ko"):
        build_module(config, source, config.kernel)


def test_a_folder_without_kbuild_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamepageError, match="has no Kbuild"):
        source_files(tmp_path)


def test_products_are_not_sources(tmp_path: Path) -> None:
    source = make_source(tmp_path / "one")
    for name in ("main.o", ".main.o.cmd", "two-parts.ko", "two-parts.mod.c", "Module.symvers", "modules.order"):
        (source / name).write_text("product")
    assert set(source_files(source)) == {"Kbuild", "main.c", "sub/other.c"}


def test_synchronise_leaves_what_a_build_made(tmp_path: Path) -> None:
    """Headers that a build generates would otherwise be made anew each time, and all that includes them compiled."""
    synchronise({"a.c": b"a", "gone.h": b"g"}, tmp_path)
    (tmp_path / "generated.h").write_bytes(b"made")
    synchronise({"a.c": b"b"}, tmp_path)
    assert (tmp_path / "generated.h").read_bytes() == b"made"
    assert not (tmp_path / "gone.h").exists()


def test_synchronise_touches_only_what_changed(tmp_path: Path) -> None:
    synchronise({"a.c": b"a", "sub/b.c": b"b", "gone.c": b"c"}, tmp_path)
    (tmp_path / "a.o").write_text("object")
    before = (tmp_path / "a.c").stat().st_mtime_ns
    synchronise({"a.c": b"a", "sub/b.c": b"changed"}, tmp_path)
    assert (tmp_path / "a.c").stat().st_mtime_ns == before
    assert (tmp_path / "sub/b.c").read_bytes() == b"changed"
    assert not (tmp_path / "gone.c").exists()
    assert (tmp_path / "a.o").exists()
