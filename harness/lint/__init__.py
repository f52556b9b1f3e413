# SPDX-License-Identifier: MIT
"""Checks of C sources: compiler warnings, sparse, checkpatch. Each returns what it found, one finding a line."""
