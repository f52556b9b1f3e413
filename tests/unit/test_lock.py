# SPDX-License-Identifier: MIT
from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import PACKAGE_PARENT
from harness.errors import SamepageError
from harness.packages.lock import Lock, Package, dump_lock, load_lock, write_lock
from harness.packages.recipe import load_recipe

IMAGES = PACKAGE_PARENT / "images"
RECIPES = sorted(path.stem for path in IMAGES.glob("*.toml"))

PACKAGE = Package(
    name="libc6",
    version="2.41-12+deb13u5",
    suite="trixie",
    groups=["build", "image"],
    size=1234,
    sha256="0123456789abcdef" * 4,
    path="pool/main/g/glibc/libc6_2.41-12+deb13u5_amd64.deb",
)
LOCK = Lock(format=1, snapshot="20261123T120000Z", release="6.12.117+deb13-amd64", package=[PACKAGE])


def test_written_and_read_again(tmp_path: Path) -> None:
    write_lock(tmp_path, "kernel", LOCK)
    assert load_lock(tmp_path, "kernel") == LOCK
    assert list(tmp_path.iterdir()) == [tmp_path / "kernel.lock"]


@given(
    st.from_regex(r"\A[a-z0-9][a-z0-9+.-]+\Z"),
    st.from_regex(r"\A[A-Za-z0-9.+:~-]+\Z"),
    st.integers(min_value=1, max_value=2**40),
)
def test_every_allowed_package_survives_the_text(name: str, version: str, size: int) -> None:
    text = dump_lock(
        Lock(format=1, snapshot=LOCK.snapshot, package=[_package(name=name, version=version, size=size)]), "x"
    )
    (package,) = tomllib.loads(text)["package"]
    assert (package["name"], package["version"], package["size"]) == (name, version, size)


def _package(**changed: object) -> Package:
    fields = {name: getattr(PACKAGE, name) for name in Package.__struct_fields__}
    return Package(**{**fields, **changed})


def test_groups(tmp_path: Path) -> None:
    assert LOCK.of_groups(["image", "other"]) == [PACKAGE]
    assert LOCK.of_groups(["other"]) == []


GOOD = dump_lock(LOCK, "kernel")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("0123456789abcdef0123", "0123456789ABCDEF0123", "sha256"),
        ('sha256 = "0123456789abcdef', 'sha256 = "', "sha256"),
        ("pool/main/g", "pool/../../etc", "path"),
        ("pool/main/g", "/pool/main/g", "path"),
        ("size = 1234", "size = 0", "size"),
        ("size = 1234", 'size = "1234"', "size"),
        ('name = "libc6"', 'nome = "libc6"', "nome"),
        ('"20261123T120000Z"', '"yesterday"', "snapshot"),
        ("format = 1", "format = 2", "format"),
        ("package = [", "package = [[", "TOML"),
        ('suite = "trixie", ', "", "suite"),
        ("libc6", "libc6\\n", "name"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in GOOD
    path = tmp_path / "kernel.lock"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(SamepageError) as caught:
        load_lock(tmp_path, "kernel")
    message = str(caught.value)
    assert named in message
    assert str(path) in message
    assert "samepage lock kernel" in message


def test_missing_file_and_bad_bytes(tmp_path: Path) -> None:
    with pytest.raises(SamepageError, match="No such file"):
        load_lock(tmp_path, "kernel")
    (tmp_path / "kernel.lock").write_bytes(b"\xff\xfe")
    with pytest.raises(SamepageError, match="not valid TOML"):
        load_lock(tmp_path, "kernel")


def test_a_package_listed_twice_is_refused(tmp_path: Path) -> None:
    (line,) = [line for line in GOOD.splitlines() if "libc6" in line]
    (tmp_path / "kernel.lock").write_text(GOOD.replace(line, f"{line}\n{line}"))
    with pytest.raises(SamepageError, match="libc6 is listed twice"):
        load_lock(tmp_path, "kernel")


@pytest.mark.parametrize("name", RECIPES)
def test_our_locks_hold_what_the_recipes_ask_for(name: str) -> None:
    recipe, lock = load_recipe(IMAGES, name), load_lock(IMAGES, name)
    for group_name, group in recipe.group.items():
        locked = {package.name for package in lock.of_groups([group_name])}
        abi = (lock.release or "").rpartition("-")[0]
        assert {
            item.replace("{release}", lock.release or "").replace("{abi}", abi) for item in group.packages
        } <= locked
    assert (recipe.kernel is None) == (lock.release is None)


def test_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(SamepageError) as caught:
        load_recipe(IMAGES, "kernel-9.9")
    assert all(name in str(caught.value) for name in RECIPES)
