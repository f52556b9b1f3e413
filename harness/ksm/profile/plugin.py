# SPDX-License-Identifier: MIT
"""Our TCG plugin (images/plugin): compiled with the locked compiler against the header of the QEMU that is pinned."""

from __future__ import annotations

from pathlib import Path

from harness.config import Config
from harness.errors import CheckFailed, SamepageError
from harness.image.recipe import load_image_recipe
from harness.packages.lock import load_lock
from harness.packages.source import upstream_source
from harness.sandbox import Sandbox
from harness.store import built_folder, key_of
from harness.toolroot import tool_root, unpacked_groups

RECIPE = "plugin"
_HEADER = "include/qemu/qemu-plugin.h"
_GLIB = ("-I/libs/usr/include/glib-2.0", "-I/libs/usr/lib/x86_64-linux-gnu/glib-2.0/include")
# What it calls is in QEMU itself, GLib included: it is linked with nothing.
_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-s", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror")


def require_same_qemu(config: Config) -> None:
    """Raise SamepageError where the header's version is not the version of the QEMU that would load the plugin."""
    if config.qemu is not None:
        raise SamepageError("a profile needs the locked QEMU", where=config.qemu, hint="Unset SAMEPAGE_QEMU.")
    versions = {
        name: next(package.version for package in load_lock(config.images, recipe).package if package.name == name)
        for recipe, name in ((RECIPE, "qemu"), ("tools", "qemu-system-x86"))
    }
    if len(set(versions.values())) > 1:
        what = " and ".join(f"{name} {version}" for name, version in versions.items())
        raise SamepageError(f"the locks disagree: {what}", where=f"{RECIPE}.lock", hint="Run: make lock")


def build_plugin(config: Config) -> Path:
    """Return the plugin's shared object. Raises CheckFailed with gcc's messages when it does not compile."""
    require_same_qemu(config)
    source = config.images / "plugin/profile.c"
    header = upstream_source(config, RECIPE, "qemu", [_HEADER])
    libraries = unpacked_groups(config, RECIPE, ["headers"])
    tools = tool_root(config, load_image_recipe(config.images).toolchain)

    def build(partial: Path) -> None:
        line = ["gcc", *_FLAGS, "-I/qemu/include/qemu", *_GLIB, f"/src/{source.name}", "-o", "/out/profile.so"]
        mounts = {header: "/qemu", libraries: "/libs", source.parent: "/src"}
        result = Sandbox(tools).run(line, ro=mounts, rw={partial: "/out"}, check=False)
        if result.returncode != 0:
            raise CheckFailed(f"does not compile:\n{result.stderr.decode(errors='replace').strip()}", where=source)

    key = key_of(source.read_bytes(), header.name, libraries.name, tools.name, *_FLAGS)
    return built_folder(config.cache / "plugin" / f"profile-{key}", build, keep=2) / "profile.so"
