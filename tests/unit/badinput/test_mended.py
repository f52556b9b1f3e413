# SPDX-License-Identifier: MIT
"""What once came out as a traceback, passed in silence, or reached beyond its folder: a case of each."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config import Config, load_config
from harness.errors import SamepageError
from harness.image.build import ensure_image
from harness.ksm.bench import HISTORY
from harness.ksm.bench.records import parse as parse_records
from harness.ksm.bench.run import read_kept
from harness.ksm.metrics import openmetrics
from harness.module.build import source_files
from harness.packages.recipe import load_recipe
from tests.unit.badinput.kinds import IMAGES, KINDS, Kind

BY_NAME = {kind.name: kind for kind in KINDS}
DIGITS = "9" * 5000


def refused(read: Callable[[], object]) -> SamepageError:
    with pytest.raises(SamepageError) as caught:
        read()
    assert caught.value.exit_code == 2
    return caught.value


def refused_file(kind: Kind, folder: Path, text: str | bytes) -> str:
    path = kind.place(folder / "x", text if isinstance(text, bytes) else text.encode())
    said = str(refused(lambda: kind.read(folder / "x")))
    assert str(path) in said
    return said


@pytest.mark.parametrize(
    "name", [kind.name for kind in KINDS if kind.document and kind.path.endswith((".toml", ".lock"))]
)
def test_toml_that_the_parser_itself_breaks_on(tmp_path: Path, name: str) -> None:
    """Python's limit on digits is a ValueError, its limit on depth a RecursionError."""
    for text in (f"x = {DIGITS}", "x = " + "[" * 20000, "x = " + "{a=" * 20000):
        assert "is not valid TOML" in refused_file(BY_NAME[name], tmp_path, text)


@pytest.mark.parametrize("name", ["result", "bench-result", "bench-history"])
def test_json_that_the_parser_itself_breaks_on(tmp_path: Path, name: str) -> None:
    kind = BY_NAME[name]
    nested = kind.sound.replace(b'{"', b'{"unknown": ' + b"[" * 200000 + b', "', 1)
    for text in (kind.sound.replace(b"6.12", b"\xff"), nested):
        assert "is no result" in refused_file(kind, tmp_path, text)


def test_a_bad_line_of_the_history_is_named(tmp_path: Path) -> None:
    kind = BY_NAME["bench-history"]
    assert f"{HISTORY}:2: " in refused_file(kind, tmp_path, kind.sound + b"\n{}\n")


