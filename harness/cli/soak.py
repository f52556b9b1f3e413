# SPDX-License-Identifier: MIT
"""`samepage soak`: random steps and writers for hours, with a row of figures each minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import click
import msgspec

from harness.cli.options import FiniteRange, configured, lockstep, no_snapshot
from harness.ksm.fuzz.player import LOCKSTEP, SPEC, Outcome, start_player
from harness.ksm.fuzz.soak import Soak, Tally
from harness.progress import step

_COLUMNS = ("minutes", "rounds", "steps", "merges", "copies", "writes", "compared", "reloads", "MiB left")


@click.command(epilog="Example: `samepage soak --minutes 120 --kernel debug`")
@click.option("--minutes", type=FiniteRange(0, 1_000_000, min_open=True), default=60, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Chooses all steps.")
@click.option("--every", type=click.IntRange(1, 86400), default=60, show_default=True, help="Seconds from row to row.")
@click.option("--kernel", help="Kernel recipe, such as 6.12 or debug (default: the configured one).")
@lockstep
@no_snapshot
def soak(minutes: float, seed: int, every: int, kernel: str | None, lockstep: bool, no_snapshot: bool) -> int:
    """Play random steps in a guest with the module while other processes write, and check everything after each step.

    A row of figures every minute, and at the end how often each kind of step was done, refused by Linux or the module,
    or idle because there was nothing for it. Leaves result.json in runs/soak-TIME, and of a run that fails the script
    of its last round, for `samepage replay`. Exit code 1 for a wrong byte, a fault that the module finds in what it
    knows, or anything that the kernel complains of. With --lockstep the same seed repeats that to the last instruction.
    """
    config = configured(kernel=kernel, no_snapshot=no_snapshot)
    folder = config.runs / f"soak-{config.kernel}-{datetime.now().astimezone():%Y-%m-%d_%H.%M.%S}"
    with start_player(config, folder, LOCKSTEP if lockstep else SPEC) as player:
        soaking = Soak(player, seed, folder)
        began = time.monotonic()
        shown = began
        click.echo(_row(_COLUMNS))
        with step("Soaking", total=round(60 * minutes)) as progress:
            while time.monotonic() < began + 60 * minutes:
                last = time.monotonic()
                for one in soaking.round():
                    progress.detail(f": round {soaking.tally.rounds + 1}, {one}")
                player.guest.log.check("the end of a round")
                progress.advance(time.monotonic() - last)
                if time.monotonic() >= shown + every:
                    shown = time.monotonic()
                    click.echo(_row(_cells(shown - began, soaking.tally)))
        seconds = time.monotonic() - began
        click.echo(_row(_cells(seconds, soaking.tally)))
    kinds = soaking.by_kind()
    click.echo("\n".join(_outcomes(kinds)))
    result = {
        "kernel": player.module.release,
        "seed": seed,
        "seconds": round(seconds),
        **msgspec.structs.asdict(soaking.tally),
        "steps_by_kind": kinds,
    }
    (folder / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    click.echo(f"No page was wrong, and neither the module nor the kernel complained. result: {folder / 'result.json'}")
    return 0


def _cells(seconds: float, tally: Tally) -> tuple[str, ...]:
    counts = (tally.rounds, tally.steps, tally.merges, tally.copies, tally.writes, tally.pages_compared, tally.reloads)
    return (f"{seconds / 60:.1f}", *(f"{count:,}" for count in (*counts, tally.memory_available_mib)))


def _outcomes(kinds: dict[str, dict[str, int]]) -> Iterator[str]:
    """A line for each kind of step: how often it was done, refused, and idle."""
    for name, counts in {"step": {}, **kinds}.items():
        cells = counts.values() if counts else Outcome
        yield " ".join([f"{name:9}", *(f"{cell:>9}" for cell in cells)])


def _row(cells: tuple[str, ...]) -> str:
    return " ".join(f"{cell:>{13 if number == 6 else 9}}" for number, cell in enumerate(cells))
