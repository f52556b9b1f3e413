# SPDX-License-Identifier: MIT
"""Debian packages, pinned by sha256: recipes, lock files, resolution by apt, downloads, unpacking."""
