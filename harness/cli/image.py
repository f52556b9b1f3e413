# SPDX-License-Identifier: MIT
"""`samepage image`: build the guest image, or prove that it comes out the same again."""

from __future__ import annotations

import click

from harness.config import load_config
from harness.image import ensure_image
from harness.image.verify import verify_image

_KERNEL = click.option("--kernel", help="Kernel recipe, such as 6.12 (default: the configured one).")


@click.group()
def image() -> None:
    """Build or verify the guest image."""


@image.command()
@_KERNEL
def build(kernel: str | None) -> None:
    """Build the image (nothing to do if it is there) and print its sha256 and folder."""
    config = load_config()
    built = ensure_image(config, kernel or config.kernel)
    click.echo(f"{built.sha256}  {built.root.parent}")


@image.command()
@_KERNEL
def verify(kernel: str | None) -> None:
    """Build the image again from the packages, in another folder, and compare bit for bit.

    Exit code 1, naming the first byte that differs, if it does not come out the same.
    """
    config = load_config()
    verified = verify_image(config, kernel or config.kernel)
    click.echo(f"{verified.sha256}  identical: {', '.join(path.name for path in verified.files())}")
