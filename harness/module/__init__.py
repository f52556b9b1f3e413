# SPDX-License-Identifier: MIT
"""Building any out-of-tree kernel module for a pinned kernel."""
