# SPDX-License-Identifier: MIT
"""`samepage attack`: attacks on merging, in-tree and each mode of the module side by side."""

from __future__ import annotations

import os
import sys
from typing import get_args

import click
from rich.console import Console

from harness.cli.options import configured, no_snapshot, run_name
from harness.ksm.attack import result as results
from harness.ksm.attack.guests import prepare
from harness.ksm.attack.modes import MODES, ModeName
from harness.ksm.attack.result import AttackResult, Timing
from harness.ksm.attack.run import Job, collect, run_all
from harness.ksm.attack.scripts import AttackName, Plan
from harness.ksm.attack.sizes import SIZES
from harness.ksm.attack.tables import markdown, tables

_stdout = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
_ATTACKS: tuple[AttackName, ...] = get_args(AttackName)
_TIMINGS: dict[str, tuple[Timing, ...]] = {"icount": ("icount",), "tcg": ("tcg",), "both": ("icount", "tcg")}


@click.command(
    epilog="Examples: `samepage attack`, `samepage attack --long --attack covert --mode in-tree --mode user`"
)
@click.option("--short/--long", default=True, help="A few minutes, or so many trials that chance shows in two digits.")
@click.option("--attack", "attacks", multiple=True, type=click.Choice(_ATTACKS), help="Only this one.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(list(MODES)), help="Only this one.")
@click.option(
    "--timing", type=click.Choice(list(_TIMINGS)), default="icount", show_default=True, help="How time passes."
)
@click.option("--kernel", help="The recipe to boot; the configured one when not given.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Of contents and secrets."
)
@click.option("--jobs", type=click.IntRange(1, 1024), help="Guests at once under icount (default: one for each CPU).")
@click.option("--fresh", is_flag=True, help="Make again what was made under icount with the same inputs.")
@click.option("--name", help="Of the folder under runs/; the time when not given.")
@no_snapshot
def attack(
    short: bool,
    attacks: tuple[AttackName, ...],
    modes: tuple[ModeName, ...],
    timing: str,
    kernel: str | None,
    seed: int,
    jobs: int | None,
    fresh: bool,
    name: str | None,
    no_snapshot: bool,
) -> int:
    """Attack merging as an unprivileged process would: in-tree KSM, and each mode of the module.

    In-tree KSM is to fall, which proves the attacks; across domains, and in timing-safe mode within one, they must come
    out at chance. Leaves result.json, report.html and figures.md in runs/NAME. Exit code 1 where a goal is missed.
    """
    config = configured(kernel=kernel, no_snapshot=no_snapshot)
    folder = config.runs / run_name(name, "attack-")
    size = "short" if short else "long"
    chosen = [MODES[name] for name in MODES if name in (modes or MODES)]
    plans = [
        Plan(name, mode, SIZES[size], seed) for name in _ATTACKS if name in (attacks or _ATTACKS) for mode in chosen
    ]
    tools = prepare(config, config.kernel, module=any(mode.merger == "samepage" for mode in chosen))
    folder.mkdir(parents=True, exist_ok=True)
    work = [Job(plan, each) for each in _TIMINGS[timing] for plan in plans]
    done = run_all(config, tools, work, folder, at_once=jobs or len(os.sched_getaffinity(0)), fresh=fresh)
    outcome = collect(size, tools, seed, done)
    results.write(outcome, folder)
    (folder / "figures.md").write_text(markdown(outcome), encoding="utf-8")
    for table in tables(outcome):
        _stdout.print(table)
    # Imported when needed: the plots take a while to load.
    from harness.ksm.attack.report import write_report

    click.echo(f"report: {write_report(outcome, folder)}")
    return _verdict(outcome)


def _verdict(outcome: AttackResult) -> int:
    for mode, reason in dict.fromkeys((skip.mode, skip.reason) for skip in outcome.skipped):
        click.echo(f"not there: {mode}: {reason}")
    for figure in outcome.missed:
        click.echo(
            f"missed: {figure.attack}, {figure.mode}, {figure.timing}, {figure.metric}: {figure.value:g} "
            f"({figure.low:g} to {figure.high:g}, n = {figure.n}), wanted: {figure.goal}"
        )
    wanted = sum(figure.reached is not None for figure in outcome.figures)
    click.echo(f"{wanted - len(outcome.missed)} of {wanted} goals reached")
    return 1 if outcome.missed else 0
