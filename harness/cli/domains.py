# SPDX-License-Identifier: MIT
"""`samepage domains`: whose pages are merged with whose on this machine, chosen by hand."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.cli.device import asking
from harness.errors import CheckFailed
from harness.ksm import domainrules
from harness.ksm.inguest import domains as device

_NOT_YOURS = "One may choose for one's own processes, where root has not; root may for all, and for cgroups."
_HINTS = {
    errno.ESRCH: "There is no such process, or it is one of the kernel's.",
    errno.EACCES: _NOT_YOURS,
    errno.EPERM: _NOT_YOURS,
    errno.EAGAIN: "The module is being loaded or unloaded.",
    errno.ENOENT: "Nobody has chosen one, or the cgroup is gone.",
}
_RULES = """\b
Example of a file of rules:
  [[rule]]
  domain = "web"             # a number, or a word of up to 8 characters
  cgroup = "web.slice"       # below /sys/fs/cgroup; all in it and below it
\b
  [[rule]]
  domain = "build"
  user = "alice"             # all processes that run as alice now ...
  process = "make"           # ... and are called so
\b
Example: samepage domains apply tenants.toml
"""


def _asking(what: str) -> AbstractContextManager[None]:
    return asking(what, device.DEVICE, _HINTS)


class _Whose(click.ParamType[tuple[int, int]]):
    name = "pid|cgroup"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        text = str(value)
        try:
            whose = device.target(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        except OSError as error:
            self.fail(f"{text!r:.100} is no cgroup of version 2: {error.strerror}", param, ctx)
        if whose[0] == device.PROCESS and not 0 < whose[1] <= 1 << 22:
            self.fail(f"{text} is no process's number", param, ctx)
        return whose


class _Name(click.ParamType[int]):
    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return device.number_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _note_policy() -> None:
    """Say so where choices do not count."""
    try:
        policy = Path(device.POLICY).read_text("ascii").strip()
    except OSError:
        return
    if policy != "explicit":
        click.echo(f"samepage: note: this counts when {device.POLICY} says explicit, not {policy}", err=True)


@click.group()
def domains() -> None:
    """Choose whose pages are merged with whose: domains of processes and cgroups.

    It counts where /sys/kernel/mm/samepage/domain_by says explicit. What a user chooses parts that user's own
    processes; what root chooses joins those of different users, too.
    """


@domains.command("list", epilog="Example: samepage domains list")
def list_() -> int:
    """Show every domain, and what is merged in it (root only)."""
    with _asking("cannot be read"):
        found = device.domains()
    table = Table("id", "by", "who", "name", "processes", "shared", "sharing", "saves MiB", "scan s", "copies", "mode")
    for line in found:
        who = "root" if line["who"] == device.ADMINISTRATOR else str(line["who"])
        explicit = line["by"] == "explicit"
        name = device.name_of(int(line["name"])) if explicit else ""
        seconds, saves = int(line["scan_ns"]) / 1e9, int(line["profit"]) / (1 << 20)
        numbers = (str(line[key]) for key in ("processes", "shared", "sharing"))
        table.add_row(
            str(line["id"]),
            str(line["by"]),
            who,
            escape(name),
            *numbers,
            f"{saves:,.1f}",
            f"{seconds:,.2f}",
            str(line["copies"]),
            "timing-safe" if line["timing_safe"] else "",
        )
    Console().print(table)
    return 0


@domains.command(
    "set", epilog="Example: samepage domains set 1234 web; samepage domains set /sys/fs/cgroup/web.slice 7"
)
@click.argument("whose", type=_Whose(), metavar="PID|CGROUP")
@click.argument("name", type=_Name(), metavar="NAME")
def set_(whose: tuple[int, int], name: int) -> int:
    """Choose the domain of the process PID, or of all processes in CGROUP and below it (root only).

    NAME is a number, or a word of up to 8 characters. A process's children have it, too, until they execute a program.
    """
    with _asking("cannot choose"):
        device.set_domain(whose, name)
    _note_policy()
    return 0


@domains.command(epilog="Example: samepage domains clear 1234")
@click.argument("whose", type=_Whose(), metavar="PID|CGROUP")
def clear(whose: tuple[int, int]) -> int:
    """Undo `set` for the process PID or the cgroup CGROUP."""
    with _asking("cannot undo"):
        device.clear_domain(whose)
    return 0


@domains.command(epilog=_RULES)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def apply(file: Path) -> int:
    """Choose the domains that the rules of FILE say.

    Cgroups keep theirs; processes are those that run now. Nothing is changed unless all of FILE makes sense here.
    Exit code 1: some processes may not be changed by you.
    """
    rules = domainrules.find(file, domainrules.load(file))
    with _asking("cannot choose"):
        Path(device.DEVICE).stat()
        applied = domainrules.apply(rules, device.set_domain, device.clear_domain)
    table = Table("rule", "domain", "cgroup", "processes", "refused")
    for one in applied:
        cgroup = "" if one.rule.cgroup is None else str(one.rule.cgroup)
        counts = ("", "") if cgroup else (str(one.processes), str(one.refused))
        table.add_row(str(one.rule.number), escape(device.name_of(one.rule.domain)), cgroup, *counts)
    Console().print(table)
    _note_policy()
    if refused := sum(one.refused for one in applied):
        raise CheckFailed(f"{refused} processes may not be changed", where=file, hint=_NOT_YOURS)
    return 0