@pytest.mark.parametrize("text", ["tool = 3", 'tool = "samepage"', "[tool]\nother = 1", "tool = []"])
def test_a_project_that_is_not_ours_is_passed_by(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert load_config(tmp_path, {}).root != tmp_path


@pytest.mark.parametrize(
    ("line", "named"),
    [
        *[(f'{name} = "~nobody-here/x"', name) for name in ("module", "images", "runs", "cache")],
        *[(f'{name} = "a\\u0000b"', name) for name in ("module", "images", "runs", "cache", "qemu")],
        *[(f'{name} = ""', name) for name in ("module", "images", "runs", "cache", "qemu")],
        ('mirror = "http://["', "mirror"),
        ('snapshot = "http://a b"', "snapshot"),
        ("jobs = 1" + "0" * 400, "jobs"),
    ],
)
def test_settings(tmp_path: Path, line: str, named: str) -> None:
    assert named in refused_file(BY_NAME["project"], tmp_path, f"[tool.samepage]\n{line}\n")


@pytest.mark.parametrize("value", ["0", '""', "[]", "false"])
def test_a_table_of_settings_that_is_none(tmp_path: Path, value: str) -> None:
    assert "Expected" in refused_file(BY_NAME["project"], tmp_path, f"tool.samepage = {value}\n")


@pytest.mark.parametrize("path", ["../x", "/x", "usr/../../x", "./x", "", "a//b", "a\\u0000b"])
def test_no_link_of_a_recipe_leaves_the_tree(tmp_path: Path, path: str) -> None:
    kind = BY_NAME["recipe"]
    assert "link" in refused_file(kind, tmp_path, kind.sound.replace(b'"usr/bin/awk"', f'"{path}"'.encode()))


@pytest.mark.parametrize("pattern", ["../*.c", "/etc/*", "", "a/../../*.c", ".", "a\\u0000"])
def test_no_source_of_a_program_lies_elsewhere(tmp_path: Path, pattern: str) -> None:
    kind = BY_NAME["image"]
    said = refused_file(kind, tmp_path, kind.sound.replace(b'["init.c"]\npath', f'["{pattern}"]\npath'.encode()))
    assert "sources[0]" in said


@pytest.mark.parametrize("name", ["image", "disk"])
def test_no_toolchain_lies_elsewhere(tmp_path: Path, name: str) -> None:
    kind = BY_NAME[name]
    said = refused_file(kind, tmp_path, kind.sound.replace(b'"kernel-6.12"', b'"../kernel-6.12"'))
    assert "toolchain" in said


def test_the_name_of_a_program_is_one_of_a_file(tmp_path: Path) -> None:
    kind = BY_NAME["image"]
    assert "program" in refused_file(kind, tmp_path, kind.sound.replace(b"[program.init]", b'[program."../init"]'))


@pytest.mark.parametrize("name", ["../kernels/debug", "/etc/x", "", "Tools", "a b", "tools\n"])
def test_names_of_recipes(name: str) -> None:
    assert f"{name}.toml" in str(refused(lambda: load_recipe(IMAGES, name)))


def test_numbers_of_steps(tmp_path: Path) -> None:
    assert "x.steps:1: fork takes 1 numbers" in refused_file(BY_NAME["steps"], tmp_path, f"fork {DIGITS}")
    assert "has no step" in refused_file(BY_NAME["steps"], tmp_path, "\n# x\n")


@pytest.mark.parametrize("row", ["0.0", "0.0,start,1,2", "nan,start,1", ",,", "\0"])
def test_rows_of_counters(tmp_path: Path, row: str) -> None:
    refused_file(BY_NAME["counters"], tmp_path, f"seconds,phase,ksm.run\n{row}\n")


def test_a_counter_s_name_stays_in_its_line() -> None:
    lines = openmetrics({"ksm": {"a\nksm_fake 1": 2}}, {}).splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["ksm_a_ksm_fake_1 2"]


def test_kept_figures_that_are_damaged(tmp_path: Path) -> None:
    for data in (b"\xff", b"start a=\n", b"\n", b"start a=x\n"):
        (tmp_path / "kept.txt").write_bytes(data)
        error = refused(lambda: read_kept(tmp_path / "kept.txt"))
        assert error.where == str(tmp_path / "kept.txt")
        assert "--fresh" in str(error)
    assert parse_records("start a=1\n")[0]["a"] == 1


def test_an_option_file_that_is_missing(config: Config, tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "kernels").mkdir(parents=True)
    for path in IMAGES.iterdir():
        if path.name != "kernels":
            (images / path.name).symlink_to(path)
    (images / "kernels/x.toml").write_text('base = "6.12"\nfragments = ["no.config"]\n')
    changed = dataclasses.replace(config, images=images)
    assert "no.config" in str(refused(lambda: ensure_image(changed, "x")))


def test_a_damaged_manifest_of_an_image(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("harness.image.build.built_folder", lambda *_, **__: tmp_path)
    for data in (b"", b"\xff", b"{}", b"[" * 100000):
        (tmp_path / "image.json").write_bytes(data)
        assert str(tmp_path / "image.json") in str(refused(lambda: ensure_image(config, config.kernel)))


def test_what_no_module_is_built_from(tmp_path: Path) -> None:
    (tmp_path / "Kbuild").write_text("obj-m := x.o\n")
    os.mkfifo(tmp_path / "pipe.c")  # reading it would wait for a writer
    assert "pipe.c" in str(refused(lambda: source_files(tmp_path)))
    (tmp_path / "pipe.c").unlink()
    (tmp_path / "dangling.h").symlink_to("nowhere")
    assert "dangling.h" in str(refused(lambda: source_files(tmp_path)))
    (tmp_path / "dangling.h").unlink()
    (tmp_path / "\udcff.c").write_text("")
    assert "dcff" in str(refused(lambda: source_files(tmp_path)))
