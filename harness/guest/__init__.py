# SPDX-License-Identifier: MIT
"""A Linux guest under QEMU: booted, spoken to, watched, ended. Knows nothing of what is tested in it."""
