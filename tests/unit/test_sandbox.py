# SPDX-License-Identifier: MIT
"""The sandbox, with the host's own programs as the tool root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.config import PACKAGE_PARENT
from harness.errors import SamepageError
from harness.sandbox import Sandbox

HOST = Sandbox(Path("/"))


def test_only_what_is_named_is_seen_and_only_rw_can_be_written(tmp_path: Path) -> None:
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
    script = "echo hi > /rw/file; echo hi > /ro/file; echo hi > /usr/file; ls /; pwd"
    mounts = {"ro": {tmp_path / "ro": "/ro"}, "rw": {tmp_path / "rw": "/rw"}}
    result = HOST.run(["sh", "-c", script], **mounts, cwd="/rw")  # type: ignore[arg-type]
    assert (tmp_path / "rw/file").read_text() == "hi\n"
    assert list((tmp_path / "ro").iterdir()) == []
    seen = result.stdout.decode().split()
    assert "home" not in seen
    assert seen[-1] == "/rw"


def test_the_environment_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-O3")
    assert b"CFLAGS" not in HOST.run(["env"]).stdout
    assert b"WANTED=yes" in HOST.run(["env"], env={"WANTED": "yes"}).stdout


def test_failure_shows_what_was_said_and_input_is_passed() -> None:
    assert HOST.run(["cat"], stdin=b"through").stdout == b"through"
    with pytest.raises(SamepageError, match=r"exit code 3\noops"):
        HOST.run(["sh", "-c", "echo oops >&2; exit 3"])
    assert HOST.run(["sh", "-c", "exit 3"], check=False).returncode == 3


def test_time_limit() -> None:
    with pytest.raises(SamepageError, match="did not end within 0 s"):
        HOST.run(["sleep", "100"], timeout=0.2)


def test_dies_with_the_harness() -> None:
    marker = f"8{os.getpid()}"
    script = (
        f"from harness.sandbox import Sandbox; import pathlib; Sandbox(pathlib.Path('/')).run(['sleep', '{marker}'])"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=PACKAGE_PARENT)
    try:
        wait_until(lambda: bool(sleepers(marker)))
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        wait_until(lambda: not sleepers(marker))
    finally:
        parent.kill()


def sleepers(marker: str) -> list[int]:
    return [process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", marker]]


def wait_until(condition: object, seconds: float = 10) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)
