# SPDX-License-Identifier: MIT
"""The samepage bench: locked images, module builds, guests, and measurements of page merging."""

from __future__ import annotations

__version__ = "0.1.0"
