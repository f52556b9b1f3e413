# SPDX-License-Identifier: MIT
"""Files of a kernel's own source, from Debian's linux-source package: checkpatch, selftests."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Collection
from pathlib import Path

from harness.config import Config
from harness.errors import SamepageError
from harness.packages.fetch import fetch_packages, verify_cached
from harness.packages.lock import Package, load_lock
from harness.progress import step
from harness.store import built_folder, key_of


def source_package(config: Config, kernel: str) -> Package:
    """Return the package with the source of a kernel that has a recipe."""
    recipe = f"kernel-{kernel}"
    packages = load_lock(config.images, recipe).of_groups(["source"])
    if len(packages) != 1:
        raise SamepageError("one package was expected in the group `source`", where=f"{recipe}.lock")
    return packages[0]


def source_deb(config: Config, kernel: str) -> Path:
    """Return that package's file, fetched if need be and verified."""
    recipe = f"kernel-{kernel}"
    package = source_package(config, kernel)
    deb = fetch_packages(config, recipe, load_lock(config.images, recipe), [package])[package.name]
    verify_cached(package, deb)
    return deb


def kernel_source(config: Config, kernel: str, paths: Collection[str], *, optional: Collection[str] = ()) -> Path:
    """Return a folder with the files and folders `paths` of the kernel's source (scripts/checkpatch.pl, for one).

    Of `optional` it holds what that kernel has: things move between versions.
    The package is fetched and read when a set of paths is first asked for.
    """
    package = source_package(config, kernel)

    def build(partial: Path) -> None:
        deb = source_deb(config, kernel)
        with step(f"Reading the source of Linux {kernel}"):
            _extract(deb, f"usr/src/{package.name}.tar.xz", paths, optional, partial)

    key = key_of(package.sha256, *sorted(paths), *(f"{path}?" for path in sorted(optional)))
    return built_folder(config.cache / "roots" / f"source-{kernel}-{key}", build, keep=4)


def upstream_source(config: Config, recipe: str, name: str, paths: Collection[str]) -> Path:
    """Return a folder with the files `paths` of the original source of Debian's source package `name`."""
    lock = load_lock(config.images, recipe)
    package = next((package for package in lock.of_groups(["source"]) if package.name == name), None)
    if package is None:
        raise SamepageError(f"no source package {name} in the group `source`", where=f"{recipe}.lock")

    def build(partial: Path) -> None:
        archive = fetch_packages(config, recipe, lock, [package])[name]
        verify_cached(package, archive)
        with step(f"Reading the source of {name} {package.version}"), tarfile.open(archive, "r|xz") as source:
            missing = _extract_from(source, paths, (), partial)
        if missing:
            raise SamepageError(f"the source has no {', '.join(sorted(missing))}", where=archive)

    key = key_of(package.sha256, *sorted(paths))
    return built_folder(config.cache / "roots" / f"source-{name}-{key}", build, keep=2)


def _extract_from(source: tarfile.TarFile, paths: Collection[str], optional: Collection[str], out: Path) -> set[str]:
    """Extract `paths` and what there is of `optional`; return which of `paths` are missing."""
    missing = set(paths)
    for item in source:
        item.name = item.name.partition("/")[2]  # without linux-source-6.12/
        wanted = [path for path in (*paths, *optional) if item.name == path or item.name.startswith(f"{path}/")]
        if wanted:
            missing.difference_update(wanted)
            _write(source, item, out / item.name)
    return missing


def _extract(deb: Path, archive: str, paths: Collection[str], optional: Collection[str], out: Path) -> None:
    """Extract `paths` from the tar archive `archive` inside of a package, without writing either down."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as reader:
        with tarfile.open(fileobj=reader.stdout, mode="r|") as package:
            member = next((member for member in package if member.name.removeprefix("./") == archive), None)
            inner = None if member is None else package.extractfile(member)
            if inner is None:
                raise SamepageError(f"holds no {archive}", where=deb)
            with tarfile.open(fileobj=inner, mode="r|xz") as source:
                missing = _extract_from(source, paths, optional, out)
        reader.kill()  # it need not write the rest
    if missing:
        raise SamepageError(f"the source has no {', '.join(sorted(missing))}", where=deb)


def _write(source: tarfile.TarFile, item: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if item.isdir():
        target.mkdir(exist_ok=True)
    elif item.issym():
        target.symlink_to(item.linkname)
    elif (content := source.extractfile(item)) is not None:
        target.write_bytes(content.read())
        target.chmod(0o755 if item.mode & 0o100 else 0o644)
