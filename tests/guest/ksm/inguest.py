# SPDX-License-Identifier: MIT
"""Programs of harness/ksm/inguest, run in a guest."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from harness.guest.guest import Guest


class InGuest:
    """One of them, run as root or as somebody else."""

    def __init__(self, guest: Guest, program: ModuleType) -> None:
        assert program.__file__
        source = Path(program.__file__)
        self.guest = guest
        self.path = f"/run/{source.name}"
        guest.put(source.read_bytes(), self.path)

    def __call__(self, *words: object, uid: int = 0, refused: int = 0) -> str:
        """Return what it prints; `refused` is the errno with which it must fail."""
        user = ["setpriv", f"--reuid={uid}", "--clear-groups"] if uid else []
        answer = self.guest.run([*user, "python3", self.path, *map(str, words)], check=False)
        told = answer.stderr.decode().strip()
        assert (answer.exit_code, told) == (0, "") if not refused else told.endswith(f"({refused})"), told
        return answer.text
