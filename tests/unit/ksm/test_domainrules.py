# SPDX-License-Identifier: MIT
"""Rules for domains: what a file may say, what it names on a machine, and which processes are chosen for it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from harness.cli import domains as command
from harness.errors import SamepageError
from harness.ksm import domainrules
from harness.ksm.domainrules import Applied, apply, find, load
from harness.ksm.inguest import domains as device
from harness.ksm.inguest.domains import CGROUP, PROCESS, name_of, number_of, target
from tests.unit.badinput.test_command_lines import called

GOOD = """
[[rule]]
domain = "web"
cgroup = "web.slice"

[[rule]]
domain = 7
user = 1001
process = "make"

[[rule]]
domain = "rest"
user = 1001
"""
WEB, REST = number_of("web"), number_of("rest")


class Machine:
    """Processes and cgroups, and a module that notes what it is told."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        self.proc.mkdir()
        self.cgroups.mkdir()
        (self.proc / "self").mkdir()
        self.chosen: dict[tuple[int, int], int] = {}
        self.error: dict[int, int] = {}

    def process(self, pid: int, uid: int, name: str, began: int = 5) -> None:
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_text(f"{pid} (a) b) S {' '.join('0' * 18)} {began} 0 0\n")
        (folder / "status").write_text(f"Name:\t{name}\nUid:\t0\t{uid}\t0\t0\n")
        (folder / "comm").write_text(name + "\n")

    def cgroup(self, name: str) -> int:
        folder = self.cgroups / name
        folder.mkdir()
        (folder / "cgroup.controllers").write_text("")
        return folder.stat().st_ino

    def set(self, whose: tuple[int, int], number: int) -> None:
        if error := self.error.get(whose[1]):
            raise OSError(error, os.strerror(error))
        self.chosen[whose] = number

    def clear(self, whose: tuple[int, int]) -> None:
        del self.chosen[whose]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(domainrules, "PROC", machine.proc)
    monkeypatch.setattr(domainrules, "CGROUPS", machine.cgroups)
    monkeypatch.setattr(device, "DEVICE", str(tmp_path / "device"))
    monkeypatch.setattr(device, "set_domain", machine.set)
    monkeypatch.setattr(device, "clear_domain", machine.clear)
    return machine


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tenants.toml"
    path.write_text(text)
    return path


def counts(applied: list[Applied]) -> list[tuple[int, int]]:
    return [(one.processes, one.refused) for one in applied]


@pytest.mark.parametrize("name", ["a", "web", "_x.y-z1", "12345678", "0x10", 0, 1, (1 << 64) - 1])
def test_names_and_numbers(name: str | int) -> None:
    number = number_of(name)
    assert number_of(name_of(number)) == number


def test_words_stand_for_their_bytes() -> None:
    assert number_of("web") == 0x626577
    assert name_of(0x626577) == "web"
    assert name_of(7) == "7"
    assert name_of(int.from_bytes(b"a\0b", "little")) == str(0x620061)
    assert name_of(int.from_bytes(b"7a", "little")) == str(0x6137), "it would be read as no word"


@pytest.mark.parametrize(
    "name",
    ["", "a b", "ninechars", "7a", "-1", "1.5", "ж", "9" * 20, 1 << 64, -1, pytest.param(10**5000, id="long"), "٣"],
)
def test_what_is_no_name(name: str | int) -> None:
    with pytest.raises(ValueError, match=r"."):
        number_of(name)


def test_targets(machine: Machine) -> None:
    id_ = machine.cgroup("x")
    assert target("12") == (PROCESS, 12)
    assert target(str(machine.cgroups / "x")) == (CGROUP, id_)
    for nothing in (machine.cgroups, machine.cgroups / "y", Path("/dev/null/x")):
        with pytest.raises(OSError, match="No such cgroup"):
            target(str(nothing))
    for text in ("", "x", "-1", "٣", "1 ", "\0"):
        with pytest.raises(ValueError, match="neither"):
            target(text)


def test_the_first_rule_for_a_process_counts(machine: Machine, tmp_path: Path) -> None:
    web = machine.cgroup("web.slice")
    for pid, uid, name in ((1, 0, "make"), (10, 1001, "make"), (11, 1001, "sh"), (12, 1002, "make")):
        machine.process(pid, uid, name)
    path = write(tmp_path, GOOD)
    applied = apply(find(path, load(path)), machine.set, machine.clear)
    assert machine.chosen == {(CGROUP, web): WEB, (PROCESS, 10): 7, (PROCESS, 11): REST}
    assert counts(applied) == [(0, 0), (1, 0), (1, 0)]


def test_processes_come_go_and_change_meanwhile(machine: Machine, tmp_path: Path) -> None:
    machine.cgroup("web.slice")
    for pid in range(10, 16):
        machine.process(pid, 1001, "sh")
    machine.error = {10: errno.ESRCH, 11: errno.EACCES, 12: errno.EPERM}

    def choose(whose: tuple[int, int], number: int) -> None:
        machine.set(whose, number)
        if whose == (PROCESS, 13):
            machine.process(20, 1001, "sh")  # a child from before
        if whose == (PROCESS, 14):
            machine.process(14, 1001, "sh", began=6)  # another one, which is looked at by itself
        if whose == (PROCESS, 15):
            machine.process(15, 0, "sh")  # a set-uid program

    path = write(tmp_path, GOOD)
    applied = apply(find(path, load(path)), choose, machine.clear)
    del machine.chosen[CGROUP, (machine.cgroups / "web.slice").stat().st_ino]
    assert machine.chosen == {(PROCESS, pid): REST for pid in (13, 14, 20)}
    assert counts(applied)[2] == (3, 2)


