# SPDX-License-Identifier: MIT
"""The image itself: it comes out the same, and what goes wrong on the way is named."""

from __future__ import annotations

import gzip
import lzma
import struct
from pathlib import Path

import pytest

from harness.config import PACKAGE_PARENT, Config, load_config
from harness.errors import CheckFailed, SamepageError
from harness.image import ensure_image
from harness.image.kernel import extract_vmlinux
from harness.image.programs import compile_program
from harness.image.recipe import Program, load_image_recipe
from harness.image.verify import compare_files, verify_image
from harness.sandbox import Sandbox
from harness.toolroot import tool_root

HOST = Sandbox(Path("/"))


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(PACKAGE_PARENT)


def test_built_twice_the_same_bit_for_bit(config: Config) -> None:
    image = verify_image(config, config.kernel)
    assert all(path.stat().st_size > 0 for path in image.files())
    assert image == ensure_image(config, config.kernel)


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    one, two, short = tmp_path / "one", tmp_path / "two", tmp_path / "short"
    content = bytes(3 << 20)
    one.write_bytes(content)
    two.write_bytes(content[: 2 << 20] + b"!" + content[(2 << 20) + 1 :])
    short.write_bytes(content[: 2 << 20])
    compare_files(one, one)
    for other in (two, short):
        with pytest.raises(CheckFailed, match=f"one: .*from byte {2 << 20} on"):
            compare_files(one, other)


def bzimage(payload: bytes) -> bytes:
    header = bytearray(1024)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", header, 0x248, 16, len(payload))
    return bytes(header) + b"\0" * 16 + payload


def test_vmlinux_is_found_in_a_bzimage(tmp_path: Path) -> None:
    vmlinuz = tmp_path / "vmlinuz"
    vmlinuz.write_bytes(bzimage(lzma.compress(b"\x7fELF and more") + b"size"))
    assert extract_vmlinux(HOST, vmlinuz) == b"\x7fELF and more"
    # gzip's own last four bytes are the size.
    vmlinuz.write_bytes(bzimage(gzip.compress(b"\x7fELF and more")))
    assert extract_vmlinux(HOST, vmlinuz) == b"\x7fELF and more"


@pytest.mark.parametrize(
    "content", [b"", b"MZ" * 600, bzimage(b"????"), bzimage(lzma.compress(b"no kernel") + b"size")]
)
def test_what_is_no_kernel_is_refused(tmp_path: Path, content: bytes) -> None:
    vmlinuz = tmp_path / "vmlinuz"
    vmlinuz.write_bytes(content)
    with pytest.raises(SamepageError, match="vmlinuz: "):
        extract_vmlinux(HOST, vmlinuz)


def test_a_program_that_does_not_compile_is_named(config: Config, tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int main(void) { int unused; return 0; }\n")
    toolchain = Sandbox(tool_root(config, f"kernel-{config.kernel}"))
    with pytest.raises(CheckFailed, match="bad does not compile") as caught:
        compile_program(toolchain, tmp_path, "bad", Program(sources=["*.c"], path="usr/bin/bad"), tmp_path)
    assert "unused" in str(caught.value)
    with pytest.raises(SamepageError, match="no source"):
        compile_program(toolchain, tmp_path, "none", Program(sources=["*.cc"], path="usr/bin/none"), tmp_path)


@pytest.mark.parametrize("path", ["/usr/bin/x", "../x", "usr/../../x", "", "usr//x", "usr/.x"])
def test_programs_stay_in_the_guest(tmp_path: Path, path: str) -> None:
    (tmp_path / "guest").mkdir()
    text = (PACKAGE_PARENT / "images/guest/image.toml").read_text().replace("usr/bin/memwork", path)
    (tmp_path / "guest/image.toml").write_text(text)
    with pytest.raises(SamepageError, match="path"):
        load_image_recipe(tmp_path)
