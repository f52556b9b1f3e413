# SPDX-License-Identifier: MIT
"""`samepage replay`: play a script of steps again, as the fuzzing test left it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from harness.cli.options import configured, no_snapshot
from harness.ksm.fuzz.player import start_player
from harness.ksm.fuzz.steps import load
from harness.progress import step


@click.command(epilog="Example: `samepage replay failed.steps --kernel 6.1`")
@click.argument("script", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--kernel", help="Kernel recipe, such as 6.12 (default: the configured one).")
@click.option(
    "--times", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="How often, in the same guest."
)
@no_snapshot
def replay(script: Path, kernel: str | None, times: int, no_snapshot: bool) -> int:
    """Play a script of steps in a guest with the module, and check every byte and all that the module knows after each.

    Leaves the guest's console in runs/replay-TIME. Exit code 1 when something was wrong.
    """
    steps = load(script)
    config = configured(kernel=kernel, no_snapshot=no_snapshot)
    folder = config.runs / f"replay-{datetime.now().astimezone():%Y-%m-%d_%H.%M.%S}"
    with start_player(config, folder) as player:
        with step(f"Playing {script.name}", total=times * len(steps)) as progress:
            for _ in range(times):
                player.restart()
                for number, one in enumerate(steps, 1):
                    progress.detail(f": step {number}, {one}")
                    player.play(one)
                    progress.advance(1)
        click.echo(f"{times * len(steps)} steps, {player.pages_compared:,} pages compared, 0 wrong")
    return 0