def test_a_process_that_went_in_between(machine: Machine, tmp_path: Path) -> None:
    machine.cgroup("web.slice")
    machine.process(10, 1001, "sh")

    def choose(whose: tuple[int, int], number: int) -> None:
        machine.set(whose, number)
        shutil.rmtree(machine.proc / "10", ignore_errors=True)

    path = write(tmp_path, GOOD)
    assert counts(apply(find(path, load(path)), choose, machine.clear))[2] == (0, 0)
    assert (PROCESS, 10) not in machine.chosen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "rule"),
        ("rule = []", "rule"),
        ('[[rule]]\ncgroup = "x"', "domain"),
        ('[[rule]]\ndomain = "ninechars"\ncgroup = "x"', "$.rule[0].domain"),
        ('[[rule]]\ndomain = 1.5\ncgroup = "x"', "$.rule[0].domain"),
        ("[[rule]]\ndomain = 1", "$.rule[0].cgroup"),
        ('[[rule]]\ndomain = 1\nprocess = "make"', "$.rule[0].process"),
        ('[[rule]]\ndomain = 1\nuser = 1\nprocess = "0123456789abcdef"', "$.rule[0].process"),
        ("[[rule]]\ndomain = 1\nuser = -1", "$.rule[0].user"),
        ('[[rule]]\ndomain = 1\nuser = 1\ncgroup = "x"', "$.rule[0].cgroup"),
        ('[[rule]]\ndomain = 1\nuser = 1\n[[rule]]\ndomain = 1\nuser = ""', "$.rule[1].user"),
        ('[[rule]]\ndomain = 1\nuser = 1\ngroup = "x"', "group"),
        ('[[rule]]\ndomain = 1\nuser = "nobody-is-called-this"', "$.rule[0].user"),
        ('[[rule]]\ndomain = 1\ncgroup = "nothing"', "$.rule[0].cgroup"),
        ('[[rule]]\ndomain = 1\ncgroup = "x"\n[[rule]]\ndomain = 2\ncgroup = "x/"', "$.rule[1].cgroup"),
        ("[[rule]", "TOML"),
    ],
)
def test_a_bad_file_changes_nothing(machine: Machine, tmp_path: Path, text: str, said: str) -> None:
    machine.cgroup("x")
    machine.process(10, 1, "sh")
    path = write(tmp_path, text)
    with pytest.raises(SamepageError) as refused:
        find(path, load(path))
    assert str(path) in str(refused.value)
    assert said in str(refused.value)
    code, told = called("domains", "apply", str(path))
    assert code == 2
    assert said in told
    assert not machine.chosen


def test_the_command_line(machine: Machine, tmp_path: Path) -> None:
    web = machine.cgroup("web.slice")
    machine.process(10, 1001, "make")
    path = write(tmp_path, GOOD)
    code, told = called("domains", "apply", str(path))
    assert (code, machine.chosen) == (2, {})
    assert "insmod" in told
    Path(device.DEVICE).touch()
    code, told = called("domains", "apply", str(path))
    assert code == 0
    assert "web" in told
    assert called("domains", "set", "10", "0x10")[0] == 0
    assert called("domains", "clear", str(machine.cgroups / "web.slice"))[0] == 0
    assert machine.chosen == {(PROCESS, 10): 16}
    machine.error = {10: errno.EPERM}
    code, told = called("domains", "apply", str(path))
    assert (code, machine.chosen[CGROUP, web]) == (1, WEB)
    assert "1 processes may not be changed" in told
    code, told = called("domains", "set", "10", "x")
    assert (code, machine.chosen[PROCESS, 10]) == (2, 16)
    assert "root may for all" in told
    machine.error = {web: errno.EPERM}
    machine.chosen.clear()
    assert called("domains", "apply", str(path))[0] == 2
    assert not machine.chosen, "without the cgroups, nothing"


def test_the_list(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(device.DEVICE).write_text(
        "id by who processes shared sharing zero scan_ns copies profit name timing_safe\n"
        "1 user 1001 2 3 4 0 5000000000 6 1048576 0 1\n"
        f"2 explicit -1 2 3 4 0 5 6 7 {WEB} 0\n"
    )
    monkeypatch.setenv("COLUMNS", "200")
    code, told = called("domains", "list")
    assert code == 0
    first, second = (line.replace("│", " ").split() for line in told.splitlines() if line[1:3] in (" 1", " 2"))
    assert first == ["1", "user", "1001", "2", "3", "4", "1.0", "5.00", "6", "timing-safe"]
    assert second[:4] == ["2", "explicit", "root", "web"]
    assert command.domains.commands.keys() == {"list", "set", "clear", "apply"}
