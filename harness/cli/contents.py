# SPDX-License-Identifier: MIT
"""`samepage contents`: what all domains of this machine may share."""

from __future__ import annotations

import errno
from pathlib import Path

import click

from harness.cli.device import ONLY_ROOT, asking
from harness.ksm.inguest import contents as device

_HINTS = {
    **ONLY_ROOT,
    errno.ENOSPC: "There may be 262,144 contents (1 GiB); `samepage contents clear` begins anew.",
}
_LATER = {errno.ENOMEM: "Some pages are still shared: the scanner unmerges them when it comes by."}


@click.group()
def contents() -> None:
    """Say which contents all domains share: a distribution's libraries, for one.

    By default there are none. Whoever has such a page can tell that somebody else has it, by the time that a write to
    it takes; timing-safe domains take no part. What virtual machines have read from their disks lies in their memory
    page by page as in the files.
    """


@contents.command(epilog="Example: samepage contents share /usr/lib/x86_64-linux-gnu/*.so.*")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    metavar="FILE...",
)
def share(files: tuple[Path, ...]) -> int:
    """Let all domains share each page of FILE, as it is now (root only).

    Pages that are merged already stay within their domains until they are written to.
    """
    with asking("cannot share", device.DEVICE, _HINTS):
        device.share([str(file) for file in files])
        click.echo(f"{device.count():,} contents are for all.")
    return 0


@contents.command(epilog="Example: samepage contents clear")
def clear() -> int:
    """Let domains share nothing any more: who shared a page gets its own again, which may find a twin in its domain."""
    with asking("cannot clear at once", device.DEVICE, _HINTS | _LATER):
        device.clear()
    return 0


@contents.command(epilog="Example: samepage contents count")
def count() -> int:
    """Show how many contents are for all (root only)."""
    with asking("cannot be read", device.DEVICE, _HINTS):
        click.echo(f"{device.count():,}")
    return 0
