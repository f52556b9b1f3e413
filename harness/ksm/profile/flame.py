# SPDX-License-Identifier: MIT
"""The flame graph: one HTML file that needs nothing else. A box is a function, as wide as its instructions are many."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from harness.ksm.profile.fold import Stack

WIDTH, ROW = 1400.0, 18
LEAST_WIDTH = 0.3
"""Of a box that is drawn, of WIDTH."""
_CHARACTER = 6.6
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Box:
    """One function below one chain of callers."""

    name: str
    instructions: int
    share: float
    """Per cent of all."""
    x: float
    width: float
    row: int
    """0 is the outermost."""
    hue: int

    @property
    def label(self) -> str:
        """As much of the name as fits."""
        room = int((self.width - 6) / _CHARACTER)
        if room < 3:
            return ""
        return self.name if len(self.name) <= room else self.name[: room - 1] + "…"


@dataclass
class _Node:
    instructions: int = 0
    children: dict[str, _Node] = field(default_factory=dict)


def boxes(stacks: Mapping[Stack, int]) -> list[Box]:
    """Lay the boxes out; callees stand beside each other by name, above what called them."""
    root = _Node()
    for stack, instructions in stacks.items():
        root.instructions += instructions
        node = root
        for name in stack:
            node = node.children.setdefault(name, _Node())
            node.instructions += instructions
    found: list[Box] = []
    if root.instructions:
        _lay_out("all", root, 0.0, 0, root.instructions, found)
    return found


def _lay_out(name: str, node: _Node, x: float, row: int, whole: int, found: list[Box]) -> None:
    width = WIDTH * node.instructions / whole
    if width < LEAST_WIDTH:
        return
    hue = zlib.crc32(name.encode()) % 55
    found.append(Box(name, node.instructions, 100 * node.instructions / whole, round(x, 2), round(width, 2), row, hue))
    for callee, child in sorted(node.children.items()):
        _lay_out(callee, child, x, row + 1, whole, found)
        x += WIDTH * child.instructions / whole


def flame_html(stacks: Mapping[Stack, int], title: str, note: str) -> str:
    """Return the page."""
    laid = boxes(stacks)
    height = (max((box.row for box in laid), default=0) + 1) * ROW
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("flame.html")
    return template.render(boxes=laid, title=title, note=note, width=int(WIDTH), height=height, row=ROW)
