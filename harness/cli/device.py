# SPDX-License-Identifier: MIT
"""Errors of the module's device become a person's."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.errors import SamepageError

ONLY_ROOT = dict.fromkeys((errno.EPERM, errno.EACCES), "Only root may.")
"""Hints of what is for administrators."""
_UNLOADED = "The module is not loaded: `insmod samepage.ko`."


@contextmanager
def asking(what: str, device: str, hints: Mapping[int, str], *, where: str | None = None) -> Iterator[None]:
    """Turn OSError into SamepageError: `what` went wrong with the `device`, or `where`; `hints` are by errno."""
    try:
        yield
    except OSError as error:
        hint = hints.get(error.errno or 0) if Path(device).exists() else _UNLOADED
        raise SamepageError(f"{what}: {error.strerror}", where=where or device, hint=hint) from error
