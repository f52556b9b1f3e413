# SPDX-License-Identifier: MIT
"""`samepage shell`, as a person and as a script use it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import psutil
import pytest

from harness.config import PACKAGE_PARENT

COMMAND = ["-m", "harness", "shell", "--no-module", "--memory", "512"]


@contextmanager
def nothing_is_left() -> Iterator[None]:
    """Neither process nor folder of this test's."""
    ours = psutil.Process()
    before = set(Path(tempfile.gettempdir()).glob("samepage-shell-*"))
    yield
    deadline = time.monotonic() + 10
    while [child for child in ours.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert set(Path(tempfile.gettempdir()).glob("samepage-shell-*")) <= before


@contextmanager
def started(*options: str) -> Iterator[pexpect.spawn[str]]:
    arguments = [*COMMAND, *options]
    folder = str(PACKAGE_PARENT)
    shell: pexpect.spawn[str] = pexpect.spawn(
        sys.executable, arguments, cwd=folder, dimensions=(33, 101), timeout=60, encoding="utf-8"
    )
    try:
        shell.expect("Ctrl-] leaves")
        shell.expect("# ")
        yield shell
        shell.expect(pexpect.EOF)
    finally:
        shell.close(force=True)


@pytest.mark.parametrize("way", ["--console", "--ssh"])
def test_a_person(way: str) -> None:
    with nothing_is_left():
        with started(way) as shell:
            shell.sendline("stty size; echo $((6 * 7))")
            shell.expect("33 101")
            shell.expect("42")
            shell.setwinsize(40, 120)
            deadline = time.monotonic() + 20
            while True:  # the size takes another way than the keys
                shell.sendline("stty size")
                if shell.expect(["40 120", "33 101"]) == 0:
                    break
                assert time.monotonic() < deadline
            # Ctrl-C is for the program in the guest.
            shell.send("sleep 1000\r")
            time.sleep(1)
            shell.send("\x03")
            shell.sendline("echo status=$?")
            shell.expect("status=130")
            shell.send("\x1d")
        assert (shell.exitstatus, shell.signalstatus) == (0, None)


def test_a_console_ends_with_its_guest() -> None:
    with nothing_is_left():
        with started("--console") as shell:
            shell.sendline("poweroff")
            shell.expect("The guest has ended")
        assert shell.exitstatus == 0


def test_a_script() -> None:
    with nothing_is_left():
        result = subprocess.run(
            [sys.executable, *COMMAND, "--ssh"],
            input=b"echo out; cat /proc/version; exit 7\n",
            capture_output=True,
            check=False,
            cwd=PACKAGE_PARENT,
            timeout=200,
        )
    assert result.returncode == 7, result.stderr
    assert result.stdout.startswith(b"out\nLinux version 6.")


def test_a_terminated_shell() -> None:
    with nothing_is_left():
        with started("--console") as shell:
            shell.kill(15)
        assert shell.exitstatus == 143


def test_the_module_is_loaded() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "harness", "shell", "--ssh"],
        input=b"cat /sys/module/samepage/refcnt\n",
        capture_output=True,
        check=False,
        cwd=PACKAGE_PARENT,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().isdigit()
    assert b"samepage loaded from" in result.stderr


def test_a_console_without_a_terminal() -> None:
    result = subprocess.run(
        [sys.executable, *COMMAND], stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd=PACKAGE_PARENT
    )
    assert result.returncode == 2
    assert b"needs a terminal" in result.stderr
    assert b"Traceback" not in result.stderr
