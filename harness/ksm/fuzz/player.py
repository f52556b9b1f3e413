# SPDX-License-Identifier: MIT
"""Playing steps in a guest: after each one every page of every process is compared, and the module checks itself.

The model is memwork's oracle. What a step may be refused for (another mapping's flags, no memory to collapse into ...)
is no fault, and changes nothing in the model.
"""

from __future__ import annotations

import dataclasses
import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from types import TracebackType

import numpy as np

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.guest.leaks import check_left_behind, knows_leaks
from harness.guest.snapshot import start_guest
from harness.guest.spec import GuestSpec
from harness.guest.swap import drop_zram, make_zram, set_zram
from harness.image import ensure_image
from harness.ksm import checker
from harness.ksm.content import Kind
from harness.ksm.counters import KSM
from harness.ksm.fuzz import tunables
from harness.ksm.fuzz.pieces import cut_out
from harness.ksm.fuzz.steps import Step
from harness.ksm.fuzz.tenants import USERS, Tenants
from harness.ksm.link import WorkError
from harness.ksm.memwork import work_in
from harness.ksm.oracle import ABSENT
from harness.ksm.processes import (
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_READ,
    PROT_WRITE,
    Advice,
    Area,
    Process,
    Syscall,
)
from harness.ksm.protocol import PAGE_BYTES
from harness.module.build import BuiltModule, build_module

MAX_PROCESSES = 6
MAX_PAGES = 2000
"""Of a process."""
PASS_TIMEOUT = 180.0
"""Seconds for the passes of one step: the advisor and the governor may make them slow."""
WAIT_TIMEOUT = 60.0
"""Seconds for the kernel to do what it is told."""
SPEC = GuestSpec(memory_mib=1024, cpus=2, numa_nodes=2, append=("movablecore=512M",))
"""Of the guest that steps are made for: two nodes to move between, and memory that can be taken away."""
LOCKSTEP = dataclasses.replace(SPEC, lockstep=True, memory_mib=1536)
"""The same, whose failures repeat to the last instruction; with room for the content of its disks."""

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


class Outcome(StrEnum):
    """What came of a step."""

    DONE = "done"
    REFUSED = "refused"
    """Linux or the module said no, to all of it or to a part."""
    IDLE = "idle"
    """There was nothing that it could be done to, or all was so already."""


