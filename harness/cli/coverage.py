# SPDX-License-Identifier: MIT
"""`samepage coverage`: which lines of the module ran in guests of a debug kernel, and why the others did not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import click
import msgspec
from rich.console import Console
from rich.table import Table

from harness.cli.options import FiniteRange, configured
from harness.document import Text, read_toml
from harness.module.build import build_module, kbuild_for, source_files
from harness.module.coverage import Coverage, Share, branches_run, lines_run, never_run, read_coverage
from harness.progress import step

_stdout = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why lines of a function never run."""

    lines: Annotated[int, msgspec.Meta(ge=1)]
    """So many at most: one more is one without a reason."""
    why: Text


class Reasons(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Reasons, by the function's name."""

    reasons: dict[str, Reason]


@click.command(epilog="Example: `samepage coverage runs/coverage --reasons tests/debug/never_run.toml --at-least 90`")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--kernel", default="debug", show_default=True, help="The recipe that the guests booted.")
@click.option(
    "--reasons", "reasons_path", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="TOML: [reasons]."
)
@click.option("--at-least", type=FiniteRange(0, 100), default=0, metavar="PERCENT", help="Fail with fewer lines.")
def coverage(folder: Path, kernel: str, reasons_path: Path | None, at_least: float) -> int:
    """Show which lines and branches of the module ran in the guests that left their counts in FOLDER.

    `make test-debug` leaves them in runs/coverage. Exit code 1 where too few ran, or, with --reasons, where more lines
    of a function never ran than a reason is given for, or a reason is given for what is no function. Those of which
    all ran this time are named: some reasons are races, which come or do not.
    """
    config = configured(kernel=kernel)
    reasons = read_toml(reasons_path, Reasons).reasons if reasons_path else {}
    built = build_module(config, config.module, config.kernel)
    with step("Reading counts"):
        found = read_coverage(kbuild_for(config, config.kernel), built, source_files(config.module), folder)
    _stdout.print(_table(found))
    wrong = _explain(found, reasons)
    total = _sum([lines_run(lines) for lines in found.values()])
    return 1 if total.percent < at_least or (reasons_path and wrong) else 0


def _explain(found: Coverage, reasons: Mapping[str, Reason]) -> bool:
    """Print which lines never ran, and why; return whether that is not known of all, or known of what there is not."""
    never = [(name, *one) for name, lines in found.items() for one in never_run(lines).items()]
    wrong = False
    for name, function, numbers in never:
        reason = reasons.get(function)
        known = reason is not None and len(numbers) <= reason.lines
        wrong |= not known
        why = "no reason given" if reason is None else reason.why
        more = "" if known or reason is None else f" ({len(numbers)} lines, the reason is for {reason.lines})"
        click.echo(f"{name}:{_ranges(numbers)}: {function}: {why}{more}")
    functions = {line.function for lines in found.values() for line in lines.values()}
    for function in sorted(reasons.keys() - {function for _, function, _ in never}):
        known = function in functions
        wrong |= not known
        click.echo(f"{function}: {'all of it ran this time' if known else 'there is no such function'}")
    return wrong


def _table(found: Coverage) -> Table:
    table = Table(box=None)
    table.add_column("file")
    for name in ("lines", "run", "%", "branches", "taken", "%"):
        table.add_column(name, justify="right")
    lines = [lines_run(file) for file in found.values()]
    branches = [branches_run(file) for file in found.values()]
    for name, own, taken in zip(found, lines, branches, strict=True):
        table.add_row(name, *_cells(own), *_cells(taken))
    table.add_row("all", *_cells(_sum(lines)), *_cells(_sum(branches)))
    return table


def _cells(share: Share) -> tuple[str, str, str]:
    return str(share.all), str(share.run), f"{share.percent:.1f}"


def _sum(shares: Sequence[Share]) -> Share:
    return Share(sum(share.run for share in shares), sum(share.all for share in shares))


def _ranges(numbers: Sequence[int]) -> str:
    """Write numbers as `3-5,9`."""
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in _runs(numbers))


def _runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    run = [numbers[0]]
    for before, number in pairwise(numbers):
        if number > before + 1:
            yield run
            run = []
        run.append(number)
    yield run
