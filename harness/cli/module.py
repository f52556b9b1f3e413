# SPDX-License-Identifier: MIT
"""`samepage module`: build the configured out-of-tree module."""

from __future__ import annotations

from pathlib import Path

import click

from harness.config import load_config
from harness.module.build import build_module


@click.group()
def module() -> None:
    """Build the out-of-tree module for a pinned kernel."""


@module.command()
@click.option("--kernel", help="Kernel recipe, such as 6.12 (default: the configured one).")
@click.argument("source", required=False, type=click.Path(path_type=Path, file_okay=False, exists=True))
def build(kernel: str | None, source: Path | None) -> None:
    """Build the module in folder SOURCE (default: the configured one) and print the path of the .ko."""
    config = load_config()
    click.echo(build_module(config, source or config.module, kernel or config.kernel).ko)
