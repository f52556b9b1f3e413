# SPDX-License-Identifier: MIT
"""Files out of a source package: what must be there, and what only some kernels have."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from harness.errors import SamepageError
from harness.packages.source import _extract

ARCHIVE = "usr/src/linux-source-9.9.tar.xz"
FILES = {
    "scripts/check.pl": b"#!/usr/bin/perl\n",
    "tools/mm/a.c": b"int a;\n",
    "tools/mm/deep/b.h": b"",
    "mm/ksm.c": b"x",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: linux-source-9.9\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: x\n"
    )
    (tree / ARCHIVE).parent.mkdir(parents=True)
    with tarfile.open(tree / ARCHIVE, "w:xz") as archive:
        for name, content in FILES.items():
            item = tarfile.TarInfo(f"linux-source-9.9/{name}")
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    deb = tmp_path / "source.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, deb], check=True, capture_output=True)
    return deb


def found(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_files_and_folders(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _extract(package, ARCHIVE, ["scripts/check.pl"], ["tools/mm", "tools/vm"], out)
    assert found(out) == {"scripts/check.pl", "tools/mm/a.c", "tools/mm/deep/b.h"}
    assert (out / "tools/mm/a.c").read_bytes() == FILES["tools/mm/a.c"]


def test_what_is_missing_is_named(package: Path, tmp_path: Path) -> None:
    with pytest.raises(SamepageError, match="no tools/vm"):
        _extract(package, ARCHIVE, ["mm/ksm.c", "tools/vm"], [], tmp_path / "out")
    with pytest.raises(SamepageError, match="holds no usr/src/other"):
        _extract(package, "usr/src/other.tar.xz", ["mm/ksm.c"], [], tmp_path / "out")
