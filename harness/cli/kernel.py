# SPDX-License-Identifier: MIT
"""`samepage kernel`: build the debug kernels, or prove that one comes out the same again."""

from __future__ import annotations

import click

from harness.config import load_config
from harness.kernel import ensure_built, verify_built


@click.group(epilog="Example: `samepage kernel build debug`")
def kernel() -> None:
    """Build or verify a kernel from Debian's source package, with options from images/kernels."""


@kernel.command(epilog="Example: `samepage kernel build debug`")
@click.argument("name")
def build(name: str) -> None:
    """Build the kernel NAME (nothing to do if it is there) and print its release and folder.

    Goes on where an interrupted build was. Any command takes it then: `--kernel NAME`.
    """
    built = ensure_built(load_config(), name)
    click.echo(f"{built.release}  {built.tree}")


@kernel.command(epilog="Example: `samepage kernel verify debug`")
@click.argument("name")
def verify(name: str) -> None:
    """Build the kernel NAME again, in another folder and without ccache, and compare bit for bit.

    Exit code 1, naming the files that differ, if it does not come out the same.
    """
    files = verify_built(load_config(), name)
    click.echo(f"{len(files)} files identical, vmlinux and the modules among them")
