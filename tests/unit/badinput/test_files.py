# SPDX-License-Identifier: MIT
"""Spoilt files of every kind: each is read as what it says, or refused by an error that names it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import SamepageError
from tests.unit.badinput.kinds import KINDS, Kind
from tests.unit.badinput.mutate import documents, strings_and_numbers, texts

# A folder is shared by the examples of a test; each makes it anew.
quick = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
described = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.document], ids=[kind.name for kind in KINDS if kind.document]
)
FORGIVEN = {"project", "kernel", "bench-history"}
"""Kinds of which there need not be a file."""


def is_accepted(kind: Kind, folder: Path) -> bool:
    """Read the file: it is accepted, or refused as a person's mistake, with its path."""
    error: SamepageError | None = None
    try:
        kind.read(folder)
    except SamepageError as raised:
        error = raised
    assert error is None or (error.exit_code == 2 and str(folder / kind.path) in str(error))
    return error is None


@every_kind
def test_sound_files_are_read(kind: Kind, tmp_path: Path) -> None:
    kind.place(tmp_path / "x", kind.sound)
    assert is_accepted(kind, tmp_path / "x")
    if kind.document:
        kind.place(tmp_path / "x", kind.write(kind.document))
        assert is_accepted(kind, tmp_path / "x")


@described
@quick
@given(data=st.data())
def test_what_documents_say(kind: Kind, tmp_path: Path, data: st.DataObject) -> None:
    assert kind.document is not None
    spoilt = data.draw(documents(kind.document))
    kind.place(tmp_path / "x", kind.write(spoilt))
    if is_accepted(kind, tmp_path / "x") and kind.name not in FORGIVEN:
        assert all(math.isfinite(leaf) for leaf in strings_and_numbers(spoilt) if isinstance(leaf, float))


@every_kind
@quick
@given(data=st.data())
def test_bytes(kind: Kind, tmp_path: Path, data: st.DataObject) -> None:
    spoilt = data.draw(texts(kind.sound))
    path = kind.place(tmp_path / "x", spoilt)
    is_accepted(kind, tmp_path / "x")
    assert path.read_bytes() == spoilt
    assert [file for file in (tmp_path / "x").rglob("*") if file.is_file()] == [path]


@every_kind
@pytest.mark.parametrize("instead", ["nothing", "folder", "loop", "below-a-file"])
def test_no_file_at_all(kind: Kind, tmp_path: Path, instead: str) -> None:
    path = kind.place(tmp_path / "x", kind.sound)
    path.unlink()
    if instead == "folder":
        path.mkdir()
    elif instead == "loop":
        path.symlink_to(path)
    elif instead == "below-a-file":
        path.parent.rmdir()
        path.parent.write_bytes(b"")
    if kind.name not in FORGIVEN:
        assert not is_accepted(kind, tmp_path / "x")
