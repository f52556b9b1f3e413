# SPDX-License-Identifier: MIT
"""The kernel's style checker, as that kernel's source package has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config import Config
from harness.errors import SamepageError
from harness.packages.source import kernel_source
from harness.sandbox import Sandbox
from harness.toolroot import tool_root

_FILES = ("scripts/checkpatch.pl", "scripts/spelling.txt", "scripts/const_structs.checkpatch")
_LINE_LENGTH = 120  # as in our Python


def checkpatch_findings(config: Config, folder: Path, files: Sequence[Path], kernel: str) -> list[str]:
    """Return what checkpatch finds in `files`, which are below `folder`.

    A `.checkpatch.conf` in `folder` may hold more options, such as --strict, or --ignore with a reason beside it.
    """
    scripts = kernel_source(config, kernel, _FILES)
    names = [file.relative_to(folder).as_posix() for file in files]
    line = [
        "perl",
        "/linux/scripts/checkpatch.pl",
        "--no-tree",
        "--terse",
        "--no-summary",
        "--show-types",
        f"--max-line-length={_LINE_LENGTH}",
        "--file",
        *names,
    ]
    result = Sandbox(tool_root(config, f"kernel-{kernel}")).run(
        line, ro={scripts: "/linux", folder: "/src"}, cwd="/src", check=False
    )
    said = result.stdout.decode(errors="replace").splitlines()
    # Exit code 1 means findings; anything else, or 1 without any, means that it did not work.
    if result.returncode not in (0, 1) or (result.returncode == 1) != bool(said):
        raise SamepageError(
            f"exit code {result.returncode}: {result.stderr.decode(errors='replace').strip()}", where="checkpatch"
        )
    return said
