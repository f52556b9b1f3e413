# SPDX-License-Identifier: MIT
"""The gate that every command passes: what the kernel logged up to its end belongs to it, and a complaint fails it.

After a command the agent writes a mark into the kernel log. Lines on the serial console before the mark are the
command's. A mark that does not arrive means that nobody knows what the kernel said, and fails the command too.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from harness.guest.channel import Deadline
from harness.guest.errors import KernelLogUnreadable, KernelSplat, SplatMissing
from harness.guest.splats import Splat, find_splats, is_dropped

MARK_TIMEOUT = 30.0
"""Seconds that a mark may take to the serial console."""
SETTLE_TIMEOUT = 3.0
"""Seconds that the rest of a report may take which another CPU is still printing when the mark arrives."""
MAX_PENDING_LINES = 200_000
_COMMAND_SHOWN = 120
_PATIENCE = 0.5
"""Seconds between looks for a mark where no line comes."""
_SETTLE_SECONDS = 0.1


@dataclass
class Expectation:
    """A complaint that a test provokes on purpose."""

    pattern: re.Pattern[str]
    seen: list[Splat] = field(default_factory=list)


class LogGate:
    """Reads the kernel log of one guest as it comes over the serial console."""

    def __init__(
        self,
        mark: Callable[[str, float], bool],
        unreadable: Callable[[str, str], Exception] = lambda command, why: KernelLogUnreadable(why, where=command),
        timeout_factor: float = 1.0,
        nudge: Callable[[float], None] = lambda timeout: None,
        nonce: str | None = None,
    ) -> None:
        """Be ready for lines.

        `mark(line, timeout)` writes a line into the guest's kernel log; False when the guest does not answer.
        `unreadable(command, why)` makes the error for a log that cannot be read; it may know a better reason.
        `nudge(timeout)` lets a guest go on that does not by itself, while its log is waited for.
        `nonce` is in each mark; a random one when not given.
        """
        self._mark = mark
        self._unreadable = unreadable
        self._factor = timeout_factor
        self._nudge = nudge
        self._nonce = nonce or secrets.token_hex(4)
        self._count = 0
        self._changed = threading.Condition()
        self._checking = threading.RLock()
        self._lines: list[str] = []
        self._ended = False
        self._overflowed = False
        self._expectations: list[Expectation] = []
        self._running: list[str] = []
        self.splats: list[Splat] = []
        """Every complaint so far, the expected ones among them."""
        self.unreadable = False
        """Whether a check had to fail because the log did not come."""

    # What the console's thread calls.

    def feed(self, lines: Sequence[str]) -> None:
        """Take the next whole lines of the console."""
        with self._changed:
            self._lines += lines
            if len(self._lines) > MAX_PENDING_LINES:
                self._overflowed = True
                del self._lines[:-MAX_PENDING_LINES]
            self._changed.notify_all()

    def end(self) -> None:
        """Learn that the console is gone."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # What commands call.

    def begin(self, command: str) -> None:
        """Note that a command runs: a complaint names all that ran at that time."""
        with self._changed:
            self._running.append(command)

    def check(self, command: str) -> None:
        """Read the log up to now for `command`, which has ended.

        Raises KernelSplat when the kernel complained since the last check, KernelLogUnreadable when nobody knows.
        """
        with self._checking:
            others = self._end_command(command)
            self._judge(command, self._read_to_mark(command), others)

    def drain(self, command: str) -> list[Splat]:
        """Judge what is left of the log of a guest that has died; return its complaints, all of them unexpected."""
        with self._checking:
            self._end_command(command)
            with self._changed:
                lines, self._lines = self._lines, []
            splats = [replace(splat, command=command) for splat in find_splats(lines)[0]]
            self.splats += splats
            return splats

    @contextmanager
    def expect(self, pattern: str) -> Iterator[Expectation]:
        """Let complaints with a line that matches `pattern` pass inside the block.

        Raises SplatMissing at the end of the block when the kernel did not complain so.
        """
        with self.allow(pattern) as expectation:
            yield expectation
        if not expectation.seen:
            raise SplatMissing(f"the kernel was expected to report {pattern!r} and did not")

    @contextmanager
    def allow(self, pattern: str) -> Iterator[Expectation]:
        """Let complaints with a line that matches `pattern` pass inside the block, if there are any."""
        expectation = Expectation(re.compile(pattern))
        with self._changed:
            self._expectations.append(expectation)
        try:
            yield expectation
        finally:
            with self._changed:
                self._expectations.remove(expectation)

    def _fail(self, command: str, why: str) -> Exception:
        self.unreadable = True
        return self._unreadable(command, why)

    def _end_command(self, command: str) -> list[str]:
        with self._changed:
            if command in self._running:
                self._running.remove(command)
            return list(self._running)

    def _read_to_mark(self, command: str) -> list[str]:
        """Have a mark written and return the lines before it."""
        self._count += 1
        mark = f"samepage-mark {self._nonce}-{self._count}"
        timeout = MARK_TIMEOUT * self._factor
        shown = command[:_COMMAND_SHOWN].encode("ascii", "replace").decode()
        # Without the newline the kernel keeps the record open for more, and the console never gets it.
        if not self._mark(f"<6>{mark}: {shown}\n", timeout):
            raise self._fail(command, f"the guest did not write a mark into its log within {timeout:.0f} s")
        deadline = Deadline(timeout)
        while True:
            with self._changed:
                at = next((i for i, line in enumerate(self._lines) if mark + ":" in line), None)
                if at is not None:
                    lines, self._lines = self._lines[:at], self._lines[at + 1 :]
                    return lines
                if self._ended or deadline.passed:
                    break
                self._changed.wait(min(deadline.left(), _PATIENCE))
            self._nudge(deadline.left())
        gone = "it is gone" if self._ended else f"not within {timeout:.0f} s"
        raise self._fail(command, f"the mark after this command did not come over the serial console: {gone}")

    def _judge(self, command: str, lines: list[str], others: list[str]) -> None:
        splats, unfinished = find_splats(lines)
        looks = round(SETTLE_TIMEOUT * self._factor / _SETTLE_SECONDS)
        while unfinished and (looks := looks - 1) >= 0:
            self._nudge(SETTLE_TIMEOUT * self._factor)
            threading.Event().wait(_SETTLE_SECONDS)
            more = self._read_to_mark(command)
            if not more:
                break
            lines += more
            splats, unfinished = find_splats(lines)
        splats = [self._sort(replace(splat, command=command)) for splat in splats]
        self.splats += splats
        unexpected = [splat for splat in splats if not splat.expected]
        if unexpected:
            hint = "Running at the same time: " + "; ".join(others[:8]) if others else None
            raise KernelSplat(command, unexpected, hint)
        if self._overflowed or any(is_dropped(line) for line in lines):
            self._overflowed = False
            raise self._fail(command, "the console has lost messages of the kernel's")

    def _sort(self, splat: Splat) -> Splat:
        """Mark a complaint as expected when a test has said so."""
        with self._changed:
            for expectation in self._expectations:
                if any(expectation.pattern.search(line) for line in splat.lines):
                    splat = replace(splat, expected=True)
                    expectation.seen.append(splat)
        return splat
