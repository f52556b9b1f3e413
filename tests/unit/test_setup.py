# SPDX-License-Identifier: MIT
"""harness/setup.sh on hosts that lack something: stubs stand in for Python, pip, apt and the rest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.config import PACKAGE_PARENT

REAL = ("sh", "dirname", "cat", "cmp", "cp", "mkdir", "rm", "flock", "chmod")
PYTHON = """\
case "$*" in
*"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/pip; echo venv >> log;;
*"--require-hashes"*) echo install >> log; exit ${PIP_STATUS:-0};;
*"--editable"*) echo editable >> log;;
esac
"""


class Host:
    """A checkout, and a PATH on which only what is named can be found."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.bin = folder / "bin"
        (self.checkout / "harness").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(PACKAGE_PARENT / "harness/setup.sh", self.checkout / "harness/setup.sh")
        (self.checkout / "harness/requirements.lock").write_text("click==1\n")
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        for name in REAL:
            real = shutil.which(name)
            assert real is not None
            (self.bin / name).symlink_to(real)
        for name in ("bwrap", "dpkg-deb", "tar"):
            self.stub(name, "")
        self.stub("python3", PYTHON)
        self.stub("id", "echo 1000")
        self.stub("apt-get", 'echo "apt-get $*" >> log')

    def stub(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def setup(self, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "harness/setup.sh"],
            cwd=self.checkout,
            env={"PATH": str(self.bin), **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def log(self) -> list[str]:
        path = self.checkout / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_sets_up_once(host: Host) -> None:
    assert host.setup().returncode == 0
    assert host.log() == ["venv", "install", "editable"]
    assert host.setup().returncode == 0
    assert host.log() == []


def test_only_what_changed_is_done_again(host: Host) -> None:
    host.setup()
    host.log()
    (host.checkout / "pyproject.toml").write_text("[project]\n# changed\n")
    assert host.setup().returncode == 0
    assert host.log() == ["editable"]
    (host.checkout / "harness/requirements.lock").write_text("click==2\n")
    assert host.setup().returncode == 0
    assert host.log() == ["venv", "install", "editable"]


def test_a_failed_installation_does_not_count_as_done(host: Host) -> None:
    result = host.setup(PIP_STATUS="1")
    assert result.returncode == 2
    assert "Set-up failed" in result.stderr
    assert host.log() == ["venv", "install"]
    assert host.setup().returncode == 0
    assert host.log() == ["venv", "install", "editable"]


def test_a_user_is_told_the_one_line(host: Host) -> None:
    (host.bin / "bwrap").unlink()
    host.stub("python3", "exit 1")
    result = host.setup()
    assert result.returncode == 2
    assert "apt-get update && apt-get install --no-install-recommends bubblewrap python3-venv\n" in result.stderr
    assert host.log() == []


def test_root_gets_the_packages(host: Host) -> None:
    (host.bin / "bwrap").unlink()
    host.stub("id", "echo 0")
    assert host.setup().returncode == 0
    update, install, *rest = host.log()
    assert update.startswith("apt-get update")
    assert install.endswith(" bubblewrap")
    assert rest == ["venv", "install", "editable"]
