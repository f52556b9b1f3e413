# SPDX-License-Identifier: MIT
"""Names of kernel addresses: the kernel's from /proc/kallsyms of one boot without KASLR, the module's from each run."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.config import Config
from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.guest.spec import GuestSpec
from harness.image import Image
from harness.progress import step
from harness.store import built_folder

UNKNOWN = "[unknown]"
# Parts that the compiler split off a function, or made of it, are counted as the function.
_SPLIT_OFF = re.compile(r"\.(?:cold|part|constprop|isra|lto_priv|llvm)\b.*")
_ENTRIES = re.compile(r"asm_(?:sysvec|exc|common|spurious)_\w+\Z")


@dataclass(frozen=True)
class Symbols:
    """Functions by their first address."""

    functions: tuple[tuple[int, str], ...]
    """Sorted."""

    @cached_property
    def _starts(self) -> list[int]:
        return [address for address, _ in self.functions]

    def name(self, address: int) -> str:
        """Return the function that an address lies in."""
        at = bisect.bisect_right(self._starts, address) - 1
        return UNKNOWN if at < 0 else _SPLIT_OFF.sub("", self.functions[at][1])

    def address(self, name: str) -> int:
        """Return a function's address. Raises CheckFailed where there is none of that name."""
        for address, candidate in self.functions:
            if candidate == name:
                return address
        raise CheckFailed(f"the kernel has no function {name}")

    def interrupt_entries(self) -> list[int]:
        """Return where the kernel's handling of interrupts and exceptions begins."""
        return [address for address, name in self.functions if _ENTRIES.match(name)]

    def with_more(self, more: Iterable[tuple[int, str]]) -> Symbols:
        """Return these and more functions (the module's)."""
        return make_symbols([*self.functions, *more])


def make_symbols(functions: Iterable[tuple[int, str]]) -> Symbols:
    """Sort functions; of several names of an address one is taken, the same every time."""
    names: dict[int, str] = {}
    for address, name in sorted(functions, key=lambda item: (item[0], item[1].startswith("__pfx_"), item[1])):
        names.setdefault(address, name)
    return Symbols(tuple(sorted(names.items())))


def parse_kallsyms(text: str) -> Symbols:
    """Read the kernel's own functions from /proc/kallsyms. Raises CheckFailed where addresses are hidden."""
    rows = [line.split() for line in text.splitlines()]
    functions = [(int(row[0], 16), row[2]) for row in rows if len(row) == 3 and row[1] in "tTwW"]
    if not any(address for address, _ in functions):
        raise CheckFailed("shows no addresses", where="/proc/kallsyms")
    return make_symbols(functions)


def kernel_symbols(config: Config, image: Image) -> Symbols:
    """Return the functions of an image's kernel; it is booted once to ask for them."""

    def build(partial: Path) -> None:
        with step(f"Asking Linux {image.release} for its symbols"):
            spec = GuestSpec(memory_mib=512, cpus=1, append=("nokaslr",))
            with Guest.start(config, image, spec, partial) as guest:
                text = guest.read("/proc/kallsyms")
        (partial / "kallsyms").write_text(text, "ascii")

    folder = built_folder(config.cache / "symbols" / f"{image.release}-{image.sha256[:16]}", build, keep=3)
    return parse_kallsyms((folder / "kallsyms").read_text("ascii"))
