# SPDX-License-Identifier: MIT
"""Tests of what only a debug kernel can tell (`make test-debug`)."""

from __future__ import annotations

import pytest

from harness.config import Config
from harness.kernel import built_recipe
from tests.guest.ksm.conftest import merger, module, work

__all__ = ["merger", "module", "work"]


@pytest.fixture(autouse=True)
def _only_on_debug_kernels(config: Config) -> None:
    if built_recipe(config.images, config.kernel) is None:
        pytest.skip(f"{config.kernel} is no debug kernel: --samepage-kernel debug")
