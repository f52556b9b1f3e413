# SPDX-License-Identifier: MIT
"""Folders of the cache that are built once: complete or absent, never half there, whoever else builds meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import SamepageError


@contextmanager
def exclusive(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock on `path` against every other process; the kernel frees it when this process dies.

    Without `wait`, raises BlockingIOError where somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def built_folder(folder: Path, build: Callable[[Path], None], *, keep: int) -> Path:
    """Return `folder`; where it is missing, let `build` fill an empty folder beside it, and rename that when done.

    A build that was killed leaves only a folder ending in `.partial`, which the next one for the same WHAT removes.
    The name is WHAT-KEY: of the folders for the same WHAT, only the `keep` that were used last stay, and those that a
    process which lives has asked for.
    """
    while not _hold(folder):
        with exclusive(_lock_of(folder)):
            if not folder.is_dir():
                partial = folder.with_name(folder.name + ".partial")
                remove_tree(partial)
                partial.mkdir(parents=True)
                try:
                    build(partial)
                except BaseException:
                    remove_tree(partial)
                    raise
                partial.rename(folder)
        _sweep(folder)
        _prune(folder, keep)
    os.utime(folder)
    return folder


_held: dict[Path, int] = {}
"""Descriptors of the folders that this process has asked for, with a shared lock each until it ends."""
_holding = threading.Lock()


def _hold(folder: Path) -> bool:
    """Keep `folder` from being removed for as long as this process lives; false where there is none."""
    with _holding, contextlib.suppress(FileNotFoundError):
        if folder in _held and _is_at(folder, _held[folder]):
            return True
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_at(folder, descriptor):
            _held[folder] = descriptor
            return True
        os.close(descriptor)  # it was removed while we waited for the lock
    return False


def _is_at(path: Path, descriptor: int) -> bool:
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


def _sweep(newest: Path) -> None:
    """Remove what killed builds have left: half-made folders that nobody holds the lock of."""
    what = newest.name.rpartition("-")[0]
    for partial in newest.parent.glob("*.partial"):
        of = partial.with_suffix("")
        if of.name.rpartition("-")[0] == what:
            with contextlib.suppress(BlockingIOError), exclusive(_lock_of(of), wait=False):
                remove_tree(partial)


def _prune(newest: Path, keep: int) -> None:
    """Remove what was not used for longest, but for what some process holds."""
    what = newest.name.rpartition("-")[0]
    used: list[tuple[float, Path]] = []
    for path in newest.parent.iterdir():
        is_alike = path.name.rpartition("-")[0] == what and path.suffix not in {".lock", ".partial"} and path != newest
        with contextlib.suppress(FileNotFoundError):  # another process removes as well
            used += [(path.stat().st_mtime, path)] if is_alike else []
    for _, old in sorted(used, reverse=True)[keep - 1 :]:
        with exclusive(_lock_of(old)), contextlib.suppress(FileNotFoundError, BlockingIOError), _unused(old):
            doomed = old.with_name(old.name + ".partial")
            remove_tree(doomed)
            old.rename(doomed)
            remove_tree(doomed)


@contextmanager
def _unused(folder: Path) -> Iterator[None]:
    """Keep others from holding `folder`. Raises BlockingIOError where one does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove `folder` and everything in it, read-only folders included; nothing to do if it is not there."""
    if not folder.is_symlink() and not folder.exists():
        return
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            child = Path(parent, name)
            if not child.is_symlink():
                child.chmod(0o700)
    shutil.rmtree(folder)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SamepageError(f"cannot be read: {error.strerror}", where=path) from error


def key_of(*parts: str | bytes) -> str:
    """Return a name of 16 hexadecimal digits for what is made from `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]
