# SPDX-License-Identifier: MIT
"""Playing steps in a guest: after each one every page of every process is compared, and the module checks itself.

The model is memwork's oracle. What a step may be refused for (another mapping's flags, no memory to collapse into ...)
is no fault, and changes nothing in the model.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.guest.snapshot import start_guest
from harness.guest.spec import GuestSpec
from harness.guest.swap import drop_zram, make_zram, set_zram
from harness.image import ensure_image
from harness.ksm import checker
from harness.ksm.content import Kind
from harness.ksm.counters import KSM
from harness.ksm.fuzz.steps import Step
from harness.ksm.fuzz.tenants import USERS, Tenants
from harness.ksm.link import WorkError
from harness.ksm.memwork import MemWork
from harness.ksm.oracle import ABSENT
from harness.ksm.processes import PROT_READ, PROT_WRITE, Advice, Area, Process, Syscall
from harness.ksm.protocol import PAGE_BYTES
from harness.module.build import BuiltModule, build_module

MAX_PROCESSES = 6
MAX_PAGES = 2000
"""Of a process."""
PASS_TIMEOUT = 60.0
SPEC = GuestSpec(memory_mib=1024, cpus=2, numa_nodes=2, append=("movablecore=512M",))
"""Of the guest that steps are made for: two nodes to move between, and memory that can be taken away."""

ADVICES = (
    Advice.MERGEABLE,
    Advice.MERGEABLE,
    Advice.UNMERGEABLE,
    Advice.DONTNEED,
    Advice.HUGEPAGE,
    Advice.NOHUGEPAGE,
    Advice.COLD,
    Advice.PAGEOUT,
    Advice.POPULATE_WRITE,
    Advice.COLLAPSE,
)
TUNABLES: tuple[tuple[str, tuple[int | str, ...]], ...] = (
    ("pages_to_scan", (100, 1000, 100000)),
    ("sleep_millisecs", (1, 2, 20)),
    ("use_zero_pages", (0, 1, 1)),
    ("smart_scan", (0, 1, 1)),
    ("max_page_sharing", (2, 4, 256)),
    ("stable_node_chains_prune_millisecs", (0, 10, 2000)),
    ("merge_across_nodes", (0, 1, 1)),
    ("../samepage/huge_min_twins", (1, 64, 513)),
    ("../samepage/threads", (1, 2, 4)),
    ("../samepage/reserve_percent", (0, 30, 100)),
    ("../samepage/timing_safe", (0, 1, 1)),
    ("../samepage/domain_by", ("none", "user", "cgroup")),
    ("../samepage/domain_by", ("explicit", "explicit", "user")),
    ("../samepage/domain_cgroup_level", (0, 1, 2)),
)
"""Under /sys/kernel/mm/ksm, with the values to choose from."""

_HOTPLUG = r"""
cd /sys/devices/system/memory
first=$1
set -- $(grep -l Movable memory*/valid_zones | cut -d/ -f1)
for i in $(seq 0 $(($# - 1))); do
    eval block=\${$((1 + (first + i) % $#))}
    echo offline 2>/dev/null > "$block/state" || continue
    echo online_movable > "$block/state" && echo "$block"
    exit
done
"""

_REFUSALS = frozenset({errno.EINVAL, errno.EAGAIN, errno.ENOMEM, errno.EBUSY, errno.EFAULT, errno.EPERM})


@contextmanager
def start_player(config: Config, folder: Path) -> Iterator[Player]:
    """Build what is not built yet, and end the guest afterwards; its console is in `folder`."""
    image = ensure_image(config, config.kernel)
    module = build_module(config, config.module, config.kernel)
    with start_guest(config, image, SPEC, folder) as guest, Player(guest, module) as player:
        yield player


class Player:
    """A guest with the module loaded and swap, and what the steps so far made of it."""

    def __init__(self, guest: Guest, module: BuiltModule) -> None:
        self.guest = guest
        self.module = module
        self.played: list[Step] = []
        self.pages_compared = 0
        self.blocks_moved = 0
        self._swapping = False
        self._prepare()
        self._tenants = Tenants(guest)
        self.work = MemWork(guest)
        self._reset_tunables()

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.work.__exit__(kind, error, trace)
        if self.guest.healthy:
            self._swap(on=False)
            drop_zram(self.guest)

    def restart(self) -> None:
        """Forget all processes, and set everything as it is at the begin of a script."""
        self.work.close()
        self.work = MemWork(self.guest)
        self._reset_tunables()
        self._swap(on=True)
        self.played.clear()

    def play(self, step: Step) -> None:
        """Carry out a step, then check everything. Raises CheckFailed (content, module, kernel) for what is wrong."""
        self.played.append(step)
        do: Callable[..., None] = getattr(self, f"_{step.name}")
        try:
            do(*step.numbers)
        except WorkError as error:
            if error.errno not in _REFUSALS:
                raise
        self.pages_compared += self.work.check()
        checker.check(self.guest)

    # Finding what a step speaks of.

    def _process_of(self, number: int) -> Process | None:
        processes = self.work.processes
        return processes[number % len(processes)] if processes else None

    def _area_of(self, process: int, area: int) -> Area | None:
        chosen = self._process_of(process)
        return chosen.areas[area % len(chosen.areas)] if chosen and chosen.areas else None

    def _pages_of(self, process: int, area: int, first: int, count: int) -> tuple[Area, range] | None:
        chosen = self._area_of(process, area)
        if chosen is None:
            return None
        first %= chosen.pages
        return chosen, range(first, min(first + count, chosen.pages))

    def _shared_by_fork(self, chosen: Area, pages: range) -> bool:
        own = chosen.model.frames[pages.start : pages.stop]
        own = own[own != ABSENT]
        return any(np.isin(own, area.model.frames).any() for area in self.work.areas if area is not chosen)

    # The steps.

    def _spawn(self) -> None:
        if len(self.work.processes) < MAX_PROCESSES:
            self.work.process()

    def _fork(self, process: int) -> None:
        parent = self._process_of(process)
        if parent and len(self.work.processes) < MAX_PROCESSES:
            parent.fork()

    def _exit(self, process: int) -> None:
        chosen = self._process_of(process)
        if chosen:
            chosen.exit()

    def _exec(self, process: int) -> None:
        chosen = self._process_of(process)
        if chosen:
            chosen.exec()

    def _map(self, process: int, pages: int, merge: int, huge: int) -> None:
        chosen = self._process_of(process)
        if chosen and sum(area.pages for area in chosen.areas) + pages <= MAX_PAGES:
            chosen.map(pages, merge=bool(merge), thp=bool(huge))

    def _unmap(self, process: int, area: int) -> None:
        chosen = self._area_of(process, area)
        if chosen:
            chosen.unmap()

    def _remap(self, process: int, area: int, pages: int) -> None:
        chosen = self._area_of(process, area)
        if not chosen:
            return
        try:
            chosen.remap(pages)
        except WorkError:
            # What is to be cut off is unmapped before Linux finds that the rest is more than one mapping.
            if pages < chosen.pages:
                chosen.model = chosen.model.resized(pages)
            raise

    def _fill(self, process: int, area: int, first: int, count: int, kind: int, key: int, step: int) -> None:
        found = self._pages_of(process, area, first, count)
        if found:
            chosen, pages = found
            chosen.fill(Kind(kind), key, step=step, pages=pages)

    def _poke(self, process: int, area: int, page: int, word: int, value: int) -> None:
        chosen = self._area_of(process, area)
        if chosen:
            chosen.poke(page % chosen.pages, 8 * word, value)

    def _advise(self, process: int, area: int, first: int, count: int, advice: int) -> None:
        found = self._pages_of(process, area, first, count)
        if found:
            chosen, pages = found
            chosen.advise(ADVICES[advice], pages)

    def _free(self, process: int, area: int, first: int, count: int, key: int) -> None:
        """MADV_FREE, and a write to each page: what they hold in between nobody knows.

        Not of pages that are shared by fork: of what was read in from zram, Linux 6.1 and 6.12 lose the others'
        (docs/fuzzing.md).
        """
        found = self._pages_of(process, area, first, count)
        if found and not self._shared_by_fork(*found):
            chosen, pages = found
            chosen.advise(Advice.FREE, pages)
            chosen.fill(Kind.FILLED, key, step=1, pages=pages)

    def _protect(self, process: int, area: int, first: int, count: int, how: int) -> None:
        """For the length of a pass nobody may write, or do anything, there."""
        found = self._pages_of(process, area, first, count)
        if found:
            chosen, pages = found
            chosen.protect(PROT_READ if how else 0, pages)
            self._pass(1)
            chosen.protect(PROT_READ | PROT_WRITE, pages)

    def _lock(self, process: int, area: int, first: int, count: int, on: int) -> None:
        found = self._pages_of(process, area, first, count)
        if found:
            chosen, pages = found
            number = Syscall.MLOCK if on else Syscall.MUNLOCK
            chosen.process.syscall(number, chosen.address(pages.start), len(pages) * PAGE_BYTES)

    def _any(self, process: int, on: int) -> None:
        chosen = self._process_of(process)
        if chosen:
            chosen.merge_any(bool(on))

    def _tune(self, file: int, value: int) -> None:
        name, values = TUNABLES[file]
        try:
            self.guest.write(KSM + name, str(values[value]))
        except GuestFileError as error:
            # What keys mean cannot change while pages are merged.
            if error.errno != errno.EBUSY or name not in ("max_page_sharing", "merge_across_nodes"):
                raise

    def _run(self, value: int) -> None:
        self.guest.write(KSM + "run", str(value), timeout=PASS_TIMEOUT)

    def _pass(self, count: int) -> None:
        """Wait for passes, where they are made."""
        scans = self._scans()
        deadline = time.monotonic() + PASS_TIMEOUT
        while self.guest.read(KSM + "run") == "1" and self.work.processes and self._scans() < scans + count:
            if not any(area.model.mergeable.any() for area in self.work.areas):
                return
            if time.monotonic() > deadline:
                raise CheckFailed(f"no {count} passes in {PASS_TIMEOUT:.0f} s", where=KSM + "full_scans")
            time.sleep(0.02)

    def _scans(self) -> int:
        return int(self.guest.read(KSM + "full_scans"))

    def _compact(self) -> None:
        self.guest.write("/proc/sys/vm/compact_memory", "1", timeout=PASS_TIMEOUT)

    def _reclaim(self, mib: int) -> None:
        try:
            self.guest.write("/sys/fs/cgroup/memory.reclaim", f"{mib}M", timeout=PASS_TIMEOUT)
        except GuestFileError as error:
            if error.errno != errno.EAGAIN:
                raise

    def _swap(self, on: int) -> None:
        if bool(on) != self._swapping:
            set_zram(self.guest, on=bool(on))
            self._swapping = bool(on)

    def _move(self, process: int, area: int, first: int, count: int, node: int) -> None:
        found = self._pages_of(process, area, first, count)
        if found:
            chosen, pages = found
            moved = chosen.move_to_node(node, pages)
            assert np.isin(
                -moved[moved < 0], [errno.ENOENT, errno.EBUSY, errno.EFAULT, errno.EINVAL, errno.ENODEV]
            ).all()

    def _hotplug(self, block: int) -> None:
        """Take a block of movable memory away, the first from a certain one on that goes, and give it back."""
        moved = self.guest.run(["sh", "-c", _HOTPLUG, "sh", str(block)], timeout=PASS_TIMEOUT)
        self.blocks_moved += bool(moved.text)

    def _reload(self) -> None:
        self.guest.rmmod(self.module.name)
        self.guest.insmod(self.module.ko)
        self._reset_tunables()

    def _become(self, process: int, user: int) -> None:
        """Only root becomes another one, and never root again."""
        chosen = self._process_of(process)
        if chosen:
            chosen.syscall(Syscall.SETRESUID, *[USERS[user]] * 3)

    def _enter(self, process: int, group: int) -> None:
        chosen = self._process_of(process)
        if chosen:
            self._tenants.enter(chosen.pid, group)

    def _share(self, group: int, how: int) -> None:
        self._tenants.share(group, how)

    def _choose(self, process: int, name: int) -> None:
        chosen = self._process_of(process)
        if chosen:
            self._tenants.choose(chosen.pid, name)

    def _common(self, on: int, key: int) -> None:
        self._tenants.common(key if on else None)

    # Setting up.

    def _prepare(self) -> None:
        if self.guest.read_files(["/sys/module/samepage/version"])["/sys/module/samepage/version"] is None:
            self.guest.insmod(self.module.ko)
        make_zram(self.guest)
        self._swap(on=True)

    def _reset_tunables(self) -> None:
        self.guest.write(KSM + "run", "2", timeout=PASS_TIMEOUT)
        for name, value in (
            ("pages_to_scan", 100000),
            ("sleep_millisecs", 1),
            ("use_zero_pages", 0),
            ("smart_scan", 0),
            ("max_page_sharing", 256),
            ("stable_node_chains_prune_millisecs", 2000),
            ("merge_across_nodes", 1),
            ("../samepage/huge_min_twins", 64),
            ("../samepage/threads", 1),
            ("../samepage/reserve_percent", 0),
            ("../samepage/timing_safe", 0),
            ("../samepage/domain_cgroup_level", 0),
            ("../samepage/domain_by", "user"),
            ("run", 1),
        ):
            self.guest.write(KSM + name, str(value))
        self._tenants.reset()
