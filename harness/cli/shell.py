# SPDX-License-Identifier: MIT
"""`samepage shell`: a person in a guest."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from harness.cli.options import configured, no_snapshot
from harness.config import Config
from harness.errors import SamepageError
from harness.guest.guest import Guest
from harness.guest.snapshot import start_guest
from harness.guest.spec import GuestSpec
from harness.guest.terminal import interact
from harness.image import ensure_image
from harness.module.build import BuiltModule, build_module
from harness.progress import step

EXAMPLE = """\b
Example:
  samepage shell                          a console; Ctrl-] leaves
  samepage shell --ssh --memory 4096      an ssh session in a larger guest
  echo 'cat /proc/version' | samepage shell --ssh --no-module
"""


@click.command(epilog=EXAMPLE)
@click.option("--console", "way", flag_value="console", default="console", help="The serial console (the default).")
@click.option("--ssh", "way", flag_value="ssh", help="An ssh session; takes commands from a pipe as well.")
@click.option("--no-module", is_flag=True, help="Do not build and load the module.")
@click.option("--kernel", help="Kernel recipe, such as 6.12 (default: the configured one).")
@click.option("--memory", type=click.IntRange(256, 1 << 20), default=1024, show_default=True, help="MiB of memory.")
@click.option("--cpus", type=click.IntRange(1, 255), default=2, show_default=True, help="Virtual CPUs.")
@click.option("--append", multiple=True, metavar="ARGUMENT", help="One more kernel argument; may be repeated.")
@no_snapshot
def shell(
    way: str,
    no_module: bool,
    kernel: str | None,
    memory: int,
    cpus: int,
    append: tuple[str, ...],
    no_snapshot: bool,
) -> int:
    """Start a guest with the module loaded, and work in it. Ctrl-] leaves; nothing of the guest remains.

    Exit code 1 when the guest's kernel complained meanwhile (its log is kept then), else that of the ssh session.
    """
    if way == "console" and not sys.stdin.isatty():
        raise SamepageError("the console needs a terminal", where="stdin", hint="--ssh takes commands from a pipe.")
    config = configured(kernel=kernel, no_snapshot=no_snapshot)
    image = ensure_image(config, config.kernel)
    built = None if no_module else build_module(config, config.module, config.kernel)
    spec = GuestSpec(memory_mib=memory, cpus=cpus, append=append)
    with _folder() as folder, contextlib.ExitStack() as guests:
        with step(f"Starting Linux {image.release}"):
            guest = guests.enter_context(start_guest(config, image, spec, folder))
            _load(guest, built)
        _greet(config, guest, built)
        return _over_ssh(guest) if way == "ssh" else _over_console(guest)


def _load(guest: Guest, built: BuiltModule | None) -> None:
    if built is not None:
        guest.insmod(built.ko)


def _greet(config: Config, guest: Guest, built: BuiltModule | None) -> None:
    loaded = "no module loaded" if built is None else f"{built.name} loaded from {config.module}"
    click.echo(f"Linux {guest.image.release} under {guest.accelerator}, {loaded}. Ctrl-] leaves.", err=True)


def _over_console(guest: Guest) -> int:
    def resize(columns: int, rows: int) -> None:
        # Nobody waits for it: the mark of the log gate would show up in the person's shell.
        guest.spawn(["stty", "-F", "/dev/ttyS0", "cols", str(columns), "rows", str(rows)])

    with guest.console.attach() as sock:
        sock.sendall(b"\r")  # wakes the shell
        left = interact(_ConsolePeer(sock), resize)
    click.echo("" if left else "\nThe guest has ended.", err=True)
    return 0


@dataclass(frozen=True)
class _ConsolePeer:
    """The serial line as terminal.Peer wants it."""

    sock: socket.socket

    def fileno(self) -> int:
        return self.sock.fileno()

    def recv(self, size: int) -> bytes:
        return self.sock.recv(size)

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(data)

    def shutdown_write(self) -> None:
        """A serial line has no end."""


def _over_ssh(guest: Guest) -> int:
    with guest.ssh() as client:
        transport = client.get_transport()
        assert transport is not None
        channel = transport.open_session()
        if sys.stdin.isatty():
            size = os.get_terminal_size(sys.stdin.fileno())
            channel.get_pty(os.environ.get("TERM", "linux"), size.columns, size.lines)
        channel.set_combine_stderr(True)
        channel.invoke_shell()
        left = interact(channel, channel.resize_pty)
        click.echo("" if left else "The session has ended.", err=True)
        return 0 if left else channel.recv_exit_status()


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the guest's logs, which stays only when something went wrong with the guest."""
    signal.signal(signal.SIGTERM, _terminated)
    folder = Path(tempfile.mkdtemp(prefix="samepage-shell-"))
    try:
        yield folder
    except SamepageError:
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    else:
        shutil.rmtree(folder)


def _terminated(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)
