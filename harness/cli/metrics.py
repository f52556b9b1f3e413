# SPDX-License-Identifier: MIT
"""`samepage metrics`: counters as OpenMetrics text."""

from __future__ import annotations

from pathlib import Path

import click

from harness.ksm.metrics import of_machine, of_result, openmetrics
from harness.ksm.result import read


@click.command(epilog="Example: samepage metrics runs/latest/result.json > /var/lib/node_exporter/ksm.prom")
@click.argument("result", required=False, type=click.Path(path_type=Path, exists=True))
def metrics(result: Path | None) -> int:
    """Print the merging counters of this machine, or of a run's RESULT (result.json), as OpenMetrics text."""
    if result is None:
        click.echo(openmetrics(of_machine(), {}), nl=False)
        return 0
    run = read(result)
    labels = {"kernel": run.kernel, "merger": run.merger, "workload": run.workload, "run": run.name}
    click.echo(openmetrics(of_result(run), labels), nl=False)
    return 0
