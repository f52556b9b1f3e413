# SPDX-License-Identifier: MIT
"""Attacks on merging by unprivileged processes in a guest, and how far each of them comes (docs/attacks.md)."""
