# SPDX-License-Identifier: MIT
"""Tests of what only a debug kernel can tell (`make test-debug`, `make test-races`)."""

from __future__ import annotations

import pytest

from harness.config import Config
from harness.kernel import built_recipe
from harness.kernel.options import read_fragments
from harness.kernel.recipe import fragment_paths
from tests.guest.ksm.conftest import merger, module, work

__all__ = ["merger", "module", "work"]


def _needs(config: Config, option: str) -> None:
    recipe = built_recipe(config.images, config.kernel)
    options = [] if recipe is None else read_fragments(fragment_paths(config.images, recipe))
    if not any(it.name == option and it.value == "y" for it in options):
        pytest.skip(f"{config.kernel} is built without {option}")


@pytest.fixture
def watches_memory(config: Config) -> None:
    """For tests of what KASAN, lockdep, kmemleak, page owner or fault injection tell: the kernel `debug`."""
    _needs(config, "CONFIG_KASAN")


@pytest.fixture
def watches_races(config: Config) -> None:
    """For tests of what KCSAN tells: the kernel `kcsan`."""
    _needs(config, "CONFIG_KCSAN")
