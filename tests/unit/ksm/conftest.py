# SPDX-License-Identifier: MIT
"""`memwork`, built for the host and run on it: the same C as in a guest, with nothing that merges behind it."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from harness.config import PACKAGE_PARENT, load_config
from harness.image.programs import compile_program
from harness.image.recipe import guest_sources, load_image_recipe
from harness.ksm.memwork import MemWork
from harness.sandbox import Sandbox
from harness.toolroot import tool_root

SECRET = 0x1234_5678_9ABC_DEF0


class HostStream:
    """A program of the host's over pipes."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def write(self, data: bytes) -> None:
        while data:
            data = data[self._stdin.write(data) :]

    def read(self, size: int, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        got = b""
        while len(got) < size:
            ready, _, _ = select.select([self._stdout], [], [], max(0, deadline - time.monotonic()))
            part = self._stdout.read(size - len(got)) if ready else b""
            if not part:
                raise TimeoutError(f"{len(got)} of {size} bytes")
            got += part
        return got

    def close_stdin(self) -> None:
        self._stdin.close()

    def wait(self, timeout: float) -> int:
        return self._process.wait(timeout)

    def kill(self) -> None:
        self._process.kill()


class Host:
    """Stands in for a guest."""

    def spawn(self, argv: Sequence[str]) -> HostStream:
        return HostStream(argv)

    def get(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        with Path(path).open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)


@pytest.fixture(scope="session")
def memwork_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_config(PACKAGE_PARENT)
    program = load_image_recipe(config.images).program["memwork"]
    sanitized = msgspec.structs.replace(
        program, flags=[*program.flags, "-fsanitize=undefined", "-fno-sanitize-recover"]
    )
    toolchain = Sandbox(tool_root(config, f"kernel-{config.kernel}"))
    folder = tmp_path_factory.mktemp("memwork")
    return compile_program(toolchain, guest_sources(config.images), "memwork", sanitized, folder)


@pytest.fixture
def work(memwork_program: Path) -> Iterator[MemWork]:
    with MemWork(Host(), program=str(memwork_program), secret=SECRET, timeout=20) as work:
        yield work
