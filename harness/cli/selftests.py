# SPDX-License-Identifier: MIT
"""`samepage selftests`: the kernel's own tests of merging, with in-tree KSM and with the module."""

from __future__ import annotations

from datetime import datetime

import click

from harness.cli.options import configured, no_snapshot
from harness.errors import SamepageError
from harness.image import ensure_image
from harness.ksm.selftests import report
from harness.ksm.selftests.build import build_selftests
from harness.ksm.selftests.cases import cases
from harness.ksm.selftests.judge import ENOUGH_RUNS, Verdict, compare
from harness.ksm.selftests.run import Bench, run_all
from harness.module.build import build_module
from harness.progress import console


@click.command()
@click.option("--kernel", help="Kernel recipe, such as 6.12 (default: the configured one).")
@click.option(
    "--runs", type=click.IntRange(1, 10000), default=ENOUGH_RUNS, show_default=True, help="Of each racy mode."
)
@click.option(
    "--size", type=click.IntRange(4, 1 << 16), default=100, show_default=True, help="MiB that timed modes merge."
)
@click.option("--only", metavar="TEXT", help="Only command lines with TEXT in them.")
@no_snapshot
def selftests(kernel: str | None, runs: int, size: int, only: str | None, no_snapshot: bool) -> int:
    """Build ksm_tests and ksm_functional_tests from the kernel's source package, and run them with both mergers.

    Leaves selftests.tap, junit.xml and all output in runs/selftests-KERNEL-TIME. Exit code 1 where the module fails a
    test that in-tree KSM passes.
    """
    config = configured(kernel=kernel, no_snapshot=no_snapshot)
    programs = build_selftests(config, config.kernel)
    image = ensure_image(config, config.kernel)
    module = build_module(config, config.module, config.kernel)
    folder = config.runs / f"selftests-{config.kernel}-{datetime.now().astimezone():%Y-%m-%d_%H.%M.%S}"
    outcomes = []
    for merger, loaded in (("in-tree", None), ("samepage", module)):
        with Bench(config, image, loaded, programs, folder / merger) as bench:
            chosen = cases(programs, bench.usage(), size_mib=size, racy_runs=runs)
            wanted = [case for case in chosen if only is None or only in case.name]
            if not wanted:
                names = "\n  ".join(case.name for case in chosen)
                raise SamepageError("no command line has that in it", where=only, hint=f"There are\n  {names}")
            outcomes.append(run_all(bench, wanted, f"Selftests of Linux {image.release}, {merger}"))
        report.write_outputs(outcomes[-1], folder / f"{merger}.txt")
    rows = compare(*outcomes)
    report.write_tap(rows, folder / "selftests.tap")
    report.write_junit(rows, f"selftests-{config.kernel}", folder / "junit.xml")
    console.print(report.table(rows, f"Selftests of Linux {image.release}"))
    click.echo(folder)
    return 1 if any(row.verdict is Verdict.FAIL for row in rows) else 0
