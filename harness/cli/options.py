# SPDX-License-Identifier: MIT
"""Options that several commands have."""

from __future__ import annotations

import dataclasses

import click

from harness.config import Config, load_config
from harness.kernel import for_kernel

no_snapshot = click.option("--no-snapshot", is_flag=True, help="Boot every guest in place of restoring a snapshot.")


def configured(*, kernel: str | None = None, no_snapshot: bool = False) -> Config:
    """Return the configuration that holds here, as the command's options change it."""
    config = load_config()
    config = for_kernel(config, kernel or config.kernel)
    return dataclasses.replace(config, guest_snapshots=config.guest_snapshots and not no_snapshot)
