# SPDX-License-Identifier: MIT
"""Files of the guest, read and written through the command channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.guest.errors import CommandFailed, GuestFileError
from harness.guest.protocol import decode_files, encode_paths
from harness.guest.stream import Stream

MAX_BYTES = 1 << 30
"""The largest file that is read whole."""


@dataclass(frozen=True)
class GuestFiles:
    """File operations; `start(argv)` has the agent begin one. Times are in seconds."""

    start: Callable[[Sequence[str]], Stream]

    def put(self, data: bytes, path: str, mode: int, timeout: float) -> None:
        """Make the file `path` with these bytes and this mode. Raises GuestFileError."""
        self._carry_out(["put", path, f"{mode:o}", str(len(data))], path, data, timeout)

    def get(self, path: str, offset: int, size: int | None, timeout: float) -> bytes:
        """Return `size` bytes (fewer at the end of the file) from `offset`. Raises GuestFileError."""
        return self._carry_out(["get", path, str(offset), str(-1 if size is None else size)], path, b"", timeout)

    def write(self, path: str, data: bytes, timeout: float) -> None:
        """Give an existing file (sysfs, proc) these bytes in one write. Raises GuestFileError."""
        self._carry_out(["write", path], path, data, timeout)

    def read_many(self, paths: Iterable[str], timeout: float) -> dict[str, bytes | None]:
        """Return the content of many small files by path; None for one that cannot be read.

        A path that ends in `/` stands for every file in that folder.
        """
        answer = self._carry_out(["read"], "read", encode_paths(paths), timeout)
        return {path: None if isinstance(data, int) else data for path, data in decode_files(answer).items()}

    def _carry_out(self, argv: Sequence[str], path: str, stdin: bytes, timeout: float) -> bytes:
        stream = self.start(argv)
        output = stream.communicate(stdin, timeout, MAX_BYTES)
        code = stream.exit_code()
        if code < 0:
            raise CommandFailed(stream.command, f"was ended by signal {-code}", stderr=stream.stderr)
        if code > 0:
            raise GuestFileError(path, code, stream.stderr.decode(errors="replace"))
        return output
