# SPDX-License-Identifier: MIT
"""Pages that do not hold what they must, as a person is to see them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import CheckFailed

SHOWN_BYTES = 16


class ContentError(CheckFailed):
    """Some page of some process does not hold what it must."""


@dataclass(frozen=True)
class Difference:
    """One page that differs."""

    process: str
    pid: int
    page: int
    address: int
    expected: bytes
    found: bytes

    @property
    def offsets(self) -> list[int]:
        """Offsets in the page at which it differs; none if it was right when it was read a second time."""
        return [at for at, (want, got) in enumerate(zip(self.expected, self.found, strict=True)) if want != got]

    def __str__(self) -> str:
        place = f"process {self.process!r} (pid {self.pid}), page {self.page} at {self.address:#x}"
        offsets = self.offsets
        if not offsets:
            return f"{place}: its digest was wrong, but its bytes were right when they were read again"
        first = offsets[0]
        part = slice(first, first + SHOWN_BYTES)
        return (
            f"{place}, offset {first}: {len(offsets)} wrong bytes, "
            f"expected {self.expected[part].hex(' ')}, found {self.found[part].hex(' ')}"
        )


def describe(wrong: int, shown: list[Difference]) -> str:
    """Say which pages are wrong, in as many lines as are `shown`."""
    lines = [f"{wrong} page{'' if wrong == 1 else 's'} with wrong content:", *(f"  {one}" for one in shown)]
    if wrong > len(shown):
        lines.append(f"  and {wrong - len(shown)} more")
    return "\n".join(lines)
