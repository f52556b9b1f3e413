# SPDX-License-Identifier: MIT
"""Nonsense on every command line: exit code 2 with a word about what was wrong, and nothing changed.

What a command accepts begins with work: the first program that it starts, or the first address that it opens, ends it.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from harness.cli import COMMANDS, cli, main
from harness.ksm.bench import HISTORY
from tests.unit.badinput.kinds import KINDS

NEVER = ("", " ", "x", "-", "nan", "inf", "-inf", "1e400", "-1", "9" * 5000, "0x10", "1 2", "\udcff", "ж", "y" * 5000)
"""What is no number within bounds, no choice, and no path of anything."""
ODD = (
    *NEVER,
    "0",
    "1",
    "..",
    "../..",
    "/",
    "a/b",
    "a\nb",
    "%s{0}[b]",
    "latest",
    "-v",
    "--",
    "/dev/null/x",
    "~x",
    "a,b",
)
ARGUMENTS = {
    "metrics": ("sound/result.json",),
    "replay": ("sound/x.steps",),
    "profile": ("same",),
    "coverage": ("sound",),
    "lock": ("tools",),
    "kernel build": ("debug",),
    "kernel verify": ("debug",),
    "why": ("1",),
    "domains set": ("1", "x"),
    "domains clear": ("1",),
    "domains apply": ("sound/tenants.toml",),
    "contents share": ("/nowhere/none.so",),
    "shares set": ("/sys/fs/cgroup/none",),
    "shares clear": ("/sys/fs/cgroup/none",),
}
"""Of commands that go no further without."""


class Began(BaseException):
    """The command line was accepted."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own, where whatever begins is stopped; the cache, which may change, lies elsewhere."""

    def begin(*_: object, **__: object) -> None:
        raise Began

    monkeypatch.setattr(subprocess.Popen, "__init__", begin)
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", begin)
    for program in ("contents", "domains", "shares"):
        monkeypatch.setattr(f"harness.ksm.inguest.{program}.DEVICE", str(tmp_path / "device"))  # not this machine's
    monkeypatch.setenv("SAMEPAGE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src/Kbuild").write_text("obj-m := x.o\n")
    (folder / "pyproject.toml").write_text('[tool.samepage]\nmodule = "src"\n')
    for kind in KINDS:
        if kind.name in ("result", "steps", "reasons", "workload-mixed", "domains"):
            path = folder / "sound" / kind.path
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(kind.sound)
    monkeypatch.chdir(folder)
    return folder


def called(*words: str) -> tuple[int | None, str]:
    """Run a command line in this process; return its exit code, None where work began, and all that it said."""
    said = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", write_through=True)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["samepage", *words])
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except Began:
            code = None
    said.seek(0)
    return code, said.read()


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(folder: Path, *words: str) -> str:
    """The command line ends with 2, says why, and leaves everything as it was; return what it said."""
    before = listing(folder)
    code, said = called(*words)
    assert code == 2, said
    assert "rror" in said
    assert "Traceback" not in said
    assert listing(folder) == before
    return said


def leaves(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, by what is typed for it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from leaves(found, f"{name} {below}".strip())
    else:
        yield name, command


ALL = dict(leaves(cli))
VALUED = [
    (name, option)
    for name, command in ALL.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag
]


def test_every_command_is_walked() -> None:
    assert {name.split()[0] for name in ALL} == set(COMMANDS)


@pytest.mark.parametrize(("name", "option"), VALUED, ids=[f"{name} {option.opts[-1]}" for name, option in VALUED])
def test_nonsense_for_an_option(folder: Path, name: str, option: click.Option) -> None:
    typed = not isinstance(option.type, click.types.StringParamType)
    for text in ODD:
        words = [*name.split(), *ARGUMENTS.get(name, ()), f"{option.opts[-1]}={text}"]
        if typed and text in NEVER:
            assert option.opts[-1] in refused(folder, *words)
        else:
            accepted_or_refused(folder, *words)


@pytest.mark.parametrize("name", sorted(ALL))
def test_nonsense_for_arguments(folder: Path, name: str) -> None:
    for text in ODD:
        accepted_or_refused(folder, *name.split(), "--", text)
        refused(folder, *name.split(), *ARGUMENTS.get(name, ()), "--no-such-option", text)
        if not text.startswith("-"):
            accepted_or_refused(folder, *name.split(), *ARGUMENTS.get(name, ()), text, text)


def accepted_or_refused(folder: Path, *words: str) -> None:
    before = listing(folder)
    code, said = called(*words)
    assert "Traceback" not in said
    assert code in (None, 0, 2), said
    if code == 2:
        assert "rror" in said
        assert listing(folder) == before


def test_stopped_where_work_begins(folder: Path) -> None:
    asking = {"metrics", "shell", "matrix", "why", "contents", "domains", "shares"}
    for name in (name for name in ALL if name.split()[0] not in asking):
        assert called(*name.split(), *ARGUMENTS.get(name, ()))[0] is None, name


@pytest.mark.parametrize("word", ["../workloads/mixed", "{folder}/sound/mine", "mixed/../mixed", "", "."])
def test_a_workload_s_name_leads_nowhere_else(folder: Path, word: str) -> None:
    """The folders of a run of several are called by the workloads' names."""
    assert "there is no such workload" in refused(folder, "run", word.format(folder=folder))


def test_a_workload_that_no_result_can_name(folder: Path) -> None:
    (folder / "sound/mine.toml").rename(folder / "sound/\udcff.toml")
    assert "UTF-8" in refused(folder, "run", "sound/\udcff.toml")


@pytest.mark.parametrize("command", ["run", "bench"])
@pytest.mark.parametrize("name", ["", "latest", HISTORY, "..", "a/b", "-a", "x" * 300, "\udcff"])
def test_names_of_runs(folder: Path, command: str, name: str) -> None:
    assert "is not a name for a folder" in refused(folder, command, f"--name={name}")


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--against=x", "--worse-by"],
        ["coverage", "sound", "--at-least"],
        ["soak", "--minutes"],
    ],
)
def test_no_bound_is_passed_by_what_is_no_number(folder: Path, words: list[str]) -> None:
    """`nan` is not less than anything: with it as the bound every run would pass."""
    for text in ("nan", "inf", "NaN"):
        assert words[-1] in refused(folder, *words[:-1], f"{words[-1]}={text}")


