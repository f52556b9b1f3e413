# SPDX-License-Identifier: MIT
"""A guest with the module loaded, once a file of tests; settings fresh for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.config import Config
from harness.guest.guest import Guest
from harness.guest.leaks import knows_leaks, look_for_leaks
from harness.kernel import built_recipe
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule, build_module
from tests.guest.ksm.control import Merger


@pytest.fixture(scope="session")
def module(config: Config) -> BuiltModule:
    """The module, built for the kernel that is tested."""
    return build_module(config, config.root / "kmod", config.kernel)


@pytest.fixture
def stock_kernel(config: Config) -> None:
    """For tests that count instructions or time of Debian's kernel, or need what only that one has."""
    if built_recipe(config.images, config.kernel) is not None:
        pytest.skip("about Debian's own kernel")


@pytest.fixture
def merger(guest: Guest, module: BuiltModule) -> Iterator[Merger]:
    """The module in force, nothing merged; loaded where the guest has not got it yet. Its checker has the last word."""
    merger = Merger(guest)
    if not merger.in_force:
        guest.insmod(module.ko)
    merger.reset()
    yield merger
    if guest.healthy:
        if merger.in_force:
            merger.check()
        merger.reset()
        if knows_leaks(guest):
            look_for_leaks(guest)  # what this test lost the next one shows, or the guest's end


@pytest.fixture
def work(guest: Guest) -> Iterator[MemWork]:
    """Processes whose every page is known."""
    with MemWork(guest) as work:
        yield work
