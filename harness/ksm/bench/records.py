# SPDX-License-Identifier: MIT
"""What the measuring guest said: one line `LABEL NAME=NUMBER ...` a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import CheckFailed


@dataclass(frozen=True)
class Record:
    """One reading, or the figures of one operation. Times are the guest's ns, which are instructions."""

    label: str
    values: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    @property
    def saved(self) -> int:
        """Pages that need no frame of their own."""
        return self["ksm.pages_sharing"] + self.values.get("ksm.ksm_zero_pages", 0)

    @property
    def in_trees(self) -> int:
        """Mappings of merged pages: those that share, and of each merged page the one that it would need anyway."""
        return self.saved + self["ksm.pages_shared"]


def parse(text: str) -> list[Record]:
    """Read the records of a case. Raises CheckFailed for what is none."""
    records = []
    for line in text.splitlines():
        try:
            label, *fields = line.split()
            records.append(Record(label, {name: int(value) for name, _, value in (f.partition("=") for f in fields)}))
        except ValueError as error:
            raise CheckFailed(f"no record of the guest's: {line}") from error
    return records


def labelled(records: list[Record], label: str) -> list[Record]:
    """Return the records with this label."""
    return [record for record in records if record.label == label]
