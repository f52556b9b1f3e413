# SPDX-License-Identifier: MIT
"""What can go wrong with a guest. All of these are faults of what runs in it (exit code 1), unless said otherwise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import CheckFailed, SamepageError

if TYPE_CHECKING:
    from harness.guest.splats import Splat

SHOWN_OUTPUT = 4000
"""Characters of a program's output that an error message carries."""


class GuestStartFailed(SamepageError):
    """QEMU could not be started, or its kernel never came up to our init (exit code 2)."""


class SnapshotFailed(SamepageError):
    """A guest could not be saved, or not be restored from what was saved (exit code 2)."""


class GuestDied(CheckFailed):
    """QEMU ended although nobody asked it to, or the guest powered itself off."""


class GuestHung(CheckFailed):
    """The guest answers nobody. It was dumped into its folder and ended."""


class ChannelClosed(CheckFailed):
    """The command channel is gone, and with it every program that was running over it."""


class ProtocolError(CheckFailed):
    """What came over the command channel is not a frame of the protocol."""


class CommandFailed(CheckFailed):
    """A command ended with another exit code than 0, or could not be started."""

    def __init__(self, command: str, outcome: str, stdout: bytes = b"", stderr: bytes = b"") -> None:
        lines = [outcome]
        for name, output in (("stdout", stdout), ("stderr", stderr)):
            text = output.decode(errors="replace").strip()
            if text:
                lines.append(f"{name}: {text[-SHOWN_OUTPUT:]}")
        super().__init__("\n".join(lines), where=command)
        self.stdout = stdout
        self.stderr = stderr


class CommandTimeout(CommandFailed):
    """A command took longer than it was given, and was killed."""


class GuestFileError(CheckFailed):
    """A file of the guest could not be read or written; `errno` is the guest's."""

    def __init__(self, path: str, errno: int, what: str = "") -> None:
        super().__init__(what or os.strerror(errno), where=path)
        self.errno = errno


class KernelSplat(CheckFailed):
    """The kernel complained while a command ran: BUG, WARNING, Oops, lockdep, KASAN, stall, ..."""

    def __init__(self, command: str, splats: Sequence[Splat], hint: str | None = None) -> None:
        text = "\n".join(line for splat in splats for line in splat.lines)
        names = ", ".join(dict.fromkeys(splat.kind for splat in splats))
        super().__init__(f"the kernel reported {names}:\n{text}", where=command, hint=hint)
        self.splats = tuple(splats)


class KernelLogUnreadable(CheckFailed):
    """Nobody can tell what the kernel reported, so the command that ran cannot count as passed."""


class SplatMissing(CheckFailed):
    """A complaint of the kernel's that a test provokes did not come."""


class TaintUnexplained(CheckFailed):
    """The kernel is marked as damaged although the log gate saw nothing: the second net."""
