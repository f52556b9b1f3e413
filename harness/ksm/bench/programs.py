# SPDX-License-Identifier: MIT
"""Real programs in the measuring guest: Python with a good part of its library, and data; their answers are known.

They are harness/ksm/inguest/python_program.py, as in `samepage run`. The guest has no disk: what Python needs, and no
more, is in its initramfs; which files these are a run on this machine tells.
"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.config import Config
from harness.image.root import base_tree
from harness.ksm.inguest.python_program import Data
from harness.ksm.programs import SCRIPTS, python_environment
from harness.sandbox import Sandbox

CONTENT = "programs"
_PAGES_PER_MIB = 256
INTERPRETER_MIB = 48
"""What a program needs besides its data, at most."""
FILES_MIB = 96
"""What the initramfs needs at most: once as it was loaded, and once unpacked."""
_PYTHON = "/usr/bin/python3"
_FOLDER = "/programs"
_LOADER = "lib64/ld-linux-x86-64.so.2"
_LEAST = 1 << 22
"""Of the first question about the programs' data."""

_NAME_FILES = """
import sys
import inguest.python_program
for module in list(sys.modules.values()):
    file = getattr(module, "__file__", None)
    if file:
        print(file)
    if getattr(module, "__cached__", None):
        print(module.__cached__)
with open("/proc/self/maps") as maps:
    for line in maps:
        if "/" in line:
            print(line[line.index("/"):].strip())
"""


@dataclass(frozen=True)
class ProgramMemory:
    """Some instances of the program with so many pages of data each: in place of content.Memory."""

    processes: int
    mib: int
    seed: int

    @property
    def pages(self) -> int:
        """All pages of all instances, at most: how many there are only the guest can tell."""
        return self.processes * (self.mib + INTERPRETER_MIB) * _PAGES_PER_MIB

    def set_up(self) -> Iterator[str]:
        """Yield the lines that start them, all pages to be merged, and wait until they have all of their data."""
        for instance in range(self.processes):
            words = [f"{name}={value}" for name, value in python_environment(self.seed, instance).items()]
            line = [_PYTHON, "-m", "inguest.python_program", str(self.seed), str(instance), str(self.mib)]
            yield " ".join(["launch", f"PYTHONPATH={_FOLDER}", "LC_ALL=C.UTF-8", *words, *line])
        yield from self.rewrite(0)
        yield "programs counted"

    def register(self) -> Iterator[str]:
        """Yield nothing: they were registered when they were started."""
        yield from ()

    def rewrite(self, round_: int) -> Iterator[str]:
        """Yield a question to each; a wrong answer ends the case."""
        for instance in range(self.processes):
            data = self._data_of(instance)
            least = _LEAST + round_ * 10_000
            yield _ask(instance, {"ask": "query", "least": least}, data.query(least))

    def verify(self) -> Iterator[str]:
        """Yield the question for a digest of all data of each."""
        for instance in range(self.processes):
            yield _ask(instance, {"ask": "digest"}, self._data_of(instance).digest())

    def _data_of(self, instance: int) -> Data:
        return _data(self.seed, instance, self.mib, threading.get_ident())


def _ask(instance: int, question: object, answer: object) -> str:
    return f"ask {instance} {json.dumps(question, separators=(',', ':'))} {json.dumps(answer)}"


@functools.cache
def _data(seed: int, instance: int, mib: int, thread: int) -> Data:
    """A model for each thread: SQLite lets nobody but the thread that made a database use it."""
    del thread
    return Data(seed, instance, mib)


@functools.cache
def program_files(config: Config) -> dict[str, tuple[int, bytes]]:
    """Return what Python needs to run the programs: path to mode and content, as for an initramfs."""
    root = base_tree(config)
    shown = {SCRIPTS: f"{_FOLDER}/inguest"}
    output = Sandbox(root).run([_PYTHON, "-c", _NAME_FILES], ro=shown, env={"PYTHONPATH": _FOLDER}).stdout
    named = output.decode().splitlines()
    # Those that run, and no more: else another program for guests would change the figures of these.
    own = {Path(line).name for line in named if line.startswith(f"{_FOLDER}/") and line.endswith(".py")}
    scripts = {f"{_FOLDER[1:]}/inguest/{name}": SCRIPTS / name for name in own}
    paths = {line.removeprefix("/") for line in named if not line.startswith(f"{_FOLDER}/")}
    files = {link: root / path for path in paths if (root / path).is_file() for link in _names(root, path)}
    files |= {_LOADER: root / _LOADER} | scripts
    return {
        path: (0o755 if path.startswith(("usr/bin/", "lib64/")) else 0o644, source.read_bytes())
        for path, source in sorted(files.items())
    }


def _names(root: Path, path: str) -> list[str]:
    """A file's own name and the links to it that are beside it: a library is asked for by its soname."""
    folder = (root / path).parent
    links = [entry for entry in folder.iterdir() if entry.is_symlink() and entry.resolve() == (root / path).resolve()]
    return [path, *(str(entry.relative_to(root)) for entry in links)]


def files_key(files: dict[str, tuple[int, bytes]]) -> str:
    """Return a digest of all of them."""
    whole = hashlib.sha256()
    for path, (mode, content) in files.items():
        whole.update(f"{path} {mode:o} {len(content)}\n".encode() + content)
    return whole.hexdigest()