@pytest.mark.parametrize(
    "words",
    [
        ["soak", "--every"],
        ["replay", "sound/x.steps", "--times"],
        ["shell", "--ssh", "--memory"],
        ["shell", "--ssh", "--cpus"],
        ["selftests", "--size"],
        ["profile", "same", "--rows"],
    ],
)
def test_no_number_is_too_large_for_what_counts_with_it(folder: Path, words: list[str]) -> None:
    """More than a float holds: what waits or shows progress would break off in the middle."""
    assert words[-1] in refused(folder, *words[:-1], f"{words[-1]}=1{400 * '0'}")


def test_nothing_to_compare_with_is_no_comparison_that_passed(folder: Path) -> None:
    """As from a variable of a script that is empty."""
    for reference in ("", ".", "nothing", "../.."):
        assert "neither a result nor a run" in refused(folder, "bench", f"--against={reference}")
    assert "is no result of a bench run" in refused(folder, "bench", "--against=sound")


def test_lint_walks_through_no_folder_that_is_no_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rglob", walk)
        assert "has no Kbuild file" in called("lint", "/")[1]
        assert "has no Kbuild file" in called("lint", "sound")[1]


def test_no_lock_changes_where_one_recipe_is_unknown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed: list[str] = []
    monkeypatch.setattr("harness.cli.lock.renew_lock", lambda _, name: renewed.append(name))
    for unknown in ("nothing", "../images/tools", "", "Tools", "tools/"):
        assert f"{unknown}.toml" in refused(folder, "lock", "tools", unknown)
    assert not renewed


@pytest.mark.parametrize("kernel", ["../kernels/debug", "debug/", "./debug", "DEBUG", "a\nb", "9.9"])
def test_names_of_kernels(folder: Path, kernel: str) -> None:
    for name in ("run", "bench", "soak", "image build", "module build", "kernel build", "lint"):
        option = [kernel] if name == "kernel build" else [f"--kernel={kernel}"]
        assert kernel in refused(folder, *name.split(), *option)


def test_an_empty_script_does_not_pass(folder: Path) -> None:
    (folder / "sound/x.steps").write_text("# nothing\n")
    assert "has no step" in refused(folder, "replay", "sound/x.steps")


def test_matrix_takes_tests_of_the_project_alone(folder: Path) -> None:
    (folder.parent / "test_x.py").write_text("")
    assert "outside of the project" in refused(folder, "matrix", str(folder.parent / "test_x.py"))
    assert "no test file is there" in refused(folder, "matrix", "src")


@pytest.mark.parametrize(
    "name", ["JOBS", "KERNEL", "TIMEOUT_FACTOR", "MODULE_BTF", "MIRROR", "SNAPSHOT", "ACCELERATOR"]
)
def test_variables(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for text in NEVER[1:]:
        monkeypatch.setenv(f"SAMEPAGE_{name}", text)
        if not (name == "KERNEL" and text in ("x", "nan", "inf", "1e400", "9" * 5000, "0x10", "y" * 5000)):
            assert f"SAMEPAGE_{name}" in refused(folder, "module", "build")


@pytest.mark.parametrize("name", ["MODULE", "RUNS", "CACHE", "IMAGES", "QEMU"])
def test_variables_that_are_paths(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (folder.parent / "loop").symlink_to("loop")
    for text in (*NEVER, "~nobody-here/x", str(folder.parent / "loop/x"), "/dev/null/x", "/proc/x"):
        monkeypatch.setenv(f"SAMEPAGE_{name}", text)
        accepted_or_refused(folder, "module", "build")
    if name != "QEMU":
        monkeypatch.setenv(f"SAMEPAGE_{name}", "~nobody-here/x")
        assert f"SAMEPAGE_{name}" in refused(folder, "module", "build")
