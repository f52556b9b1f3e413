# SPDX-License-Identifier: MIT
"""Renewing a lock: what the recipe asks for, at the versions that the archive has now."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from harness.config import Config
from harness.errors import SamepageError
from harness.packages.apt import AptRoot
from harness.packages.lock import Lock, Package, write_lock
from harness.packages.mirror import mirror_url
from harness.packages.recipe import Recipe, load_recipe
from harness.progress import step


def renew_lock(config: Config, name: str) -> Path:
    """Resolve recipe `name` against the configured mirror and write its lock file; return the file's path."""
    recipe = load_recipe(config.images, name)
    mirror = mirror_url(config)
    if mirror is None:
        raise SamepageError("no Debian mirror is known", hint="Name one: SAMEPAGE_MIRROR=https://HOST/debian")
    with tempfile.TemporaryDirectory(prefix="samepage-apt-") as folder:
        sources = any(group.source for group in recipe.group.values())
        apt = AptRoot(Path(folder), mirror, recipe.suites, sources=sources)
        with step(f"Package indexes of {', '.join(recipe.suites)}"):
            apt.update()
        lock = _resolve(apt, recipe)
    return write_lock(config.images, name, lock)


def _resolve(apt: AptRoot, recipe: Recipe) -> Lock:
    release = None if recipe.kernel is None else _newest_release(apt, recipe.kernel.metapackage)
    versions: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    packages: dict[str, Package] = {}
    for group_name, group in recipe.group.items():
        if group.source:
            for name in group.packages:
                packages[name] = _pinned(apt.source_record(name), recipe.suites[0], [group_name])
            continue
        names = [_named(package, release) for package in group.packages]
        for package, version in apt.resolve(names, dependencies=group.dependencies).items():
            if not any(fnmatchcase(package, pattern) for pattern in group.without):
                versions[package] = version
                groups.setdefault(package, []).append(group_name)
    suites = apt.suites(versions)
    for record in apt.records(versions):
        name = record["Package"]
        packages[name] = _pinned(record, suites[name], groups[name])
    missing = versions.keys() - packages.keys()
    if missing:
        raise SamepageError(f"the index has no record of {', '.join(sorted(missing))}", where="apt-cache show")
    snapshot = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return Lock(format=1, snapshot=snapshot, release=release, package=list(packages.values()))


def _named(package: str, release: str | None) -> str:
    if "{" not in package:
        return package
    if release is None:
        raise SamepageError("only a recipe with a [kernel] table has a release", where=package)
    return package.replace("{release}", release).replace("{abi}", release.rpartition("-")[0])


def _newest_release(apt: AptRoot, metapackage: str) -> str:
    (record,) = apt.records(apt.resolve([metapackage], dependencies=False))
    match = re.search(r"\blinux-image-([0-9][a-z0-9.+-]*)", record.get("Depends", ""))
    if match is None:
        raise SamepageError("depends on no linux-image-RELEASE", where=metapackage)
    return match[1]


def _pinned(record: dict[str, str], suite: str, groups: list[str]) -> Package:
    fields = {
        "name": record["Package"],
        "version": record["Version"],
        "suite": suite,
        "groups": groups,
        "size": int(record["Size"]),
        "sha256": record["SHA256"],
        "path": record["Filename"],
    }
    return msgspec.convert(fields, Package)  # the same checks that reading the lock makes
