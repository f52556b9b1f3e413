# SPDX-License-Identifier: MIT
"""Tool roots: trees of locked packages that programs run in (see sandbox.py), unpacked once into the cache."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.config import Config
from harness.packages.fetch import fetch_packages, verify_cached
from harness.packages.lock import Lock, Package, load_lock
from harness.packages.recipe import Recipe, load_recipe
from harness.packages.unpack import prepare_tree, unpack_package
from harness.progress import step
from harness.store import built_folder, key_of

_LAYOUT = "1"
"""Raised when trees come to be unpacked in another way."""

_NOT_IN_TOOL_ROOTS = {"image", "source", "selftests"}
"""Groups of a kernel's recipe that are data, or that only one use needs."""


def tool_root(config: Config, name: str) -> Path:
    """Return the root folder of the tools of recipe `name`: `tools` (QEMU, image tools) or `kernel-6.12` (compiler).

    The first call downloads and unpacks; every later one costs reading the lock file.
    """
    recipe = load_recipe(config.images, name)
    groups = recipe.group.keys() if recipe.kernel is None else recipe.group.keys() - _NOT_IN_TOOL_ROOTS
    return unpacked_groups(config, name, sorted(groups))


def unpacked_groups(config: Config, name: str, groups: Collection[str]) -> Path:
    """Return a folder with the packages of some groups of recipe `name` unpacked."""
    recipe = load_recipe(config.images, name)
    lock = load_lock(config.images, name)
    packages = lock.of_groups(groups)
    key = key_of(_LAYOUT, *sorted(package.sha256 for package in packages), *recipe.drop, str(recipe.link))
    folder = config.cache / "roots" / f"{name}-{'-'.join(groups)}-{key}"

    def build(partial: Path) -> None:
        _unpack_all(config, name, recipe, lock, packages, partial)

    return built_folder(folder, build, keep=3)


def _unpack_all(config: Config, name: str, recipe: Recipe, lock: Lock, packages: list[Package], partial: Path) -> None:
    files = fetch_packages(config, name, lock, packages)
    prepare_tree(partial)
    with step(f"Unpacking {len(packages)} packages of {name}", total=len(packages)) as progress:

        def verify(package: Package) -> Package:
            verify_cached(package, files[package.name])
            return package

        # Hashing runs ahead in other threads; unpacking goes in one order, so that the tree is always the same.
        with ThreadPoolExecutor(config.jobs) as pool:
            for package in pool.map(verify, sorted(packages, key=lambda package: package.name)):
                progress.detail(f" {package.name}")
                unpack_package(files[package.name], partial, recipe.drop)
                progress.advance(1)
    for path, target in recipe.link.items():
        (partial / path).symlink_to(target)
