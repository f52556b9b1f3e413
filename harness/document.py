# SPDX-License-Identifier: MIT
"""Files that people write or carry about, TOML and JSON: read whole, or refused with the file and the place in it.

What a parser raises for nonsense is not all of its own kind: text that is no UTF-8, a number of thousands of digits and
brackets within brackets without end come out as ValueError and RecursionError.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from harness.errors import SamepageError

Text = Annotated[str, msgspec.Meta(pattern=r"^[^\0]+\Z")]
"""Something to say to another program, or a path: not empty, and without the byte that ends a string there."""

_T = TypeVar("_T")


def read_bytes(path: Path, hint: str | None = None) -> bytes:
    """Return what a file holds."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SamepageError(f"cannot be read: {error.strerror}", where=path, hint=hint) from error


def toml_table(path: Path, hint: str | None = None) -> dict[str, Any]:
    """Read a TOML file, whatever it says."""
    try:
        return tomllib.loads(read_bytes(path, hint).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SamepageError(f"is not valid TOML: {error}", where=path, hint=hint) from error


def read_toml(path: Path, schema: type[_T], hint: str | None = None) -> _T:
    """Read a TOML file that must fit `schema`; the error names the file and the place in it."""
    table = toml_table(path, hint)
    try:
        return msgspec.convert(table, schema)
    except msgspec.ValidationError as error:
        raise SamepageError(str(error), where=path, hint=hint) from error


def decode_json(data: bytes, schema: type[_T], *, what: str, where: object, hint: str | None = None) -> _T:
    """Read JSON that must fit `schema`; the error says that `where` is not `what`."""
    try:
        return msgspec.json.decode(data, type=schema)
    except (ValueError, RecursionError) as error:
        raise SamepageError(f"is no {what}: {error}", where=where, hint=hint) from error


def write_json(document: object, path: Path) -> Path:
    """Write a document for people to read, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    partial.replace(path)
    return path


def check_schema(found: int, read: int, where: Path) -> None:
    """Refuse a document whose `schema` is another one than what the harness reads."""
    if found != read:
        raise SamepageError(f"has schema {found}; this harness reads {read}", where=where)


def is_text(name: str) -> bool:
    """Say whether a name, of a file for one, can be written down: those that Linux allows need not be UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
