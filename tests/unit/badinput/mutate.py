# SPDX-License-Identifier: MIT
"""Ways to spoil a file: what a document says, and the bytes that say it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from hypothesis import strategies as st

JUNK: tuple[object, ...] = (
    *("", " ", "x", "\0", "a\0b", "\n", "../../x", "/", "~nobody-here/x", "nan", "1", "ä\u202e", "%s{0}[b]", "y" * 300),
    *(True, 0, 1, -1, 2**31, 2**63, 2**64, 10**30, 10**400, 10**5000),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *([], [[]], {}, {"x": {}}, [1, "x"], [{}], ["x"]),
)
"""Values that hardly any key takes; some of them only a careless reader does."""

Key = str | int
Place = tuple[Key, ...]


class Branch(Protocol):
    """A table or a list."""

    def __getitem__(self, key: Key) -> object: ...
    def __setitem__(self, key: Key, value: object) -> None: ...
    def __delitem__(self, key: Key) -> None: ...


def places(value: object, at: Place = ()) -> Iterator[Place]:
    """Yield the place of everything in a document but its root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


def _delete(parent: Branch, key: Key, _: object) -> None:
    del parent[key]


def _replace(parent: Branch, key: Key, junk: object) -> None:
    parent[key] = junk


def _rename(parent: Branch, key: Key, junk: object) -> None:
    if isinstance(parent, dict):
        parent[junk if isinstance(junk, str) else "other"] = parent.pop(key)


def _add(parent: Branch, _: Key, junk: object) -> None:
    if isinstance(parent, dict):
        parent["unknown"] = junk


def _repeat(parent: Branch, key: Key, _: object) -> None:
    items = cast(object, parent)
    if isinstance(items, list):
        items.append(parent[key])


WAYS: tuple[Callable[[Branch, Key, object], None], ...] = (
    _delete,
    _replace,
    _replace,
    _replace,
    _rename,
    _add,
    _repeat,
)


@st.composite
def documents(draw: st.DrawFn, sound: dict[str, Any]) -> dict[str, Any]:
    """Documents that differ from a sound one in one or two places."""
    spoilt = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 2))):
        if not (found := list(places(spoilt))):
            break
        *above, key = draw(st.sampled_from(found))
        parent = cast(Branch, spoilt)
        for step in above:
            parent = cast(Branch, parent[step])
        draw(st.sampled_from(WAYS))(parent, key, copy.deepcopy(draw(st.sampled_from(JUNK))))
    return spoilt


def _cut(data: bytes, at: int, _: bytes) -> bytes:
    return data[:at]


def _insert(data: bytes, at: int, junk: bytes) -> bytes:
    return data[:at] + junk + data[at:]


def _overwrite(data: bytes, at: int, junk: bytes) -> bytes:
    return data[:at] + junk + data[at + len(junk) :]


def _double_line(data: bytes, at: int, _: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join([*lines, lines[at % len(lines)]]) if lines else data


BYTES: tuple[bytes, ...] = (
    *(b"\xff", b"\0", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"'", b"=", b"[", b"{", b"}", b"#", b","),
    *(b"-", b"e999", b"nan", b"9" * 5000, b"[" * 20000, b"a." * 3000, b"\\ud800", b"../", b"x" * 70000),
)


@st.composite
def texts(draw: st.DrawFn, sound: bytes) -> bytes:
    """Bytes that differ from sound ones in one or two places, or have nothing to do with them."""
    whole = draw(st.sampled_from(("spoilt", "spoilt", "spoilt", "random", "utf-16", "empty")))
    if whole != "spoilt":
        return {"utf-16": sound.decode().encode("utf-16"), "empty": b""}.get(whole) or draw(st.binary(max_size=60))
    for _ in range(draw(st.integers(1, 2))):
        way = draw(st.sampled_from((_cut, _insert, _insert, _overwrite, _double_line)))
        sound = way(sound, draw(st.integers(0, len(sound))), draw(st.sampled_from(BYTES)))
    return sound


def to_toml(document: dict[str, Any]) -> bytes:
    """Write a document as TOML, each key of its root on a line."""
    return "".join(
        f"{json.dumps(key)} = {_written(value, ' = ', _toml_leaf)}\n" for key, value in document.items()
    ).encode()


def to_json(document: dict[str, Any]) -> bytes:
    """Write a document as JSON in one line; what JSON has no number for, Python writes in its own way."""
    return _written(document, ": ", json.dumps).encode()


def _toml_leaf(value: object) -> str:
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _written(value: object, between: str, leaf: Callable[[object], str]) -> str:
    """Write a value; `between` stands between a key and what it names."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return _digits(value)
        case list():
            return f"[{', '.join(_written(item, between, leaf) for item in value)}]"
        case dict():
            pairs = (f"{json.dumps(key)}{between}{_written(item, between, leaf)}" for key, item in value.items())
            return "{" + ", ".join(pairs) + "}"
    return leaf(value)


def _digits(value: int) -> str:
    """Python itself refuses to write more than 4300 digits."""
    return "1" + "0" * 5000 if value >= 10**5000 else str(value)


def strings_and_numbers(value: object) -> Sequence[object]:
    """Return everything in a document that is no list and no table, keys included."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (key, *strings_and_numbers(item))]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in strings_and_numbers(item)]
    return [value]
