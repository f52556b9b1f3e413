# SPDX-License-Identifier: MIT
"""Options that several commands have."""

from __future__ import annotations

import dataclasses
import math
import re
from datetime import datetime

import click

from harness.config import Config, load_config
from harness.errors import SamepageError
from harness.kernel import for_kernel
from harness.ksm.bench import HISTORY

no_snapshot = click.option("--no-snapshot", is_flag=True, help="Boot every guest in place of restoring a snapshot.")
lockstep = click.option("--lockstep", is_flag=True, help="In a guest that repeats itself to the last instruction.")

_TAKEN = {"latest", HISTORY}
"""Names under runs/ that mean something else."""


class FiniteRange(click.FloatRange):
    """Numbers within bounds. click lets `nan` through all of them, and `inf` where there is no upper one."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; fails, naming the option, for what is none."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number to count with.", param, ctx)
        return number


def run_name(given: str | None, prefix: str = "") -> str:
    """Return the name of a run's folder: what was given, else the time. Raises SamepageError for what is no name."""
    name = f"{prefix}{datetime.now().astimezone():%Y-%m-%d_%H.%M.%S}" if given is None else given
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", name) or name in _TAKEN:
        raise SamepageError(
            "is not a name for a folder under runs/", where=repr(name), hint="Use letters, digits, '-', '_' and '.'."
        )
    return name


def configured(*, kernel: str | None = None, no_snapshot: bool = False) -> Config:
    """Return the configuration that holds here, as the command's options change it."""
    config = load_config()
    config = for_kernel(config, kernel or config.kernel)
    return dataclasses.replace(config, guest_snapshots=config.guest_snapshots and not no_snapshot)
