# SPDX-License-Identifier: MIT
"""`samepage why`: why the pages of a process on this machine are not merged."""

from __future__ import annotations

import errno

import click
from rich.console import Console
from rich.table import Table

from harness.cli.device import asking
from harness.errors import SamepageError
from harness.ksm.inguest.why import DEVICE, REASONS
from harness.ksm.inguest.why import why as ask
from harness.ksm.protocol import PAGE_BYTES

_HINTS = {
    errno.ESRCH: "There is no such process.",
    errno.EACCES: "One may ask about one's own processes; root may ask about all.",
    errno.EPERM: "One may ask about one's own processes; root may ask about all.",
}


class _Address(click.ParamType[int]):
    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            address = int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is no address: 0x7f0000000000, for one", param, ctx)
        if not 0 <= address < 1 << 47 or address % PAGE_BYTES:
            self.fail(f"{value} is no page's address", param, ctx)
        return address


@click.command(epilog="Example: samepage why 1234 --start 0x7f0000000000 --end 0x7f0000400000")
@click.argument("pid", type=click.IntRange(1, (1 << 22)))
@click.option("--start", type=_Address(), default="0", help="First address; that of the first page when not given.")
@click.option("--end", type=_Address(), default="0", help="Address after the last; all when not given.")
def why(pid: int, start: int, end: int) -> int:
    """Count the pages of the process PID by what keeps them from being merged.

    Asks the module on this machine, which tells whoever may look into the process.
    """
    if end and end < start:
        raise SamepageError("ends before it starts", where="--end")
    with asking(f"cannot be asked about process {pid}", DEVICE, _HINTS):
        pages = ask(pid, start, end)
    table = Table("pages", "MiB", "reason", "the page")
    for column in table.columns[:2]:
        column.justify = "right"
    for reason, count in sorted(pages.items(), key=lambda item: -item[1]):
        if count:
            table.add_row(f"{count:,}", f"{count * PAGE_BYTES / (1 << 20):,.1f}", reason, REASONS[reason])
    Console().print(table)
    return 0
