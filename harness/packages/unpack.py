# SPDX-License-Identifier: MIT
"""Unpacking .deb files into a merged-/usr tree, as any user and without running anything of the packages."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from harness.errors import SamepageError

_MERGED = ("bin", "lib", "lib64", "sbin")
_TIMEOUT = 300


def prepare_tree(root: Path) -> None:
    """Make the folders and links that every Debian root has, before anything is unpacked over them."""
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")


def unpack_package(deb: Path, root: Path, drop: Iterable[str] = ()) -> None:
    """Unpack one package over `root`, leaving out paths that match the shell patterns `drop` (relative to the root).

    Files belong to the user who runs this; modes are those of the package. Links such as /lib stay links.
    """
    unpack = [
        "tar",
        "--extract",
        f"--directory={root}",
        "--keep-directory-symlink",
        "--no-same-owner",
        "--preserve-permissions",
        "--delay-directory-restore",
        "--wildcards",
        *(f"--exclude=./{pattern}" for pattern in drop),
    ]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as reader:
        result = subprocess.run(unpack, stdin=reader.stdout, capture_output=True, timeout=_TIMEOUT, check=False)
        assert reader.stderr is not None
        message = reader.stderr.read() + result.stderr
    if reader.returncode != 0 or result.returncode != 0:
        raise SamepageError(f"cannot be unpacked: {message.decode(errors='replace').strip()}", where=deb)
