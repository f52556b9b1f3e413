# SPDX-License-Identifier: MIT
"""Guest images: kernel, initramfs, root and modules, the same bit for bit wherever they are built."""

from __future__ import annotations

from harness.image.build import GuestNeeds, Image, ensure_image

__all__ = ["GuestNeeds", "Image", "ensure_image"]
