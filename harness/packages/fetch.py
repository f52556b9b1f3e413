# SPDX-License-Identifier: MIT
"""Fetching locked packages: from the cache (files named by sha256), then the mirror, then the snapshot service.

What arrives is kept only if its sha256 is the locked one. A download that was cut off goes on where it stopped.
"""

from __future__ import annotations

import http.client
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from harness.config import Config
from harness.errors import SamepageError
from harness.packages.lock import Lock, Package, renew_command
from harness.packages.mirror import host_proxies, mirror_url
from harness.progress import Step, step
from harness.store import exclusive, file_sha256

_SOCKET_TIMEOUT = 30
_CHUNK = 1 << 18
_AT_ONCE = 4
_FREE_SPACE_FACTOR = 4  # packages, and the trees unpacked from them


class _AbsentError(Exception):
    """The source does not have the file."""


class _UnreachableError(Exception):
    """The source could not be asked, or broke off."""


@dataclass(frozen=True)
class Source:
    """One place that has packages below a root."""

    title: str
    url: str

    def address(self, package: Package) -> str:
        """Return the URL of a package here."""
        return f"{self.url}/{quote(package.path, safe='/~+')}"


def fetch_packages(config: Config, recipe: str, lock: Lock, packages: Iterable[Package]) -> dict[str, Path]:
    """Return the file of each package by the package's name, downloading those that the cache lacks.

    Raises SamepageError for a package that is in no source, or whose content is not what the lock says.
    """
    store = config.cache / "packages"
    wanted = list(packages)
    files = {package.name: store / f"{package.sha256}.deb" for package in wanted}
    missing = [package for package in wanted if not files[package.name].is_file()]
    if missing:
        store.mkdir(parents=True, exist_ok=True)
        _require_space(store, missing)
        size = sum(package.size for package in missing)
        with step(f"Fetching {len(missing)} packages of {recipe}", total=size, in_bytes=True) as progress:
            _Download(config, recipe, lock, progress).fetch_all(missing, files)
    return files


class _Download:
    """The sources, asked in order, for one set of packages."""

    def __init__(self, config: Config, recipe: str, lock: Lock, progress: Step) -> None:
        self._recipe = recipe
        self._progress = progress
        self._shown: dict[str, int] = {}
        self._stopped = threading.Event()
        mirror = mirror_url(config)
        self._sources = [Source("snapshot service", f"{config.snapshot.rstrip('/')}/{lock.snapshot}")]
        if mirror is not None:
            self._sources.insert(0, Source("mirror", mirror))
        proxies = {**urllib.request.getproxies(), **host_proxies()}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))

    def fetch_all(self, packages: list[Package], files: dict[str, Path]) -> None:
        """Fetch several at once; the first failure (or Ctrl-C) stops the others, and is raised."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = [pool.submit(self._fetch, package, files[package.name]) for package in packages]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch(self, package: Package, target: Path) -> None:
        with exclusive(target.with_suffix(".lock")):
            if not target.is_file():  # another process may have fetched it meanwhile
                self._from_any_source(package, target)
        self._show(package, package.size)

    def _from_any_source(self, package: Package, target: Path) -> None:
        part = target.with_suffix(".part")
        failures = []
        absent = False
        for source in self._sources:
            try:
                self._receive(source.address(package), part, package)
            except _AbsentError:
                absent = True
                failures.append(f"  the {source.title} does not have it: {source.address(package)}")
            except _UnreachableError as error:
                failures.append(f"  the {source.title} failed: {source.address(package)}: {error}")
            else:
                self._verify(package, source, part)
                part.replace(target)
                return
        raise SamepageError(
            "\n".join(
                [
                    f"package {package.name} {package.version} {'has vanished' if absent else 'cannot be fetched'}",
                    *failures,
                ]
            ),
            where=f"{self._recipe}.lock",
            hint=f"If the archive has dropped this version, renew the lock with: {renew_command(self._recipe)}"
            if absent
            else "Check the network, or name a mirror: SAMEPAGE_MIRROR=https://HOST/debian",
        )

    def _receive(self, address: str, part: Path, package: Package) -> None:
        """Append to `part` what is still missing of the file at `address`."""
        have = part.stat().st_size if part.exists() else 0
        if have > package.size:
            part.unlink()
            have = 0
        if have == package.size:
            return
        request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with self._opener.open(request, timeout=_SOCKET_TIMEOUT) as response:
                # A server that ignores the range sends everything again.
                resumed = response.status == http.client.PARTIAL_CONTENT
                self._require_size(response, have if resumed else 0, package)
                with part.open("ab" if resumed else "wb") as file:
                    # One byte more than expected is enough to see that this is another file.
                    while file.tell() <= package.size and (chunk := response.read(_CHUNK)):
                        file.write(chunk)
                        self._show(package, file.tell())
                        if self._stopped.is_set():
                            raise _UnreachableError("stopped")
        except urllib.error.HTTPError as error:
            if error.code in (http.client.NOT_FOUND, http.client.GONE):
                raise _AbsentError from error
            raise _UnreachableError(f"HTTP {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _UnreachableError(str(error) or type(error).__name__) from error
        if part.stat().st_size < package.size:
            raise _UnreachableError(f"broke off after {part.stat().st_size} of {package.size} bytes")

    def _require_size(self, response: http.client.HTTPResponse, have: int, package: Package) -> None:
        """Another size is another file (the page of a login portal, for one): do not mix it into ours."""
        announced = response.headers.get("Content-Length")
        if announced is not None and have + int(announced) != package.size:
            raise _UnreachableError(f"has {have + int(announced)} bytes where the lock says {package.size}")

    def _show(self, package: Package, have: int) -> None:
        self._progress.advance(have - self._shown.get(package.name, 0))
        self._shown[package.name] = have

    def _verify(self, package: Package, source: Source, part: Path) -> None:
        found = file_sha256(part)
        if found != package.sha256:
            part.unlink()
            raise SamepageError(
                f"package {package.name} {package.version} from the {source.title} is not the one that was locked\n"
                f"  address: {source.address(package)}\n  locked:  {package.sha256}\n  arrived: {found} (removed)",
                where=f"{self._recipe}.lock",
                hint="The download may have been damaged: try again; if it stays so, do not trust this source.",
            )


def verify_cached(package: Package, file: Path) -> None:
    """Check a file of the cache before it is unpacked; a damaged one is removed, so that trying again fetches it."""
    found = file_sha256(file)
    if found != package.sha256:
        file.unlink()
        raise SamepageError(
            f"the cached file of {package.name} {package.version} was damaged (sha256 {found}); it was removed",
            where=file,
            hint="Run the command again: it is fetched anew.",
        )


def _require_space(store: Path, missing: list[Package]) -> None:
    need = _FREE_SPACE_FACTOR * sum(package.size for package in missing)
    free = shutil.disk_usage(store).free
    if free < need:
        raise SamepageError(
            f"{free >> 20} MiB are free, about {need >> 20} MiB are needed",
            where=store,
            hint="Free some space, or name another folder: SAMEPAGE_CACHE=/PATH",
        )
