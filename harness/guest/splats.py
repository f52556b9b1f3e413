# SPDX-License-Identifier: MIT
"""Finding what a kernel complains of in its log: each report from its first line to the end of its trace."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_LINES = 400
"""Lines of one report that are kept; the console's log has all of them."""

_PREFIX = re.compile(r"^.*?\[\s*\d+\.\d{6}\](?:\[\s*[TC]\d+\])? ")
"""A kernel line's time and caller. A shell's prompt may stand before it on a serial line."""

_CUT_HERE = "------------[ cut here ]------------"
_END_TRACE = re.compile(r"^---\[ end (?:trace|Kernel panic)")
_DROPPED = re.compile(r"^\*\* \d+ printk messages dropped \*\*")


@dataclass(frozen=True)
class Kind:
    """How a kind of report begins and, where the kernel says so, ends."""

    name: str
    begins: re.Pattern[str]
    ends: re.Pattern[str] | None = None
    one_line: bool = False


def _kind(name: str, begins: str, ends: str | None = None, *, one_line: bool = False) -> Kind:
    return Kind(name, re.compile(begins), None if ends is None else re.compile(ends), one_line)


_UNKNOWN = _kind("unknown report", "")
"""What stands behind "cut here" without any header that is known."""


# Matched at the start of a message, unless a pattern says otherwise: a driver's name that holds "BUG" is no report.
# The first that matches names the report, so the special ones come first.
KINDS = (
    _kind("panic", r"Kernel panic - not syncing", r"---\[ end Kernel panic"),
    _kind("KASAN", r"BUG: KASAN: ", r"^={20,}$"),
    _kind("KCSAN", r"BUG: KCSAN: ", r"^={20,}$"),
    _kind("KFENCE", r"BUG: KFENCE: ", r"^={20,}$"),
    _kind("UBSAN", r"UBSAN: "),
    _kind("slab corruption", r"BUG \S+ \((?:Not tainted|Tainted)"),
    _kind("kmemleak", r"kmemleak: \d+ new suspected memory leaks", one_line=True),
    _kind("soft lockup", r"(?:watchdog: )?BUG: soft lockup"),
    _kind("workqueue lockup", r"BUG: workqueue lockup"),
    _kind("hard lockup", r"(?:NMI )?(?:watchdog: )?(?:CPU\d+: )?(?:Watchdog detected hard LOCKUP|BUG: hard lockup)"),
    _kind("hung task", r"INFO: task .* blocked for more than \d+ seconds"),
    _kind("RCU stall", r"(?:rcu: )?INFO: rcu\S* (?:self-)?detected (?:expedited )?stalls?"),
    _kind("RCU stall", r"rcu: rcu\S* kthread (?:starved|timer wakeup didn't happen)"),
    _kind("RCU stall", r"INFO: rcu_tasks detected stalls"),
    _kind(
        "lockdep",
        r"WARNING: (?:possible (?:circular|recursive) locking|possible irq lock inversion|inconsistent lock state|"
        r"[A-Z]+-safe -> [A-Z]+-unsafe lock order|bad (?:unlock balance|contention)|suspicious RCU usage|"
        r"Nested lock was not taken|lock held when returning to user space|held lock freed|invalid wait context)",
    ),
    _kind("lockdep", r"(?:\[ )?BUG: (?:Invalid wait context|held lock freed|key \S+ not in|MAX_LOCK\S+ too low)"),
    _kind("refcount", r"refcount_t: "),
    _kind("list corruption", r"list_(?:add|del) corruption"),
    _kind("bad page", r"BUG: (?:Bad rss-counter|non-zero pgtables_bytes)", one_line=True),
    _kind("bad page", r"BUG: Bad (?:page state|page map|page cache|pagetable)"),
    _kind("kernel BUG", r"kernel BUG at "),
    _kind("BUG", r"BUG: "),
    _kind("WARNING", r"WARNING: "),
    _kind("Oops", r"Oops(?::| - )"),
    _kind(
        "Oops",
        r"(?:general protection fault|stack segment|double fault|divide error|invalid opcode|int3|"
        r"traps: PANIC|kernel tried to execute|Unable to handle kernel|bad: scheduling from the idle thread|"
        r"stack guard page was hit|Thread overran stack|PANIC: )[,: ]",
    ),
    _kind("machine check", r"mce: \[Hardware Error\]", one_line=True),
    _kind("sysfs", r"sysfs: cannot create duplicate filename"),
    _kind("kobject", r"kobject: kobject_add_internal failed", one_line=True),
    _kind(
        "OOM killer",
        r".* invoked oom-killer: ",
        r"^(?:Out of memory|Memory cgroup out of memory): Killed process|^Out of memory and no killable processes",
    ),
    _kind("allocation failure", r".*: (?:page allocation (?:failure|stalls)|vmalloc error): "),
    # Whatever prints a trace without one of the headers above is worth a look as well.
    _kind("call trace", r"Call Trace:"),
)

