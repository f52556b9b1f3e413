# SPDX-License-Identifier: MIT
"""The kernel's own tests of merging, unmodified, as judge: run with in-tree KSM and with the module, side by side."""
