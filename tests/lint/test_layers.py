# SPDX-License-Identifier: MIT
"""Data flows one way (docs/ARCHITECTURE.md): no file of the harness imports from a later layer than its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from harness.config import PACKAGE_PARENT

HARNESS = PACKAGE_PARENT / "harness"
LAYERS = (
    {"errors", "document", "config", "progress", "store"},
    {"packages"},
    {"sandbox"},
    {"toolroot"},
    {"kernel"},
    {"image", "module"},
    {"lint"},
    {"guest"},
    {"pytest_plugin"},
    {"matrix"},
    {"ksm"},
    {"cli"},
    {"__main__"},
)
LAYER_OF = {name: number for number, layer in enumerate(LAYERS) for name in layer}


def imported_parts(path: Path) -> Iterator[str]:
    """Yield the part of the harness (`packages`, `ksm` ...) that each import of a file names."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "harness":
            names = [f"harness.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("harness."))


def part_of(path: Path) -> str:
    return path.relative_to(HARNESS).parts[0].removesuffix(".py")


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in HARNESS.rglob("*.py")} - {"__init__"} == set(LAYER_OF)


def test_no_import_from_a_later_layer() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE_PARENT)} imports harness.{part}"
        for path in sorted(HARNESS.rglob("*.py"))
        if path.parent != HARNESS or path.name != "__init__.py"
        for part in imported_parts(path)
        if LAYER_OF.get(part, 0) > LAYER_OF[part_of(path)]
    ]
    assert not wrong, "\n".join(wrong)
