# SPDX-License-Identifier: MIT
from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from harness.errors import SamepageError
from harness.packages.unpack import prepare_tree, unpack_package


def make_deb(folder: Path, name: str, files: dict[str, int]) -> Path:
    """Make a package whose files hold its name and have the given modes."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: test\n"
    )
    for path, mode in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(name)
        (tree / path).chmod(mode)
    deb = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True, capture_output=True, timeout=60)
    return deb


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    prepare_tree(folder)
    return folder


def test_links_of_a_merged_usr_stay_links(tmp_path: Path, root: Path) -> None:
    unpack_package(make_deb(tmp_path, "old", {"lib/modules/x.ko": 0o644, "sbin/tool": 0o755}), root)
    assert (root / "lib").is_symlink()
    assert (root / "usr/lib/modules/x.ko").read_text() == "old"
    assert (root / "usr/sbin/tool").read_text() == "old"


def test_modes_are_the_packages_whatever_the_umask(tmp_path: Path, root: Path) -> None:
    unpack_package(make_deb(tmp_path, "modes", {"usr/bin/su": 0o4755, "etc/key": 0o640, "etc/all": 0o666}), root)
    modes = [stat.S_IMODE((root / path).stat().st_mode) for path in ("usr/bin/su", "etc/key", "etc/all")]
    assert modes == [0o4755, 0o640, 0o666]


def test_dropped_patterns(tmp_path: Path, root: Path) -> None:
    deb = make_deb(tmp_path, "docs", {"usr/share/doc/a/b/copyright": 0o644, "usr/share/docs": 0o644})
    unpack_package(deb, root, ["usr/share/doc/*"])
    assert not (root / "usr/share/doc/a").exists()
    assert (root / "usr/share/docs").exists()


def test_a_later_package_wins(tmp_path: Path, root: Path) -> None:
    for name in ("one", "two"):
        unpack_package(make_deb(tmp_path, name, {"etc/name": 0o644}), root)
    assert (root / "etc/name").read_text() == "two"


def test_a_broken_package_is_an_error(tmp_path: Path, root: Path) -> None:
    good = make_deb(tmp_path, "good", {"usr/lib/data": 0o644}).read_bytes()
    for content in (b"", b"not a package", good[: len(good) // 2]):
        broken = tmp_path / "broken.deb"
        broken.write_bytes(content)
        with pytest.raises(SamepageError, match=r"broken\.deb: cannot be unpacked"):
            unpack_package(broken, root)
