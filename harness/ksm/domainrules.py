# SPDX-License-Identifier: MIT
"""Which processes and cgroups belong to which security domain: rules in a TOML file, and what they mean here.

A rule names a cgroup, or a user and, if need be, the name of that user's processes. The name alone is not enough:
anybody may give it to a process, and so put it into another user's domain.
"""

from __future__ import annotations

import errno
import pwd
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, field

from harness.document import Text, read_toml
from harness.errors import SamepageError
from harness.ksm.inguest.domains import CGROUP, PROCESS, number_of, target

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
GONE = {errno.ESRCH, errno.ENOENT}

Set = Callable[[tuple[int, int], int], None]
Clear = Callable[[tuple[int, int]], None]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule of the file."""

    domain: str | int
    """A number, or a word of up to eight characters."""
    cgroup: Text | None = None
    """Its path, below /sys/fs/cgroup or in full."""
    user: Text | Annotated[int, Meta(ge=0, le=(1 << 32) - 2)] | None = None
    """By name or number: the effective one of a process."""
    process: Annotated[str, Meta(pattern=r"^[^\0\n]{1,15}\Z")] | None = None
    """As in /proc/PID/comm, of which the kernel keeps 15 characters."""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rule: Annotated[tuple[Rule, ...], Meta(min_length=1)] = field()


def _at(path: Path, number: int, key: str, what: str) -> SamepageError:
    return SamepageError(f"{what} - at `$.rule[{number}].{key}`", where=path)


def load(path: Path) -> tuple[Rule, ...]:
    """Read a file of rules. Raises SamepageError with the file and the key that is wrong."""
    rules = read_toml(path, _File).rule
    for number, rule in enumerate(rules):
        try:
            number_of(rule.domain)
        except ValueError as error:
            raise _at(path, number, "domain", str(error)) from error
        if rule.cgroup is not None and (rule.user, rule.process) != (None, None):
            raise _at(path, number, "cgroup", "Stands beside `user` or `process`: a rule is about one or the other")
        if rule.cgroup is None and rule.user is None:
            key = "process" if rule.process is not None else "cgroup"
            raise _at(path, number, key, "Needs `user`: anybody may call a process so, and a rule is about somebody")
    return rules


@dataclass(frozen=True)
class Running:
    """A process: the same one as long as these are the same."""

    pid: int
    began: int
    """In clock ticks: another process may get the same pid later."""
    uid: int


@dataclass(frozen=True)
class Known:
    """A rule with what it names found on this machine."""

    number: int
    domain: int
    cgroup: int | None
    uid: int | None
    process: str | None


def _cgroup(path: Path, number: int, name: str) -> int:
    try:
        kind, id_ = target(str(CGROUPS / name))
    except (OSError, ValueError) as error:
        raise _at(path, number, "cgroup", f"There is no cgroup `{name}`") from error
    assert kind == CGROUP
    return id_


def _uid(path: Path, number: int, user: str | int) -> int:
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError) as error:
        raise _at(path, number, "user", f"There is no user `{user}`") from error


def find(path: Path, rules: tuple[Rule, ...]) -> list[Known]:
    """Find what the rules of the file name on this machine. Raises SamepageError with the key of what is not there."""
    known: list[Known] = []
    for number, rule in enumerate(rules):
        cgroup = None if rule.cgroup is None else _cgroup(path, number, rule.cgroup)
        uid = None if rule.user is None else _uid(path, number, rule.user)
        if cgroup is not None and any(cgroup == other.cgroup for other in known):
            raise _at(path, number, "cgroup", "An earlier rule is about the same cgroup")
        known.append(Known(number, number_of(rule.domain), cgroup, uid, rule.process))
    return known


def _look(folder: Path) -> tuple[Running, str] | None:
    """Return a process and its name; None when it is gone."""
    try:
        stat = (folder / "stat").read_bytes()
        status = (folder / "status").read_bytes()
        name = (folder / "comm").read_bytes()
    except OSError:
        return None
    uids = next((line for line in status.splitlines() if line.startswith(b"Uid:")), b"").split()
    began = stat[stat.rfind(b")") + 1 :].split()
    if len(uids) < 3 or len(began) < 20:
        return None
    found = Running(int(folder.name), int(began[19]), int(uids[2]))
    return found, name.removesuffix(b"\n").decode(errors="replace")


def _running() -> Iterator[tuple[Running, str]]:
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and (found := _look(folder)):
            yield found


@dataclass
class Applied:
    """What came of a rule."""

    rule: Known
    processes: int = 0
    refused: int = 0
    """Processes that one may not change."""


def _choose(process: Running, number: int, set_domain: Set, clear_domain: Clear) -> bool:
    """Choose the domain of a process, if it is there yet."""
    whose = (PROCESS, process.pid)
    try:
        set_domain(whose, number)
        now = _look(PROC / str(process.pid))
        if now and now[0] == process:
            return True
        clear_domain(whose)  # another process meanwhile, or another user's
    except OSError as error:
        if error.errno not in GONE:
            raise
    return False


def apply(rules: list[Known], set_domain: Set, clear_domain: Clear) -> list[Applied]:
    """Choose the domains of the cgroups, and of every process that runs; the first rule for it counts.

    Raises OSError when a cgroup's cannot be chosen; nothing has changed when it is the first.
    """
    applied = [Applied(rule) for rule in rules]
    for rule in rules:
        if rule.cgroup is not None:
            set_domain((CGROUP, rule.cgroup), rule.domain)
    done: set[Running] = set()
    # What a process forks after it was given a domain has it, too: look again for those from before.
    while new := {process: name for process, name in _running() if process not in done}:
        done.update(new)
        for process, name in new.items():
            for one in applied:
                if one.rule.uid == process.uid and one.rule.process in (None, name):
                    try:
                        one.processes += _choose(process, one.rule.domain, set_domain, clear_domain)
                    except PermissionError:
                        one.refused += 1
                    break
    return applied
