# SPDX-License-Identifier: MIT
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.image.cpio import newc_archive

FILES = {
    "init": (0o755, b"\x7fELF"),
    "modules/b.ko": (0o644, b"bb"),
    "modules/a.ko": (0o644, b""),
    "x/y/z": (0o600, b"1"),
}


def parse(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Read an archive as the kernel's init/initramfs.c does: name, mode, content."""
    entries: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        assert at % 4 == 0
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        body = (at + 110 + name_size + 3) & ~3
        if name == b"TRAILER!!!\0":
            return entries
        entries.append((name[:-1].decode(), mode, archive[body : body + size]))
        at = (body + size + 3) & ~3


def test_files_folders_and_modes() -> None:
    assert parse(newc_archive(FILES)) == [
        ("init", 0o100755, b"\x7fELF"),
        ("modules", 0o040755, b""),
        ("modules/a.ko", 0o100644, b""),
        ("modules/b.ko", 0o100644, b"bb"),
        ("x", 0o040755, b""),
        ("x/y", 0o040755, b""),
        ("x/y/z", 0o100600, b"1"),
    ]


def test_the_order_of_the_input_does_not_matter() -> None:
    assert newc_archive(FILES) == newc_archive(dict(reversed(FILES.items())))


@given(st.dictionaries(st.from_regex(r"\A[a-z.-]{1,20}\Z"), st.binary(max_size=50), max_size=8))
def test_any_content_comes_back(files: dict[str, bytes]) -> None:
    files = {name: data for name, data in files.items() if name not in {".", ".."}}
    archive = newc_archive({name: (0o644, data) for name, data in files.items()})
    assert {name: data for name, _, data in parse(archive)} == files
