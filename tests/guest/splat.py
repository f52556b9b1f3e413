# SPDX-License-Identifier: MIT
"""The module that does what no module should, when it is told to."""

from pathlib import Path

SPLAT = Path(__file__).parent / "modules/splat"
"""Its sources."""
PROVOKE = "/sys/kernel/debug/splat/provoke"
"""Takes the name of a fault."""
