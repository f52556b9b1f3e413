# SPDX-License-Identifier: MIT
"""Running programs of a tool root under bubblewrap: the root as `/`, and of the host only what is named."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SamepageError

Mounts = Mapping[Path, str]
"""Folders or files of the host, and the absolute path that each has inside."""

_ENVIRONMENT = {"PATH": "/usr/bin:/usr/sbin", "HOME": "/tmp", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
_PROBE_TIMEOUT = 30
_MERGED = ("bin", "lib", "lib64", "sbin")


@dataclass(frozen=True)
class Sandbox:
    """A tool root in which programs see their own suite's libraries, whatever the host is.

    Everything started in it dies with the process that started it. Nothing of the host can be written to except `rw`.
    """

    root: Path

    def command(
        self,
        argv: Sequence[str],
        *,
        ro: Mounts | None = None,
        rw: Mounts | None = None,
        devices: Sequence[str] = (),
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        network: bool = False,
    ) -> list[str]:
        """Return the command line that runs `argv` in the sandbox.

        `ro` and `rw` map host paths to paths inside; `devices` names device nodes of the host (/dev/kvm).
        The environment inside is a fixed one plus `env`. Without `network` there is only an own loopback.
        """
        line = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
        if network:
            line.append("--share-net")
        line += ["--ro-bind", f"{self.root}/usr", "/usr"]
        for name in _MERGED:
            line += ["--symlink", f"usr/{name}", f"/{name}"]
        if (self.root / "etc").is_dir():
            line += ["--ro-bind", f"{self.root}/etc", "/etc"]
        line += [*_proc_mount(), "--dev", "/dev", "--tmpfs", "/tmp"]
        for name in devices:
            line += ["--dev-bind", name, name]
        for host, inside in (ro or {}).items():
            line += ["--ro-bind", str(host), inside]
        for host, inside in (rw or {}).items():
            line += ["--bind", str(host), inside]
        for name, value in {**_ENVIRONMENT, **(env or {})}.items():
            line += ["--setenv", name, value]
        return [*line, "--chdir", cwd, "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        ro: Mounts | None = None,
        rw: Mounts | None = None,
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: float = 600,
        check: bool = True,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `argv` to its end (at most `timeout` seconds) and return its exit code and output.

        With `check`, an exit code other than 0 raises SamepageError with the end of what it said.
        """
        line = self.command(argv, ro=ro, rw=rw, cwd=cwd, env=env)
        try:
            result = subprocess.run(
                line,
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SamepageError(f"did not end within {timeout:.0f} s", where=" ".join(argv[:4])) from error
        if check and result.returncode != 0:
            said = (result.stdout + result.stderr).decode(errors="replace").strip().splitlines()
            raise SamepageError(
                "\n".join([f"failed with exit code {result.returncode}", *said[-30:]]),
                where=" ".join(argv[:4]),
                hint=_namespace_hint(said),
            )
        return result


@functools.cache
def _proc_mount() -> list[str]:
    """Inside of some containers /proc is partly covered, and the kernel then allows no fresh one: show theirs."""
    fresh = ["--proc", "/proc"]
    attempt = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", *fresh, "true"]
    try:
        works = subprocess.run(attempt, capture_output=True, timeout=_PROBE_TIMEOUT, check=False).returncode == 0
    except FileNotFoundError as error:
        raise SamepageError("bubblewrap is missing", where="bwrap", hint="apt-get install bubblewrap") from error
    return fresh if works else ["--ro-bind", "/proc", "/proc"]


def _namespace_hint(said: list[str]) -> str | None:
    if os.geteuid() != 0 and any(line.startswith("bwrap:") and "namespace" in line for line in said):
        return (
            "This kernel denies user namespaces to users: sysctl -w kernel.unprivileged_userns_clone=1, or run as root."
        )
    return None
