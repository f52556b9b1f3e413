# SPDX-License-Identifier: MIT
"""Recipes of kernels that are built here: fragments, what Kconfig did not grant, factors for guests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import load_config
from harness.errors import SamepageError
from harness.guest.snapshot import suited
from harness.guest.spec import GuestSpec
from harness.image import GuestNeeds
from harness.kernel import base_of, built_kernels, built_recipe, for_kernel, kernel_inputs
from harness.kernel.options import not_granted, read_fragments


def test_the_last_word_about_an_option_counts(tmp_path: Path) -> None:
    (tmp_path / "a.config").write_text("# one\nCONFIG_A=y\nCONFIG_B=m\n")
    (tmp_path / "b.config").write_text('CONFIG_B=n\nCONFIG_C="x=y"\n')
    options = read_fragments([tmp_path / "a.config", tmp_path / "b.config"])
    assert [(option.name, option.value) for option in options] == [
        ("CONFIG_A", "y"),
        ("CONFIG_B", "n"),
        ("CONFIG_C", '"x=y"'),
    ]
    assert not_granted(options, 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x=y"\n') == []


def test_what_kconfig_did_not_grant_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.config"
    path.write_text("CONFIG_A=y\nCONFIG_B=n\n")
    assert not_granted(read_fragments([path]), "CONFIG_B=m\n") == [
        f"{path}:1: CONFIG_A=y came out as n",
        f"{path}:2: CONFIG_B=n came out as m",
    ]


@pytest.mark.parametrize("line", ["CONFIG_A", "A=y", "# CONFIG_A is not set\nCONFIG_B"])
def test_a_line_that_is_no_option(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.config"
    path.write_text(f"{line}\n")
    with pytest.raises(SamepageError, match="is no option") as caught:
        read_fragments([path])
    assert str(caught.value.where) == f"{path}:{1 + line.count(chr(10))}"


def test_every_recipe_reads() -> None:
    config = load_config(Path(__file__))
    assert set(built_kernels(config.images)) == {"debug", "kcsan"}
    for name in built_kernels(config.images):
        assert base_of(config, name) == "6.12"
        names = {path.name for path in kernel_inputs(config, name)}
        assert {f"{name}.toml", f"{name}.config", "guest.config", "kernel-6.12.lock", "kbuild.lock"} <= names
    assert built_recipe(config.images, "6.12") is None
    assert base_of(config, "7.3") == "7.3"


def test_a_recipe_with_a_mistake_is_named(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/x.toml").write_text('base = "6.12"\nfragments = ["../x.config"]\n')
    with pytest.raises(SamepageError, match="fragments") as caught:
        built_recipe(tmp_path, "x")
    assert caught.value.where == str(tmp_path / "kernels/x.toml")


def test_guests_get_what_their_kernel_needs() -> None:
    spec = suited(GuestSpec(memory_mib=512, append=("b",)), GuestNeeds(("a",), 2))
    assert (spec.memory_mib, spec.append) == (1024, ("a", "b"))
    assert suited(GuestSpec(), GuestNeeds()) == GuestSpec()
    config = load_config(Path(__file__))
    assert for_kernel(config, "debug").timeout_factor == 6 * config.timeout_factor
    assert for_kernel(config, "6.1").timeout_factor == config.timeout_factor
