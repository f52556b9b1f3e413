# SPDX-License-Identifier: MIT
"""The debug kernel and the log gate see what a module may do wrong: a fault of each kind is planted."""

from __future__ import annotations

import pytest

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.errors import KernelSplat
from harness.guest.guest import Guest
from harness.guest.leaks import check_leaks, check_pages_of_unloaded, forget_leaks
from harness.module.build import build_module
from tests.guest.splat import PROVOKE, SPLAT

pytestmark = [pytest.mark.splats_allowed, pytest.mark.usefixtures("watches_memory")]


@pytest.fixture
def splat(config: Config, guest: Guest) -> Guest:
    """A guest with the module of faults."""
    guest.insmod(build_module(config, SPLAT, config.kernel).ko)
    return guest


@pytest.mark.parametrize(
    ("name", "kind", "line"),
    [
        ("use_after_free", "KASAN", "slab-use-after-free in provoke_use_after_free"),
        ("inversion", "lockdep", "possible circular locking dependency"),
        ("page_freed_twice", "kernel BUG", "include/linux/mm.h"),
        ("might_sleep", "BUG", "sleeping function called from invalid context"),
        ("list", "kernel BUG", "list_debug.c"),
        ("rcu", "lockdep", "suspicious RCU usage"),
        ("shift", "UBSAN", "shift-out-of-bounds"),
    ],
)
def test_a_planted_fault_is_seen(splat: Guest, name: str, kind: str, line: str) -> None:
    with pytest.raises(KernelSplat) as caught:
        splat.write(PROVOKE, name)
    assert caught.value.splats[0].kind == kind
    assert line in str(caught.value)


def test_a_leak_is_seen(splat: Guest) -> None:
    forget_leaks(splat)
    check_leaks(splat)
    splat.write(PROVOKE, "leak")
    with pytest.raises((KernelSplat, CheckFailed), match=r"provoke_write|suspected memory leak"):
        check_leaks(splat)
    assert "provoke_write" in splat.read("/sys/kernel/debug/kmemleak")


def test_a_page_with_a_reference_too_many_is_seen(splat: Guest) -> None:
    splat.write(PROVOKE, "page_reference")
    splat.rmmod("splat")
    with pytest.raises(CheckFailed, match="pages of an unloaded module are left"):
        check_pages_of_unloaded(splat)


def test_an_honest_module_leaves_nothing(config: Config, fresh_guest: Guest) -> None:
    fresh_guest.insmod(build_module(config, SPLAT, config.kernel).ko)
    fresh_guest.rmmod("splat")
    check_pages_of_unloaded(fresh_guest)
