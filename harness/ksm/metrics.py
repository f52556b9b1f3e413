# SPDX-License-Identifier: MIT
"""The merging counters as OpenMetrics text, for Prometheus' textfile collector and the like.

Written by hand: the format (https://prometheus.io/docs/specs/om/open_metrics_spec/) is a line a number, and a client
library would bring a registry and an HTTP server along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.errors import SamepageError
from harness.ksm.result import Result

FOLDERS = ("ksm", "samepage")
_EVER_GROWING = frozenset(
    {"full_scans", "pages_scanned", "pages_skipped", "merges", "merges_failed", "unmerged", "stale_candidates"}
)


def of_machine(base: Path = Path("/sys/kernel/mm")) -> dict[str, dict[str, int]]:
    """Read this machine's counters: `folder -> file -> number`, of what may be read and holds one number."""
    found: dict[str, dict[str, int]] = {}
    for folder in FOLDERS:
        for path in sorted((base / folder).glob("*")):
            try:
                text = path.read_text("ascii")
            except (OSError, UnicodeDecodeError):
                continue  # for root alone, or gone
            if re.fullmatch(r"-?\d+\s*", text):
                found.setdefault(folder, {})[path.name] = int(text)
    if not found:
        raise SamepageError("no counters to read: this kernel has no KSM, or they are for root alone", where=base)
    return found


def of_result(result: Result) -> dict[str, dict[str, int]]:
    """Return the counters of a run, as of its last stage."""
    return {"ksm": result.counters, "samepage": result.samepage}


def openmetrics(counters: Mapping[str, Mapping[str, int]], labels: Mapping[str, str]) -> str:
    """Return the counters as OpenMetrics text; each has all the labels."""
    marked = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    braces = f"{{{marked}}}" if marked else ""
    lines = []
    for folder, values in counters.items():
        for file, value in values.items():
            grows = file in _EVER_GROWING
            name = f"{folder}_{re.sub('[^a-zA-Z0-9_]', '_', file.removeprefix(folder + '_'))}"
            lines.append(f"# TYPE {name} {'counter' if grows else 'gauge'}")
            lines.append(f"# HELP {name} /sys/kernel/mm/{folder}/{_escaped(file)}")
            lines.append(f"{name}{'_total' if grows else ''}{braces} {value}")
    return "\n".join([*lines, "# EOF", ""])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
