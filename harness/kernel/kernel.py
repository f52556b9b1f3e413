# SPDX-License-Identifier: MIT
"""One view of a kernel, whether it comes as packages or is built here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.config import Config
from harness.document import read_bytes
from harness.errors import CheckFailed, SamepageError
from harness.kernel.build import KernelBuild
from harness.kernel.recipe import BuiltKernelRecipe, built_kernels, built_recipe, fragment_paths
from harness.packages.lock import load_lock, lock_path
from harness.packages.recipe import load_recipe
from harness.packages.source import source_package
from harness.sandbox import Sandbox
from harness.store import built_folder, exclusive, file_sha256, key_of, remove_tree
from harness.toolroot import tool_root, unpacked_groups

TOOLS = "kbuild"
"""The recipe of the tools that build whole kernels, and modules for them."""

_METHOD = "1"
"""Raised when kernels come to be built in another way from the same inputs."""
_RELEASE = "release"
_HEADERS_PATH = "/build/headers"


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot and to build modules for."""

    name: str
    release: str
    """What `uname -r` says."""
    tree: Path
    """boot/vmlinuz-RELEASE or usr/lib/modules/RELEASE/vmlinuz, and usr/lib/modules/RELEASE."""
    tools: Path
    """The tool root whose compiler builds modules for it."""
    headers: str
    """Where kbuild is, inside of the tool root."""
    mounts: Mapping[Path, str] = field(default_factory=dict)
    """What is to be mounted there for that."""


def for_kernel(config: Config, name: str) -> Config:
    """Return the configuration with which guests of the kernel `name` are driven."""
    recipe = built_recipe(config.images, name)
    factor = 1 if recipe is None else recipe.time_factor
    return dataclasses.replace(config, kernel=name, timeout_factor=config.timeout_factor * factor)


def base_of(config: Config, name: str) -> str:
    """Return the kernel with a recipe of packages that `name` is, or is built from."""
    recipe = built_recipe(config.images, name)
    return name if recipe is None else recipe.base


def kernel_of(config: Config, name: str) -> Kernel:
    """Return the kernel `name`, fetched or built if need be. Raises SamepageError when there is no such kernel."""
    recipe = built_recipe(config.images, name)
    return _packaged(config, name) if recipe is None else _built(config, name, recipe)


def kernel_inputs(config: Config, name: str) -> Iterator[Path]:
    """Return every file that decides what the kernel `name` is."""
    recipe = built_recipe(config.images, name)
    packages = [f"kernel-{name}"] if recipe is None else [f"kernel-{recipe.base}", TOOLS]
    for package in packages:
        load_recipe(config.images, package)  # whose errors name what is wrong
        load_lock(config.images, package)
        yield config.images / f"{package}.toml"
        yield lock_path(config.images, package)
    if recipe is not None:
        yield config.images / "kernels" / f"{name}.toml"
        yield from fragment_paths(config.images, recipe)


def _packaged(config: Config, name: str) -> Kernel:
    recipe_name = f"kernel-{name}"
    recipe = load_recipe(config.images, recipe_name)
    release = load_lock(config.images, recipe_name).release
    if recipe.kernel is None or release is None:
        raise SamepageError("is no kernel's recipe: [kernel] or the lock's release is missing", where=recipe_name)
    return Kernel(
        name=name,
        release=release,
        tree=unpacked_groups(config, recipe_name, ["image"]),
        tools=tool_root(config, recipe_name),
        headers=f"/usr/src/linux-headers-{release}",
    )


def _built(config: Config, name: str, recipe: BuiltKernelRecipe) -> Kernel:
    build = _build_of(config, name, recipe)

    def fill(partial: Path) -> None:
        (partial / _RELEASE).write_text(build.run(partial), "ascii")

    with exclusive(build.work.with_name(f"{build.work.name}.lock")):
        folder = built_folder(config.cache / "kernels" / build.work.name, fill, keep=2)
    return Kernel(
        name=name,
        release=(folder / _RELEASE).read_text("ascii"),
        tree=folder,
        tools=build.tools.root,
        headers=_HEADERS_PATH,
        mounts={folder / "headers": _HEADERS_PATH},
    )


def _build_of(config: Config, name: str, recipe: BuiltKernelRecipe) -> KernelBuild:
    source = source_package(config, recipe.base)
    tools = tool_root(config, TOOLS)
    fragments = [read_bytes(path) for path in fragment_paths(config.images, recipe)]
    key = key_of(_METHOD, source.sha256, tools.name, name, *recipe.make, *fragments)
    return KernelBuild(config, name, recipe, Sandbox(tools), config.cache / "work" / f"{name}-{key}")


def _recipe_of(config: Config, name: str) -> BuiltKernelRecipe:
    recipe = built_recipe(config.images, name)
    if recipe is None:
        known = ", ".join(built_kernels(config.images))
        raise SamepageError("is no kernel that is built here", where=name, hint=f"There are: {known}")
    return recipe


def ensure_built(config: Config, name: str) -> Kernel:
    """Return a kernel that is built here. Raises SamepageError, naming those that are, for any other."""
    return _built(config, name, _recipe_of(config, name))


def verify_built(config: Config, name: str) -> list[str]:
    """Build the kernel `name` again, in another folder and without ccache; return the names of the files compared.

    Raises CheckFailed that names the files which came out otherwise.
    """
    recipe = _recipe_of(config, name)
    before = _built(config, name, recipe).tree
    build = _build_of(config, name, recipe)
    build = dataclasses.replace(build, work=build.work.with_name(f"{build.work.name}-again"), use_ccache=False)
    out = config.cache / "work" / f"{name}-verify"
    remove_tree(out)
    out.mkdir(parents=True)
    try:
        build.run(out)
        files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if _is_compared(path))
        differ = [name for name in files if file_sha256(out / name) != file_sha256(before / name)]
    finally:
        remove_tree(out)
    if differ:
        raise CheckFailed("came out otherwise: " + ", ".join(differ), where=name)
    return files


def _is_compared(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".ko" or path.name.startswith("vmlinu"))
