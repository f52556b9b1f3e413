# SPDX-License-Identifier: MIT
"""`samepage lint`: what compiler, sparse and checkpatch have to say about the module's C."""

from __future__ import annotations

from pathlib import Path

import click

from harness.config import load_config
from harness.errors import CheckFailed
from harness.lint.checkpatch import checkpatch_findings
from harness.lint.kbuild import module_findings


@click.command()
@click.option("--kernel", help="Kernel recipe, such as 6.12 (default: the configured one).")
@click.argument("source", required=False, type=click.Path(path_type=Path, file_okay=False, exists=True))
def lint(kernel: str | None, source: Path | None) -> None:
    """Check the module in folder SOURCE (default: the configured one): compiler warnings, sparse, checkpatch."""
    config = load_config()
    folder = (source or config.module).resolve()
    name = kernel or config.kernel
    findings = module_findings(config, folder, name)  # fails for a folder that is no module, however large
    files = sorted([*folder.rglob("*.c"), *folder.rglob("*.h")])
    findings += checkpatch_findings(config, folder, files, name)
    for finding in findings:
        click.echo(finding)
    if findings:
        raise CheckFailed(f"{len(findings)} findings", where=folder)
