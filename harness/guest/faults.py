# SPDX-License-Identifier: MIT
"""Allocations that fail where one wants them to: fault injection of a debug kernel, by who is on the stack.

https://docs.kernel.org/fault-injection/fault-injection.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.guest.guest import Guest

_DEBUGFS = "/sys/kernel/debug/"
KINDS = ("failslab", "fail_page_alloc")
_SETTINGS = {
    "failslab": {"ignore-gfp-wait": "N", "verbose": "0"},
    "fail_page_alloc": {"ignore-gfp-wait": "N", "ignore-gfp-highmem": "N", "min-order": "0", "verbose": "0"},
}
_MANY = 1_000_000
_STACK_DEPTH = 32


@dataclass
class Failures:
    """How many allocations were failed; known when the block that they were failed in has ended."""

    of: dict[str, int] = field(default_factory=dict)
    """By kind."""

    @property
    def count(self) -> int:
        """All of them."""
        return sum(self.of.values())


def module_functions(guest: Guest, name: str) -> dict[str, range]:
    """Return the addresses of each function of a loaded module; of equal names, the last one's."""
    lines = guest.run(["grep", "-F", f"[{name}]", "/proc/kallsyms"]).text.splitlines()
    symbols = sorted((int(words[0], 16), words[2]) for words in map(str.split, lines) if words[1] in "tT")
    ends = [address for address, _ in symbols[1:]] + [symbols[-1][0] + 4096]
    return {symbol: range(address, end) for (address, symbol), end in zip(symbols, ends, strict=True) if end > address}


def module_code(guest: Guest, name: str) -> range:
    """Return the addresses of all of a loaded module's functions."""
    functions = module_functions(guest, name).values()
    return range(min(one.start for one in functions), max(one.stop for one in functions))


def count_all(guest: Guest) -> None:
    """Have /proc/self/fail-nth count every allocation, those that could wait for memory among them."""
    for kind, settings in _SETTINGS.items():
        _set(guest, kind, settings)


def _set(guest: Guest, kind: str, settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        guest.write(f"{_DEBUGFS}{kind}/{name}", value)


@contextmanager
def failing(
    guest: Guest, code: range, *, kinds: Sequence[str] = KINDS, probability: int = 100, interval: int = 1
) -> Iterator[Failures]:
    """Fail allocations below a function in `code`: so many per cent of every `interval`-th one."""
    failures = Failures()
    for kind in kinds:
        settings = _SETTINGS[kind] | {
            "stacktrace-depth": str(_STACK_DEPTH),
            "require-start": hex(code.start),
            "require-end": hex(code.stop),
            "interval": str(interval),
            "times": str(_MANY),
            "probability": str(probability),
        }
        _set(guest, kind, settings)
    try:
        yield failures
    finally:
        for kind in kinds:
            guest.write(f"{_DEBUGFS}{kind}/probability", "0")
            failures.of[kind] = _MANY - int(guest.read(f"{_DEBUGFS}{kind}/times"))
