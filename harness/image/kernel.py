# SPDX-License-Identifier: MIT
"""The kernel as it boots: vmlinuz from the package, and the ELF file inside of it."""

from __future__ import annotations

import gzip
import lzma
import struct
from pathlib import Path

from harness.errors import SamepageError
from harness.sandbox import Sandbox

# Offsets in a bzImage: Documentation/arch/x86/boot.rst.
_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_SETUP_SECTORS_AT = 0x1F1
_PAYLOAD_AT = 0x248

_ZSTD, _XZ, _GZIP = b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"\x1f\x8b"


def find_vmlinuz(package_tree: Path, release: str) -> Path:
    """Return the bzImage in an unpacked kernel package (its place has moved with Linux 7)."""
    for path in (f"boot/vmlinuz-{release}", f"usr/lib/modules/{release}/vmlinuz"):
        if (package_tree / path).is_file():
            return package_tree / path
    raise SamepageError(f"has no vmlinuz of {release}", where=package_tree)


def extract_vmlinux(tools: Sandbox, vmlinuz: Path) -> bytes:
    """Return the uncompressed kernel inside a bzImage: QEMU starts it by PVH, without decompression in the guest."""
    image = vmlinuz.read_bytes()
    if image[_MAGIC_AT : _MAGIC_AT + 4] != _MAGIC:
        raise SamepageError("is not a bzImage", where=vmlinuz)
    setup_size = (image[_SETUP_SECTORS_AT] + 1) * 512
    offset, length = struct.unpack_from("<II", image, _PAYLOAD_AT)
    vmlinux = _decompress(tools, image[setup_size + offset : setup_size + offset + length])
    if not vmlinux.startswith(b"\x7fELF"):
        raise SamepageError("holds no kernel in a compression that is known here", where=vmlinuz)
    return vmlinux


def _decompress(tools: Sandbox, payload: bytes) -> bytes:
    if payload.startswith(_GZIP):
        return gzip.decompress(payload)
    # The last four bytes are the uncompressed size, which only gzip has in its stream.
    stream = payload[:-4]
    if payload.startswith(_ZSTD):
        return tools.run(["zstd", "-dc"], stdin=stream).stdout  # Python has zstd only since 3.14
    if payload.startswith(_XZ):
        return lzma.decompress(stream)
    return b""
