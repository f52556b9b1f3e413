# SPDX-License-Identifier: MIT
"""File system images: erofs, read-only, uncompressed (decompression would cost the guest more than the reading)."""

from __future__ import annotations

from pathlib import Path

from harness.sandbox import Sandbox

_UUID = "73616d65-7061-6765-0000-000000000000"


def make_erofs(tools: Sandbox, tree: Path, out: Path) -> None:
    """Write the folder `tree` into the image `out`: all owned by root, at time 0, without extended attributes."""
    line = [
        "mkfs.erofs",
        "--quiet",
        "--all-root",
        "-T0",
        "--all-time",
        "-x-1",
        f"-U{_UUID}",
        f"/out/{out.name}",
        "/tree",
    ]
    tools.run(line, ro={tree: "/tree"}, rw={out.parent: "/out"})
