# SPDX-License-Identifier: MIT
"""The counters over time: a row for each reading, in counters.csv as soon as it is taken."""

from __future__ import annotations

import csv
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SamepageError
from harness.ksm.counters import CounterReader, Counters


@dataclass(frozen=True)
class Sample:
    """One reading during a run."""

    seconds: float
    """Guest time since the first reading."""
    phase: str
    counters: Counters


class Series:
    """Takes the readings of a run and writes them down."""

    def __init__(self, path: Path, reader: CounterReader, observe: Callable[[Sample], None]) -> None:
        """`observe` is told of each reading (a live display, for one)."""
        self.samples: list[Sample] = []
        self.phase = "start"
        self.reader = reader
        self.processes: Callable[[], Iterable[int]] = lambda: ()
        """Process ids whose own counters belong to a reading."""
        self._observe = observe
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._columns: list[str] = []
        self._lock = threading.Lock()

    def take(self) -> Sample:
        """Read the counters now."""
        with self._lock:
            return self._take()

    def take_after(self, seconds: float) -> Sample:
        """Wait, then read the counters."""
        time.sleep(seconds)
        return self.take()

    @contextmanager
    def sampling(self, every: float) -> Iterator[None]:
        """Take readings every so many seconds while the caller does something else."""
        over = threading.Event()
        failures: list[SamepageError] = []

        def sample() -> None:
            try:
                while not over.wait(every):
                    self.take()
            except SamepageError as error:
                failures.append(error)

        thread = threading.Thread(target=sample, name="counters", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failures:
            raise failures[0]

    def _take(self) -> Sample:
        counters = self.reader.read(self.processes())
        begun = self.samples[0].counters.uptime if self.samples else counters.uptime
        sample = Sample(round(counters.uptime - begun, 3), self.phase, counters)
        if not self.samples:
            self._columns = sorted(counters.values)
            self._rows.writerow(["seconds", "phase", *self._columns])
        self.samples.append(sample)
        self._rows.writerow([sample.seconds, sample.phase, *(counters.values.get(name, "") for name in self._columns)])
        self._file.flush()
        self._observe(sample)
        return sample

    def milestones(self, phase: str, pages: int) -> dict[str, float]:
        """Return how many seconds into a phase 50, 90, 95, 99 and 100 percent of `pages` were saved first."""
        samples = [sample for sample in self.samples if sample.phase == phase]
        reached = {}
        for percent in (50, 90, 95, 99, 100):
            for sample in samples:
                if sample.counters.saved_pages * 100 >= pages * percent:
                    reached[str(percent)] = round(sample.seconds - samples[0].seconds, 3)
                    break
        return reached

    def close(self) -> None:
        """Finish counters.csv."""
        self._file.close()


def read_series(path: Path) -> list[tuple[float, str, dict[str, int]]]:
    """Return (seconds, phase, counters) of each row of a counters.csv. Raises SamepageError for what is none."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        return [_row(dict(zip(rows[0], cells, strict=True))) for cells in rows[1:]]
    except (OSError, KeyError, ValueError, csv.Error) as error:  # ValueError: more or fewer cells than names, as well
        raise SamepageError(f"is no counters.csv of a run: {error}", where=path) from error


def _row(cells: dict[str, str]) -> tuple[float, str, dict[str, int]]:
    seconds, phase = float(cells.pop("seconds")), cells.pop("phase")
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} seconds")
    return seconds, phase, {name: int(value) for name, value in cells.items() if value}
