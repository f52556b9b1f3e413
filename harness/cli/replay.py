# SPDX-License-Identifier: MIT
"""`samepage replay`: play a script of steps again, as the fuzzing test or a soak left it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path

import click

from harness.cli.options import configured, lockstep, no_snapshot
from harness.errors import SamepageError
from harness.ksm.fuzz.player import LOCKSTEP, SPEC, Player, start_player
from harness.ksm.fuzz.steps import load
from harness.ksm.fuzz.writers import end_writing, writing
from harness.progress import step


@click.command(epilog="Example: `samepage replay failed.steps --kernel 6.1`")
@click.argument("script", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--kernel", help="Kernel recipe, such as 6.12 (default: the configured one).")
@click.option(
    "--times", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="How often, in the same guest."
)
@click.option(
    "--writers", type=click.IntRange(1, 1_000_000_000), help="Beside it, the writers of this round of a soak."
)
@lockstep
@no_snapshot
def replay(script: Path, kernel: str | None, times: int, writers: int | None, lockstep: bool, no_snapshot: bool) -> int:
    """Play a script of steps in a guest with the module, and check every byte and all that the module knows after each.

    With --lockstep all comes at the same instruction each time: what failed so fails so again, and the guest's clock is
    printed.

    Leaves the guest's console in runs/replay-TIME. Exit code 1 when something was wrong.
    """
    steps = load(script)
    config = configured(kernel=kernel, no_snapshot=no_snapshot)
    folder = config.runs / f"replay-{datetime.now().astimezone():%Y-%m-%d_%H.%M.%S}"
    compared = 0
    with start_player(config, folder, LOCKSTEP if lockstep else SPEC) as player, telling_clock(player):
        with step(f"Playing {script.name}", total=times * len(steps)) as progress:
            for _ in range(times):
                with writing(player.guest, writers - 1) if writers else nullcontext() as beside:
                    for number, one in enumerate(steps, 1):
                        progress.detail(f": step {number}, {one}")
                        player.play(one)
                        progress.advance(1)
                    compared += end_writing(beside)[1] if beside else 0
                player.restart()  # what a script leaves behind must go, too
        pages = player.pages_compared + compared
        click.echo(f"{times * len(steps)} steps, {pages:,} pages compared, 0 wrong")
    return 0


@contextmanager
def telling_clock(player: Player) -> Iterator[None]:
    """Say when a guest in lockstep came to its end, or failed: where that repeats, all does."""
    try:
        yield
    finally:
        if player.guest.spec.lockstep and player.guest.running:
            with suppress(SamepageError):
                click.echo(f"the guest's clock: {player.guest.clocks().monotonic:,} ns")
