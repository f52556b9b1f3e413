# SPDX-License-Identifier: MIT
"""Users, cgroups, chosen domains and common contents of the guest that steps are played in."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.ksm.content import Kind, page_bytes
from harness.ksm.inguest import contents, domains, shares

CGROUPS = "/sys/fs/cgroup"
GROUPS = ("", "/outer/inner", "/other")
"""For a process, below the root of cgroups."""
SHARED = ("/outer", "/outer/inner", "/other")
"""What has shares."""
SHARES: tuple[tuple[int, int, int, int], ...] = ((1, 0, 0, 0), (300, 10, 0, 0), (100, 0, 1, 0), (100, 0, 0, 1))
"""Weight, percent, excluded, timing-safe."""
USERS = (1001, 1002)
COMMON_PAGES = 40
_FOLDER, _FILE = "/run/tenants", "/run/tenants/common"


class Tenants:
    """Whose memory is whose, as an administrator says."""

    def __init__(self, guest: Guest, *, pristine: bool = False) -> None:
        """`pristine`: nobody said anything of that kind since the module was loaded."""
        self._guest = guest
        self._shares: set[int] = set() if pristine else set(range(len(SHARED)))  # whatever another player left
        self._any_common = not pristine
        guest.run(["mkdir", "-p", _FOLDER, *(CGROUPS + group for group in SHARED)])
        for group in ("", SHARED[0]):
            guest.write(f"{CGROUPS}{group}/cgroup.subtree_control", "+memory")
        for program in (contents, domains, shares):
            guest.put(_source(program).read_bytes(), f"{_FOLDER}/{_source(program).name}")

    def reset(self) -> None:
        """As it is at the begin of a script, when there are no processes."""
        for group in list(self._shares):
            self.share(group, len(SHARES))
        if self._any_common:
            self.common(None)

    def enter(self, pid: int, group: int) -> None:
        """Put a process into a cgroup."""
        self._guest.write(f"{CGROUPS}{GROUPS[group]}/cgroup.procs", str(pid))

    def share(self, group: int, how: int) -> bool:
        """Say what share a cgroup has, or, with a number behind the last of SHARES, nothing any more.

        Returns whether there was something to clear.
        """
        path = CGROUPS + SHARED[group]
        if how < len(SHARES):
            self._shares.add(group)
            return self._run(shares, ["set", path, *map(str, SHARES[how])])
        self._shares.discard(group)
        return self._run(shares, ["clear", path], errno.ENOENT)

    def choose(self, pid: int, name: int) -> bool:
        """Choose the domain of a process; 0: none is chosen any more. Returns whether there was one to clear."""
        if name:
            return self._run(domains, ["set", str(pid), str(name)])
        return self._run(domains, ["clear", str(pid)], errno.ENOENT)

    def common(self, key: int | None) -> None:
        """Let all domains share the pages of this key and of those behind it; None: nothing any more."""
        self._any_common = key is not None
        if key is None:
            self._run(contents, ["clear"])
            return
        pages = (page_bytes(Kind.FILLED, key + page) for page in range(COMMON_PAGES))
        self._guest.put(b"".join(pages), _FILE)
        self._run(contents, ["share", _FILE])

    def _run(self, program: ModuleType, words: Sequence[str], *refusals: int) -> bool:
        """Return whether it did; errors in `refusals` may be."""
        line = ["python3", f"{_FOLDER}/{_source(program).name}", *words]
        answer = self._guest.run(line, check=False)
        said = answer.stderr.decode(errors="replace").strip()
        if answer.exit_code and not any(said.endswith(f"({number})") for number in refusals):
            raise CheckFailed(f"{' '.join(words)}: {said}", where=program.__name__)
        return answer.exit_code == 0


def _source(program: ModuleType) -> Path:
    assert program.__file__
    return Path(program.__file__)