# What still belongs to a report after the end of a trace in it.
_CONTINUATIONS = (
    *(r"\s", "$", r"</?[A-Z]+>", "Call Trace", "Modules linked in", "CPU: ", "Hardware name", "Tainted: "),
    *(r"R[A-Z0-9]{2}: ", "CR[0-9]: ", "[CDEF]S: ", "PKRU: ", r"DR\d: ", "Code: ", r"---\["),
    *(r"Showing all locks", r"\d+ locks? held by", r"#\d+: ", "other info that", "the existing dependency"),
    *("stack backtrace", "NMI backtrace", "Sending NMI", "rcu: ", "INFO: ", "BUG: ", "task:", '"echo 0'),
    *("Mem-Info", r"Node \d", "DMA", "Normal", "=====", "Allocated by", "Freed by", "The buggy address"),
    *("Memory state", "Last potentially", "page: ", "flags: ", "raw: ", "page dumped because"),
    *("Kernel panic", "Kernel Offset", "Rebooting in", "Shutting down cpus", "Dumping ftrace"),
    *("Disabling lock debugging", "note: .* exited with", "Fixing recursive fault"),
)
_CONTINUES = re.compile("|".join(_CONTINUATIONS))


@dataclass(frozen=True)
class Splat:
    """One report of the kernel's."""

    kind: str
    lines: tuple[str, ...]
    command: str = ""
    """During which command it came."""
    expected: bool = False
    """Whether the test had declared it."""

    @property
    def title(self) -> str:
        """The line that names the fault, without its time."""
        return next((message(line) for line in self.lines if classify(message(line)) is not None), self.lines[0])


@dataclass
class _Report:
    kind: Kind = _UNKNOWN
    lines: list[str] = field(default_factory=list)
    trace_ended: bool = False
    closed: bool = False

    def take(self, line: str, text: str) -> None:
        """Take the next line of the log, or find that it does not belong here any more."""
        ends_here = bool(self.lines) and self.kind.ends is not None and self.kind.ends.match(text) is not None
        if self.trace_ended and not ends_here and not _CONTINUES.match(text):
            self.closed = True
            return
        self.lines.append(line)
        self.closed = ends_here or self.kind.one_line
        if text.strip() in ("</TASK>", "</IRQ>") or _END_TRACE.match(text):
            self.trace_ended = self.kind.ends is None or _END_TRACE.match(text) is not None


def message(line: str) -> str:
    """Return a line of the console without the kernel's time and caller."""
    return _PREFIX.sub("", line, count=1)


def classify(text: str) -> Kind | None:
    """Return which kind of report the message begins, None for any other message."""
    return next((kind for kind in KINDS if kind.begins.match(text)), None)


def is_dropped(line: str) -> bool:
    """Whether the line says that the console has lost messages."""
    return _DROPPED.match(message(line)) is not None


def find_splats(lines: Iterable[str]) -> tuple[list[Splat], bool]:
    """Return the reports in these lines, and whether the last of them still goes on where the lines end."""
    reports: list[_Report] = []
    for line in lines:
        text = message(line)
        current = reports[-1] if reports and not reports[-1].closed else None
        kind = classify(text)
        if text == _CUT_HERE:
            current = _Report()
            reports.append(current)
        elif kind is not None and (current is None or _begins_anew(current, kind)):
            current = _Report(kind)
            reports.append(current)
        elif kind is not None and current is not None and current.kind is _UNKNOWN:
            current.kind = kind
        if current is not None:
            current.take(line, text)
    splats = [Splat(report.kind.name, tuple(report.lines[:MAX_LINES])) for report in reports]
    return splats, bool(reports) and not (reports[-1].closed or reports[-1].trace_ended)


def _begins_anew(current: _Report, kind: Kind) -> bool:
    """Whether a header begins a report of its own, or belongs to the one that is open."""
    # An Oops explains a BUG, and a panic ends either: one event, one report.
    return current.trace_ended and kind.name not in ("call trace", "Oops", "panic", "RCU stall")