class _Without(Exception):
    """A step was not done."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def fresh_player(
    config: Config,
    module: BuiltModule,
    folder: Path,
    make: Callable[[Guest, BuiltModule], Player] | None = None,
    spec: GuestSpec = SPEC,
) -> Player:
    """Start a guest of its own for a player; both are the caller's to end. The guest's console is in `folder`."""
    guest = start_guest(config, ensure_image(config, config.kernel), spec, folder)
    try:
        return (make or Player)(guest, module)
    except BaseException:
        with suppress(CheckFailed):
            guest.close()
        raise


@contextmanager
def start_player(config: Config, folder: Path, spec: GuestSpec = SPEC) -> Iterator[Player]:
    """Build what is not built yet, and end the guest afterwards; its console is in `folder`."""
    ensure_image(config, config.kernel)  # says what it does first
    player = fresh_player(config, build_module(config, config.module, config.kernel), folder, spec=spec)
    with player.guest, player:
        yield player


class Player:
    """A guest with the module loaded and swap, and what the steps so far made of it."""

    def __init__(self, guest: Guest, module: BuiltModule) -> None:
        self.guest = guest
        self.module = module
        self.played: list[Step] = []
        """Since the begin of the script."""
        self.outcomes: Counter[tuple[str, Outcome]] = Counter()
        """How often each kind of step ended how, in all scripts."""
        self.pages_compared = 0
        self.failed = False
        """Something was wrong, and may be yet: no other script is to be played here."""
        self._swapping = False
        loaded = self._prepare()
        self._tenants = Tenants(guest, pristine=loaded)
        self.work = work_in(guest)
        self._reset()

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.failed:
            self.give_up()
            return
        self.work.__exit__(kind, error, trace)
        if self.guest.healthy:
            self._set_swap(on=False)
            drop_zram(self.guest)
            if kind is None and knows_leaks(self.guest):
                check_left_behind(self.guest, self.module.name)

    def give_up(self) -> None:
        """End the guest; what else is wrong in it nobody needs to know."""
        with suppress(CheckFailed):
            self.guest.close()

    def restart(self) -> None:
        """Forget all processes, and set everything as it is at the begin of a script.

        Raises what `play` raises; `played` is then as it was.
        """
        with self._failing():
            self.work.close()
            self.work = work_in(self.guest)
            self._reset()
            self._set_swap(on=True)
            self._check()
        self.played.clear()

    def play(self, step: Step) -> Outcome:
        """Carry out a step, then check everything. Raises CheckFailed (content, module, kernel) for what is wrong."""
        self.played.append(step)
        with self._failing():
            outcome = self._do(step)
            self._check()
        self.outcomes[step.name, outcome] += 1
        return outcome

    def _do(self, step: Step) -> Outcome:
        do: Callable[..., None] = getattr(self, f"_{step.name}")
        try:
            do(*step.numbers)
        except _Without as without:
            return without.outcome
        except WorkError as error:
            if error.errno not in _REFUSALS:
                raise
            return Outcome.REFUSED
        return Outcome.DONE

    def _check(self) -> None:
        self.pages_compared += self.work.check()
        checker.check(self.guest)
        self._check_zero_pages()

    def _check_zero_pages(self) -> None:
        """Nobody else's are there: of all counters the one that goes down with the page, not with the next visit."""
        zero = self.work.digester.of_bytes(bytes(PAGE_BYTES))
        most = sum(int((area.model.digests(self.work.digester) == zero).sum()) for area in self.work.areas)
        counted = int(self.guest.read(KSM + "ksm_zero_pages"))
        if counted > most:
            raise CheckFailed(f"{counted} of {most} pages that read as zeros", where=KSM + "ksm_zero_pages")

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.failed = True
            raise

    # Finding what a step speaks of. They raise _Without where there is none.

    def _process_of(self, number: int) -> Process:
        processes = self.work.processes
        _need(processes)
        return processes[number % len(processes)]

    def _area_of(self, process: int, area: int) -> Area:
        areas = self._process_of(process).areas
        _need(areas)
        return areas[area % len(areas)]

    def _pages_of(self, process: int, area: int, first: int, count: int) -> tuple[Area, range]:
        chosen = self._area_of(process, area)
        first %= chosen.pages
        return chosen, range(first, min(first + count, chosen.pages))

    def _shared_by_fork(self, chosen: Area, pages: range) -> bool:
        own = chosen.model.frames[pages.start : pages.stop]
        own = own[own != ABSENT]
        return any(np.isin(own, area.model.frames).any() for area in self.work.areas if area is not chosen)

    # The steps.

    def _spawn(self) -> None:
        _need(len(self.work.processes) < MAX_PROCESSES)
        self.work.process()

    def _fork(self, process: int) -> None:
        _need(len(self.work.processes) < MAX_PROCESSES)
        self._process_of(process).fork()

    def _exit(self, process: int) -> None:
        self._process_of(process).exit()

    def _exec(self, process: int) -> None:
        self._process_of(process).exec()

    def _map(self, process: int, pages: int, merge: int, huge: int) -> None:
        chosen = self._process_of(process)
        _need(sum(area.pages for area in chosen.areas) + pages <= MAX_PAGES)
        chosen.map(pages, merge=bool(merge), thp=bool(huge))

    def _unmap(self, process: int, area: int, first: int, count: int, whole: int) -> None:
        chosen, pages = self._pages_of(process, area, first, count)
        if whole:
            pages = range(chosen.pages)
        chosen.process.post_syscall(Syscall.MUNMAP, chosen.address(pages.start), len(pages) * PAGE_BYTES)
        cut_out(chosen, pages)

    def _carry(self, process: int, area: int, first: int, count: int) -> None:
        """Move a part of an area to another address (mremap), where it is an area of its own."""
        chosen, pages = self._pages_of(process, area, first, count)
        size = len(pages) * PAGE_BYTES
        address = chosen.process.reserve(len(pages))
        flags = MREMAP_MAYMOVE | MREMAP_FIXED
        chosen.process.post_syscall(Syscall.MREMAP, chosen.address(pages.start), size, size, flags, address)
        moved = cut_out(chosen, pages)
        moved.address = address
        chosen.process.areas.append(Area(chosen.process, moved))

    def _remap(self, process: int, area: int, pages: int) -> None:
        chosen = self._area_of(process, area)
        try:
            chosen.remap(pages)
        except WorkError:
            # What is to be cut off is unmapped before Linux finds that the rest is more than one mapping.
            if pages < chosen.pages:
                chosen.model = chosen.model.resized(pages)
            raise

    def _fill(self, process: int, area: int, first: int, count: int, kind: int, key: int, step: int) -> None:
        chosen, pages = self._pages_of(process, area, first, count)
        chosen.fill(Kind(kind), key, step=step, pages=pages)

    def _poke(self, process: int, area: int, page: int, word: int, value: int) -> None:
        chosen = self._area_of(process, area)
        chosen.poke(page % chosen.pages, 8 * word, value)

    def _advise(self, process: int, area: int, first: int, count: int, advice: int) -> None:
        chosen, pages = self._pages_of(process, area, first, count)
        _in_parts(pages, lambda some: chosen.advise(ADVICES[advice], some))

    def _free(self, process: int, area: int, first: int, count: int, key: int) -> None:
        """MADV_FREE, and a write to each page: what they hold in between nobody knows.

        Not of pages that are shared by fork: of what was read in from zram, Linux 6.1 and 6.12 lose the others'
        (docs/fuzzing.md).
        """
        chosen, pages = self._pages_of(process, area, first, count)
        _need(not self._shared_by_fork(chosen, pages))

        def free(some: range) -> None:
            chosen.advise(Advice.FREE, some)
            chosen.fill(Kind.FILLED, key, step=1, pages=some)

        _in_parts(pages, free)

    def _protect(self, process: int, area: int, first: int, count: int, how: int) -> None:
        """For the length of a pass nobody may write, or do anything, there."""
        chosen, pages = self._pages_of(process, area, first, count)
        chosen.protect(PROT_READ if how else 0, pages)
        self._wait_passes(1)
        chosen.protect(PROT_READ | PROT_WRITE, pages)

    def _lock(self, process: int, area: int, first: int, count: int, on: int) -> None:
        chosen, pages = self._pages_of(process, area, first, count)
        number = Syscall.MLOCK if on else Syscall.MUNLOCK
        chosen.process.syscall(number, chosen.address(pages.start), len(pages) * PAGE_BYTES)

    def _any(self, process: int, on: int) -> None:
        self._process_of(process).merge_any(bool(on))

    def _tune(self, file: int, value: int) -> None:
        _accept(tunables.tune(self.guest, file, value))

    def _run(self, value: int) -> None:
        _need(self.guest.read(KSM + "run") != str(value))
        self.guest.write(KSM + "run", str(value), timeout=WAIT_TIMEOUT)

    def _pass(self, count: int) -> None:
        _need(self._wait_passes(count))

    def _wait_passes(self, count: int) -> bool:
        """Wait for passes; return whether they are made."""
        scans = self._scans()
        timeout = PASS_TIMEOUT * self.guest.timeout_factor
        deadline = time.monotonic() + timeout
        while self.guest.read(KSM + "run") == "1" and any(area.model.mergeable.any() for area in self.work.areas):
            if self._scans() >= scans + count:
                return True
            if time.monotonic() > deadline:
                raise CheckFailed(f"no {count} passes in {timeout:.0f} s", where=KSM + "full_scans")
            self.guest.pause(0.02)
        return False

    def _scans(self) -> int:
        return int(self.guest.read(KSM + "full_scans"))

    def _compact(self) -> None:
        self.guest.write("/proc/sys/vm/compact_memory", "1", timeout=WAIT_TIMEOUT)

    def _reclaim(self, mib: int) -> None:
        try:
            self.guest.write("/sys/fs/cgroup/memory.reclaim", f"{mib}M", timeout=WAIT_TIMEOUT)
        except GuestFileError as error:
            if error.errno != errno.EAGAIN:
                raise
            _accept(False)  # there was less

    def _swap(self, on: int) -> None:
        _need(self._set_swap(on=bool(on)))

    def _move(self, process: int, area: int, first: int, count: int, node: int) -> None:
        chosen, pages = self._pages_of(process, area, first, count)
        moved = chosen.move_to_node(node, pages)
        assert np.isin(-moved[moved < 0], [errno.ENOENT, errno.EBUSY, errno.EFAULT, errno.EINVAL, errno.ENODEV]).all()
        _accept((moved >= 0).any())

    def _hotplug(self, block: int) -> None:
        """Take a block of movable memory away, the first from a certain one on that goes, and give it back."""
        _accept(self.guest.run(["sh", "-c", _HOTPLUG, "sh", str(block)], timeout=WAIT_TIMEOUT).text)

    def _reload(self) -> None:
        self.guest.rmmod(self.module.name)
        self.guest.insmod(self.module.ko)
        self._reset()

    def _become(self, process: int, user: int) -> None:
        """Only root becomes another one, and never root again."""
        self._process_of(process).syscall(Syscall.SETRESUID, *[USERS[user]] * 3)

    def _enter(self, process: int, group: int) -> None:
        self._tenants.enter(self._process_of(process).pid, group)

    def _share(self, group: int, how: int) -> None:
        _need(self._tenants.share(group, how))

    def _choose(self, process: int, name: int) -> None:
        _need(self._tenants.choose(self._process_of(process).pid, name))

    def _common(self, on: int, key: int) -> None:
        self._tenants.common(key if on else None)

    # Setting up.

    def _prepare(self) -> bool:
        """Return whether the module was not there yet."""
        absent = self.guest.read_files(["/sys/module/samepage/version"])["/sys/module/samepage/version"] is None
        if absent:
            self.guest.insmod(self.module.ko)
        make_zram(self.guest)
        self._set_swap(on=True)
        return absent

    def _set_swap(self, *, on: bool) -> bool:
        """Return whether it was not so already."""
        changed = on != self._swapping
        if changed:
            set_zram(self.guest, on=on)
            self._swapping = on
        return changed

    def _reset(self) -> None:
        tunables.reset(self.guest, WAIT_TIMEOUT)
        self._tenants.reset()


def _in_parts(pages: range, do: Callable[[range], None]) -> None:
    """Do it to all pages, or to each that lets itself be done it to: Linux stops at the first mapping that is locked.

    Raises WorkError in the latter case.
    """
    try:
        do(pages)
    except WorkError:
        for page in pages:
            with suppress(WorkError):
                do(range(page, page + 1))
        raise


def _need(there: object) -> None:
    """A step needs something that is not there."""
    if not there:
        raise _Without(Outcome.IDLE)


def _accept(taken: object) -> None:
    """A step was tried."""
    if not taken:
        raise _Without(Outcome.REFUSED)
