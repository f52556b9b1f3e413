# SPDX-License-Identifier: MIT
"""`samepage shares`: who of this machine has how much of the scanners' time, and who takes no part."""

from __future__ import annotations

import errno
import os
import pwd
from contextlib import AbstractContextManager
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.cli.device import ONLY_ROOT, asking
from harness.ksm.inguest import shares as device


def _asking(what: str, missing: str, where: str | None = None) -> AbstractContextManager[None]:
    return asking(what, device.DEVICE, {**ONLY_ROOT, errno.ENOENT: missing}, where=where)


class _Cgroup(click.ParamType[int]):
    name = "cgroup"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        try:
            return device.cgroup_id(text)
        except (OSError, ValueError):
            self.fail(f"{text!r:.100} is no cgroup of version 2", param, ctx)


def _cgroups() -> dict[int, str]:
    """The paths of all cgroups, by their ids."""
    root = Path("/sys/fs/cgroup")
    return {Path(folder).stat().st_ino: "/" + str(Path(folder).relative_to(root)) for folder, _, _ in os.walk(root)}


def _name(by: str, who: int, cgroups: dict[int, str]) -> str:
    if by == "cgroup":
        return escape(cgroups.get(who, f"number {who}"))
    if by == "user":
        try:
            return escape(pwd.getpwuid(who).pw_name)
        except KeyError:
            return str(who)
    return "" if by == "all" else str(who)


@click.group()
def shares() -> None:
    """Say how much of the scanners' time cgroups have, and how they take part in merging.

    Tenants (users, or the cgroups that something was said of) are scanned in turns, so that none slows the others'
    merging. By default each has the same share.
    """


@shares.command("list", epilog="Example: samepage shares list")
def list_() -> int:
    """Show who takes turns, and how much scanning each has had (root only)."""
    with _asking("cannot be read", "It needs debugfs: `mount -t debugfs none /sys/kernel/debug`.", device.TENANTS):
        found = device.tenants()
    table = Table("by", "who", "processes", "weight", "percent", "scan s", "mode", "now")
    cgroups = _cgroups()
    for line in found:
        by, who, percent = str(line["by"]), int(line["who"]), int(line["percent"])
        now = "excluded" if line["excluded"] else "has had its percent" if line["held"] else ""
        mode = "timing-safe" if line["timing_safe"] else ""
        seconds = f"{int(line['scan_ns']) / 1e9:,.2f}"
        numbers = (str(line["processes"]), str(line["weight"]), str(percent or "no limit"))
        table.add_row(by, _name(by, who, cgroups), *numbers, seconds, mode, now)
    Console().print(table)
    return 0


@shares.command(
    "set",
    epilog="Example: samepage shares set /sys/fs/cgroup/batch.slice --weight 50 --percent 5",
)
@click.argument("cgroup", type=_Cgroup(), metavar="CGROUP")
@click.option(
    "--weight",
    type=click.IntRange(1, device.MOST_WEIGHT),
    default=device.WEIGHT,
    show_default=True,
    help="Its share beside that of others who have something to scan.",
)
@click.option(
    "--percent",
    type=click.IntRange(0, device.MOST_PERCENT),
    default=0,
    help="At most so much of one CPU.  [default: no limit]",
)
@click.option("--exclude", is_flag=True, help="It takes no part: nothing of it is merged, and what was is unmerged.")
@click.option("--timing-safe", is_flag=True, help="Writes to its pages tell nothing of others' (docs/SECURITY.md).")
def set_(cgroup: int, weight: int, percent: int, exclude: bool, timing_safe: bool) -> int:
    """Give CGROUP a share: all processes in it and below it together, but for cgroups that have one of their own.

    It counts when the scanner next comes by, and replaces what was said before.
    """
    with _asking("cannot set", "The cgroup is gone."):
        device.set_share(cgroup, weight, percent, exclude, timing_safe)
    return 0


@shares.command(epilog="Example: samepage shares clear /sys/fs/cgroup/batch.slice")
@click.argument("cgroup", type=_Cgroup(), metavar="CGROUP")
def clear(cgroup: int) -> int:
    """Undo `set` for CGROUP: its processes are their users' again."""
    with _asking("cannot undo", "Nothing was said of this cgroup."):
        device.clear_share(cgroup)
    return 0
