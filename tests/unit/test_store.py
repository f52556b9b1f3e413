# SPDX-License-Identifier: MIT
from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from harness.store import built_folder, exclusive, key_of, remove_tree


def test_built_once(tmp_path: Path) -> None:
    calls = []

    def build(partial: Path) -> None:
        calls.append(partial)
        (partial / "file").write_text("done")

    for _ in range(2):
        assert (built_folder(tmp_path / "x", build, keep=1) / "file").read_text() == "done"
    assert len(calls) == 1


def test_an_interrupted_build_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def interrupted(partial: Path) -> None:
        (partial / "half").write_text("half")
        (partial / "closed").mkdir(mode=0o500)
        raise KeyboardInterrupt

    def whole(partial: Path) -> None:
        assert list(partial.iterdir()) == []

    with pytest.raises(KeyboardInterrupt):
        built_folder(tmp_path / "x", interrupted, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["x.lock"]
    (tmp_path / "x.partial/left-when-killed").mkdir(parents=True)
    assert built_folder(tmp_path / "x", whole, keep=1).is_dir()


def test_two_at_once_build_once(tmp_path: Path) -> None:
    calls = []

    def build(partial: Path) -> None:
        calls.append(partial)
        time.sleep(0.2)

    threads = [
        threading.Thread(target=built_folder, args=(tmp_path / "x", build), kwargs={"keep": 1}) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def build_elsewhere(folder: Path) -> None:
    """Ask for it in a process that ends."""
    process = multiprocessing.get_context("fork").Process(
        target=built_folder, args=(folder, lambda partial: None), kwargs={"keep": 3}
    )
    process.start()
    process.join()
    assert process.exitcode == 0


def test_what_somebody_uses_stays(tmp_path: Path) -> None:
    built_folder(tmp_path / "image-1.0-0", lambda partial: None, keep=3)
    os.utime(tmp_path / "image-1.0-0", (0, 0))
    for number in range(1, 5):
        build_elsewhere(tmp_path / f"image-1.0-{number}")
        os.utime(tmp_path / f"image-1.0-{number}", (number, number))
    left = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock")
    assert left == [f"image-1.0-{number}" for number in (0, 2, 3, 4)]
    remove_tree(tmp_path / "image-1.0-0")
    assert built_folder(tmp_path / "image-1.0-0", lambda partial: (partial / "anew").touch(), keep=3).is_dir()
    assert (tmp_path / "image-1.0-0/anew").exists()


def test_only_what_was_used_last_stays(tmp_path: Path) -> None:
    (tmp_path / "other-1.0-ff").mkdir()
    for number in range(4):
        build_elsewhere(tmp_path / f"image-1.0-{number}")
        os.utime(tmp_path / f"image-1.0-{number}", (number, number))
    build_elsewhere(tmp_path / "image-1.0-1")  # used again: now it is the newest
    (tmp_path / "image-1.0-9.partial").mkdir()
    (tmp_path / "image-1.0-8.partial").mkdir()
    with exclusive(tmp_path / "image-1.0-9.lock"):  # one is being built, the other was left by a build that was killed
        built_folder(tmp_path / "image-1.0-4", lambda partial: None, keep=3)
    left = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock")
    assert left == ["image-1.0-1", "image-1.0-3", "image-1.0-4", "image-1.0-9.partial", "other-1.0-ff"]


def test_a_link_is_removed_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "tree")
    assert (tmp_path / "kept").is_dir()
    remove_tree(tmp_path / "tree")  # nothing to do


def test_keys_tell_parts_apart() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("a") == key_of(b"a")
