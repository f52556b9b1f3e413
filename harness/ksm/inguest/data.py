# SPDX-License-Identifier: MIT
"""Data that a seed determines, for programs in the guest and for the host that checks them. Standard library only."""

from __future__ import annotations

import hashlib


def noise(size: int, *label: object) -> bytes:
    """Return `size` bytes that look random and follow from the label."""
    return hashlib.shake_128("/".join(map(str, label)).encode()).digest(size)


def digest(parts: list[bytes]) -> str:
    """Return one digest of all parts and their borders."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()
