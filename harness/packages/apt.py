# SPDX-License-Identifier: MIT
"""A private apt root: resolves and verifies with Debian's own tools and keys, and knows nothing of the host's packages.

Only the command that renews a lock uses it; everything else works from the lock file.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from harness.errors import SamepageError
from harness.packages.mirror import host_proxies

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT = 600
# Inst libc6 (2.41-12+deb13u5 Debian:13.8/stable [amd64]) []
_INSTALL_LINE = re.compile(r"^Inst (?P<name>[^ ]+) \((?P<version>[^ ]+) (?P<origin>[^\[]+?) \[")


class AptRoot:
    """apt with its own sources, lists and (empty) package status below `folder`."""

    def __init__(self, folder: Path, mirror: str, suites: list[str], *, sources: bool = False) -> None:
        """With `sources` the indexes of source packages are used as well."""
        if not _KEYRING.is_file():
            raise SamepageError(
                "Debian's archive keys are missing", where=_KEYRING, hint="apt-get install debian-archive-keyring"
            )
        self._folder = folder
        self._suites = suites
        for name in ("etc/parts", "state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "state/status").touch()
        (folder / "etc/sources.list").write_text(
            "".join(
                f"{kind} [arch=amd64 signed-by={_KEYRING}] {mirror} {suite} main\n"
                for suite in suites
                for kind in (["deb", "deb-src"] if sources else ["deb"])
            )
        )
        (folder / "etc/apt.conf").write_text(self._configuration())

    def _configuration(self) -> str:
        proxies = "".join(f'Acquire::{scheme}::Proxy "{url}";\n' for scheme, url in host_proxies().items())
        return (
            f'Dir "{self._folder}";\n'
            f'Dir::State "{self._folder}/state";\n'
            f'Dir::State::status "{self._folder}/state/status";\n'
            f'Dir::Cache "{self._folder}/cache";\n'
            f'Dir::Etc "{self._folder}/etc";\n'
            f'Dir::Etc::parts "{self._folder}/etc/parts";\n'
            'APT::Architecture "amd64";\n'
            'APT::Architectures { "amd64"; };\n'
            'APT::Install-Recommends "false";\n'
            'APT::Sandbox::User "";\n'  # the folder need not be readable by another user
            'Acquire::Languages "none";\n' + proxies
        )

    def update(self) -> None:
        """Download the package indexes; apt refuses what Debian's keys have not signed."""
        # An index that could not be fetched is only a warning to apt, and would resolve to old versions.
        self._run("apt-get", "--error-on=any", "update")

    def resolve(self, names: list[str], *, dependencies: bool) -> dict[str, str]:
        """Return the version of each of `names` (and of all they depend on) that apt would install.

        The named packages come from the first suite if it has them, what they depend on by apt's own preferences.
        """
        if not dependencies:
            return {name: self._candidate(name) for name in names}
        output = self._run("apt-get", "--simulate", "install", *(f"{name}={self._candidate(name)}" for name in names))
        versions = {match["name"]: match["version"] for match in map(_INSTALL_LINE.match, output.splitlines()) if match}
        missing = set(names) - versions.keys()
        if missing:
            raise SamepageError(f"apt resolves to nothing: {', '.join(sorted(missing))}", where=self._suites[0])
        return versions

    def _candidate(self, name: str) -> str:
        output = self._run("apt-cache", f"--target-release={self._suites[0]}", "policy", name)
        match = re.search(r"^ +Candidate: (\S+)$", output, re.MULTILINE)
        if match is None or match[1] == "(none)":
            raise SamepageError(f"no package {name} in {', '.join(self._suites)}", where="apt")
        return match[1]

    def suites(self, versions: dict[str, str]) -> dict[str, str]:
        """Return the suite that each package comes from (the first one that has the version)."""
        found: dict[str, str] = {}
        # libc6 | 2.41-12+deb13u5 | http://HOST/debian trixie/main amd64 Packages
        for line in self._run("apt-cache", "madison", *sorted(versions)).splitlines():
            name, version, source = (field.strip() for field in line.split("|"))
            if versions.get(name) == version:
                found.setdefault(name, source.split()[1].partition("/")[0])
        return found

    def records(self, versions: dict[str, str]) -> Iterator[dict[str, str]]:
        """Yield the index record (Package, Version, Filename, SHA256, Size, Depends ...) of each package."""
        wanted = [f"{name}={version}" for name, version in sorted(versions.items())]
        for paragraph in self._run("apt-cache", "show", *wanted).strip().split("\n\n"):
            record = dict(HeaderParser().parsestr(paragraph).items())
            if versions.get(record["Package"]) == record["Version"]:
                yield record

    def source_record(self, name: str) -> dict[str, str]:
        """Return Package, Version, Filename, SHA256 and Size of the original source of the newest source package."""
        output = self._run("apt-cache", "showsrc", "--only-source", name)
        paragraphs = [dict(HeaderParser().parsestr(text).items()) for text in output.strip().split("\n\n")]
        # Field names of a source index: its first paragraph is the newest version.
        newest = next((record for record in paragraphs if record.get("Package") == name), None)
        archive = re.search(
            r"^ ([0-9a-f]{64}) (\d+) (\S+\.orig\.tar\.xz)$", (newest or {}).get("Checksums-Sha256", ""), re.M
        )
        if newest is None or archive is None:
            raise SamepageError(f"no source package {name} with an original .tar.xz", where=self._suites[0])
        return {
            "Package": name,
            "Version": newest["Version"],
            "Filename": f"{newest['Directory']}/{archive[3]}",
            "SHA256": archive[1],
            "Size": archive[2],
        }

    def _run(self, *argv: str) -> str:
        environment = {
            **os.environ,
            "APT_CONFIG": str(self._folder / "etc/apt.conf"),
            "LC_ALL": "C.UTF-8",
        }
        try:
            result = subprocess.run(
                argv, env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False
            )
        except FileNotFoundError as error:
            raise SamepageError("not found; a lock can only be renewed on Debian", where=argv[0]) from error
        except subprocess.TimeoutExpired as error:
            raise SamepageError(f"no answer in {_TIMEOUT} s", where=" ".join(argv[:3])) from error
        if result.returncode != 0:
            raise SamepageError(result.stderr.strip() or "failed", where=" ".join(argv[:3]))
        return result.stdout
