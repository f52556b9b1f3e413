# SPDX-License-Identifier: MIT
"""`samepage matrix`: the guest tests on every kernel."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import click

from harness.cli.options import no_snapshot
from harness.config import load_config
from harness.errors import SamepageError
from harness.matrix import report
from harness.matrix.plan import find_tests, known_kernels, plan, room
from harness.matrix.run import COULD_NOT_RUN, prepare, run_all
from harness.progress import console

DEFAULT_TESTS = "tests/guest/ksm"


@click.command()
@click.option("--kernel", "kernels", multiple=True, help="Only this kernel; may be repeated (default: all recipes).")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Runs at once (default: as CPUs and free memory allow).")
@click.option("-k", "expression", metavar="EXPRESSION", help="Only tests that match, as with pytest.")
@no_snapshot
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
def matrix(
    kernels: tuple[str, ...], jobs: int | None, expression: str | None, no_snapshot: bool, paths: tuple[Path, ...]
) -> int:
    """Run the test files in PATHS (default: tests/guest/ksm) on every kernel, several guests at once.

    Ends with one table; leaves junit.xml, every log, and what the guests of failed files left in runs/matrix-TIME. Exit
    code 1 when a test failed, 2 when something could not run.
    """
    config = load_config()
    known = known_kernels(config)
    unknown = set(kernels) - set(known)
    if unknown:
        raise SamepageError("there is no such kernel", where=", ".join(unknown), hint=f"There are: {', '.join(known)}")
    chosen = [kernel for kernel in known if not kernels or kernel in kernels]
    files = find_tests(config.root, [path.resolve() for path in paths or [config.root / DEFAULT_TESTS]])
    broken = prepare(config, chosen)
    _tell(broken)  # now, and again where the table ends: the runs of the others take an hour
    runs = plan([kernel for kernel in chosen if kernel not in broken], files)
    folder = config.runs / f"matrix-{datetime.now().astimezone():%Y-%m-%d_%H.%M.%S}"
    arguments = [*(["-k", expression] if expression else []), *(["--no-snapshot"] if no_snapshot else [])]
    done = run_all(config, runs, room(jobs), folder, arguments)
    merged = report.merge(done, broken)
    folder.mkdir(parents=True, exist_ok=True)
    merged.write(str(folder / "junit.xml"), pretty=True)
    console.print(report.table(merged, chosen))
    click.echo(f"{merged.tests} tests, {merged.failures} failed, {merged.errors} errors, {merged.skipped} skipped")
    click.echo(folder / "junit.xml")
    _tell(broken)
    codes = {*(ran.exit_code for ran in done), *(error.exit_code for error in broken.values())}
    if merged.tests == 0:
        return COULD_NOT_RUN
    return next((code for code in (1, COULD_NOT_RUN) if code in codes), 0)


def _tell(broken: Mapping[str, SamepageError]) -> None:
    for kernel, error in broken.items():
        console.print(f"{kernel} is left out: {error}", markup=False)
