# SPDX-License-Identifier: MIT
"""Asking the host's apt for its mirror, and refusing indexes that Debian has not signed."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from harness.config import Config, load_config
from harness.errors import SamepageError
from harness.packages.apt import AptRoot
from harness.packages.mirror import host_proxies, mirror_url


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(tmp_path, {})


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("listing", "url"),
    [
        (
            "http://one.example/debian-security/ Debian-Security\nhttp://two.example/debian/ Debian\n",
            "http://two.example/debian",
        ),
        ("https://three.example/debian/ \n", "https://three.example/debian"),  # before the first apt-get update
        ("cdrom://Debian/debian/ Debian\nhttps://four.example/mirror Debian\n", "https://four.example/mirror"),
        ("http://five.example/ubuntu/ Ubuntu\n", None),
        ("", None),
    ],
)
def test_the_hosts_mirror(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: str, url: str | None
) -> None:
    fake(tmp_path, monkeypatch, "apt-get", f"cat <<END\n{listing}END\n")
    assert mirror_url(config) == url


def test_a_configured_mirror_goes_first(config: Config) -> None:
    assert (
        mirror_url(dataclasses.replace(config, mirror="https://mine.example/debian/")) == "https://mine.example/debian"
    )


def test_a_host_without_apt(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mirror_url(config) is None
    assert host_proxies() == {}


def test_the_hosts_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(
        tmp_path,
        monkeypatch,
        "apt-config",
        """case $3 in *::http::*) echo "PROXY='http://proxy.example:3142'";; esac\n""",
    )
    assert host_proxies() == {"http": "http://proxy.example:3142"}


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="only on Debian")
def test_an_unsigned_archive_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "mirror/dists/trixie/main/binary-amd64"
    index.mkdir(parents=True)
    (index / "Packages").write_text("")
    (tmp_path / "mirror/dists/trixie/Release").write_text("Suite: stable\nCodename: trixie\n")
    apt = AptRoot(tmp_path / "root", f"file://{tmp_path}/mirror", ["trixie"])
    with pytest.raises(SamepageError, match="not signed"):
        apt.update()
