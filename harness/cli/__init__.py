# SPDX-License-Identifier: MIT
"""The `samepage` command. Each command lives in a file of its own here and is one line in COMMANDS."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module

import click

from harness.errors import SamepageError

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module and attribute of the click command, one line of help)
    "attack": ("harness.cli.attack:attack", "Attacks on merging: in-tree and each mode side by side."),
    "bench": ("harness.cli.bench:bench", "What each merger costs, in instructions that repeat to the last digit."),
    "contents": ("harness.cli.contents:contents", "Say which contents all domains of this machine share."),
    "coverage": ("harness.cli.coverage:coverage", "Which lines of the module ran on a debug kernel."),
    "domains": ("harness.cli.domains:domains", "Choose whose pages are merged with whose on this machine."),
    "image": ("harness.cli.image:image", "Build or verify the guest image."),
    "lint": ("harness.cli.lint:lint", "Compiler warnings, sparse and checkpatch over the module."),
    "lock": ("harness.cli.lock:lock", "Renew a lock file from the current Debian archive."),
    "matrix": ("harness.cli.matrix:matrix", "The guest tests on every kernel, with one table and one JUnit file."),
    "metrics": ("harness.cli.metrics:metrics", "Counters of this machine or of a run as OpenMetrics text."),
    "kernel": ("harness.cli.kernel:kernel", "Build a kernel of our own, such as the debug kernel."),
    "module": ("harness.cli.module:module", "Build the out-of-tree module for a pinned kernel."),
    "profile": ("harness.cli.profile:profile", "Instructions of each kernel function in the merging thread."),
    "run": ("harness.cli.run:run", "Run a workload in a guest and report."),
    "replay": ("harness.cli.replay:replay", "Play a script of random steps again, with every check."),
    "selftests": ("harness.cli.selftests:selftests", "The kernel's own tests of merging, with both mergers."),
    "shares": ("harness.cli.shares:shares", "Say who has how much of the scanners' time on this machine."),
    "soak": ("harness.cli.soak:soak", "Random steps and writers for hours, everything checked."),
    "shell": ("harness.cli.shell:shell", "A console or an ssh session in a guest with the module loaded."),
    "why": ("harness.cli.why:why", "Why the pages of a process on this machine are not merged."),
}


class _LazyGroup(click.Group):
    """Imports a command's module only when it is asked for: a quick command stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="samepage")
def cli() -> None:
    """Build, boot, load, break and measure a kernel module under QEMU.

    Exit codes: 0 pass, 1 fail (the check ran and found a fault), 2 could not run.
    """


def main() -> None:
    """Run the command line; every error that a person can cause is printed without a traceback."""
    try:
        code = cli.main(prog_name="samepage", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("samepage: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(2)  # whoever read our output has gone; there is nobody to tell
    except OSError as error:  # a full disk, a folder that may not be written
        click.echo(f"samepage: error: {error}", err=True)
        sys.exit(2)
    except SamepageError as error:
        click.echo(f"samepage: error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception:  # a fault of ours: python's own exit code, 1, would say that a check had found one
        traceback.print_exc()
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
