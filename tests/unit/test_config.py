# SPDX-License-Identifier: MIT
from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import PACKAGE_PARENT, load_config
from harness.errors import SamepageError


def project(folder: Path, table: str) -> Path:
    (folder / "pyproject.toml").write_text(f"[tool.samepage]\n{table}")
    return folder


def test_defaults_and_paths(tmp_path: Path) -> None:
    config = load_config(project(tmp_path, 'module = "src/module"'), {"XDG_CACHE_HOME": "/var/somewhere"})
    assert config.root == tmp_path
    assert config.module == tmp_path / "src/module"
    assert config.runs == tmp_path / "runs"
    assert config.cache == Path("/var/somewhere/samepage")
    assert config.images == PACKAGE_PARENT / "images"
    assert config.jobs >= 1


def test_found_from_a_folder_below(tmp_path: Path) -> None:
    below = project(tmp_path, 'kernel = "7.3"') / "a" / "b"
    below.mkdir(parents=True)
    (below / "pyproject.toml").write_text("[tool.other]\n")
    assert load_config(below, {}).kernel == "7.3"


def test_our_own_project_where_there_is_none(tmp_path: Path) -> None:
    assert load_config(tmp_path, {}).root == PACKAGE_PARENT


def test_environment_overrides(tmp_path: Path) -> None:
    environ = {
        "SAMEPAGE_JOBS": "3",
        "SAMEPAGE_MODULE_BTF": "true",
        "SAMEPAGE_TIMEOUT_FACTOR": "2.5",
        "SAMEPAGE_QEMU": "",
    }
    config = load_config(project(tmp_path, "jobs = 1"), environ)
    assert (config.jobs, config.module_btf, config.timeout_factor, config.qemu) == (3, True, 2.5, None)


def test_relative_xdg_cache_home_is_ignored(tmp_path: Path) -> None:
    assert load_config(tmp_path, {"XDG_CACHE_HOME": "here"}).cache == Path.home() / ".cache/samepage"


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ('kernal = "6.12"', "kernal"),
        ("kernel = 6.12", "kernel"),
        ('kernel = "../6.12"', "kernel"),
        ("jobs = 0", "jobs"),
        ('jobs = "many"', "jobs"),
        ("timeout_factor = -1", "timeout_factor"),
        ('accelerator = "hvf"', "accelerator"),
        ('mirror = "ftp://mirror"', "mirror"),
        ("module = [", "TOML"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, table: str, named: str) -> None:
    with pytest.raises(SamepageError) as caught:
        load_config(project(tmp_path, table), {})
    assert named in str(caught.value)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)


def test_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(SamepageError, match=r"SAMEPAGE_JOBS: 'x'"):
        load_config(tmp_path, {"SAMEPAGE_JOBS": "x"})
