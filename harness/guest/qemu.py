# SPDX-License-Identifier: MIT
"""Which QEMU runs the guests: the locked one in its tool root, or one of the host's that the configuration names."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config import Config
from harness.errors import SamepageError
from harness.sandbox import Sandbox
from harness.store import file_sha256
from harness.toolroot import tool_root

PROGRAM = "qemu-system-x86_64"
KVM = "/dev/kvm"


@dataclass(frozen=True)
class Qemu:
    """A QEMU, and how it is started so that it dies with the harness."""

    root: Path | None
    """Its tool root; None for one of the host's."""
    program: Path
    """The host's path of the executable."""

    def command(self, arguments: Sequence[str], files: Sequence[Path] = (), writable: Sequence[Path] = ()) -> list[str]:
        """Return the command line that runs QEMU with `arguments`.

        `files`, which QEMU reads, and folders that are `writable` keep their paths inside the sandbox.
        """
        devices = [KVM] if Path(KVM).exists() else []
        if self.root is not None:
            return Sandbox(self.root).command(
                [PROGRAM, *arguments],
                ro={path: str(path) for path in files},
                rw={path: str(path) for path in writable},
                devices=devices,
            )
        line = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/", "--dev", "/dev"]
        for name in devices:
            line += ["--dev-bind", name, name]
        for path in writable:
            line += ["--bind", str(path), str(path)]
        return [*line, "--", str(self.program), *arguments]

    @property
    def version(self) -> str:
        """What `--version` says: 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)."""
        return _version(self)

    @property
    def sha256(self) -> str:
        """Of the executable."""
        return _sha256(self.program)


def find_qemu(config: Config) -> Qemu:
    """Return the configured QEMU; the locked one, downloaded if need be, when none is configured."""
    if config.qemu is None:
        root = tool_root(config, "tools")
        return Qemu(root, root / "usr/bin" / PROGRAM)
    found = shutil.which(config.qemu)
    if found is None:
        raise SamepageError(
            "is no program", where=config.qemu, hint="`qemu` in [tool.samepage] or SAMEPAGE_QEMU names it."
        )
    return Qemu(None, Path(found).absolute())


@functools.cache
def _version(qemu: Qemu) -> str:
    try:
        result = subprocess.run(qemu.command(["--version"]), capture_output=True, timeout=30, check=False, text=True)
    except FileNotFoundError as error:
        raise SamepageError("bubblewrap is missing", where="bwrap", hint="apt-get install bubblewrap") from error
    words = result.stdout.partition("\n")[0].partition(" version ")
    if result.returncode != 0 or not words[2]:
        raise SamepageError(f"does not run: {(result.stderr or result.stdout).strip()}", where=qemu.program)
    return words[2]


@functools.cache
def _sha256(program: Path) -> str:
    return file_sha256(program)
