# SPDX-License-Identifier: MIT
"""What virtual machines' data must be and what merging must save of them, computed on the host."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from harness.errors import SamepageError
from harness.ksm import workload
from harness.ksm.content import Digester, Kind, page_bytes
from harness.ksm.machine import DIGEST_PAGES, Machine
from harness.ksm.machinedata import MachineData, file_digest, fold, least_saved
from harness.ksm.workload import Machines, Synthetic

DIGESTER = Digester(11)
SMALL = Machines(description="x", count=3, memory_mib=103, kernel_mib=96, same=50, zero=25)
PAGES = 256


def one_by_one(pages: list[bytes | bytearray]) -> int:
    """As images/nested/init.c does it."""
    total = 0
    for page in pages:
        total = (total * 0x100000001B3 + DIGESTER.of_bytes(page)) % 2**64
    return total


def test_digests_are_those_of_the_pages_in_order() -> None:
    data = MachineData(SMALL, 1, 2)
    assert data.pages == PAGES
    pages = [page_bytes(run.kind, run.key + page) for run in data.filling for page in range(run.count)]
    assert len(pages) == PAGES
    assert data.digest(DIGESTER, 0, PAGES) == one_by_one(list(pages))
    assert data.digest(DIGESTER, 100, 31) == one_by_one(list(pages[100:131]))
    assert one_by_one([pages[1], pages[0]]) != one_by_one([pages[0], pages[1]])
    assert fold(np.empty(0, np.uint64)) == 0


def test_a_change_is_in_the_model() -> None:
    data, other = MachineData(SMALL, 1, 0), MachineData(SMALL, 1, 1)
    before = data.digest(DIGESTER, 0, PAGES)
    alike, own = data.change(1)
    other_alike, other_own = other.change(1)
    assert (alike.count, own.first, own.count) == (8, 8, 8)
    assert alike == other_alike
    assert own.key != other_own.key
    assert data.digest(DIGESTER, 0, PAGES) != before
    assert data.digest(DIGESTER, 15, 1) == one_by_one([page_bytes(Kind.FILLED, own.key + 7)])
    assert data.digest(DIGESTER, 16, 48) == MachineData(SMALL, 1, 0).digest(DIGESTER, 16, 48)


def test_files_are_read_in_pages(tmp_path: Path) -> None:
    content = bytes(range(256)) * 17
    (tmp_path / "file").write_bytes(content)
    padded = content + bytes(2 * 4096 - len(content))
    assert file_digest(DIGESTER, tmp_path / "file") == (one_by_one([padded[:4096], padded[4096:]]), 2)


def test_what_the_data_alone_save() -> None:
    machines = [MachineData(SMALL, 1, number) for number in range(3)]
    # 128 pages alike in three machines, 3 * 64 zero pages, which share one.
    assert least_saved(machines, DIGESTER, max_page_sharing=256).saved == 128 * 2 + (3 * 64 - 1)
    machines[0].change(1)
    machines[2].change(1)
    # 16 pages less in two machines; eight of what they hold instead are alike in these two.
    assert least_saved(machines, DIGESTER, max_page_sharing=256).saved == 112 * 2 + 8 + (3 * 64 - 1)


def test_numbers_and_memory_can_be_changed() -> None:
    shipped = workload.load("vms")
    changed = workload.with_machines(shipped, 52, 256)
    assert isinstance(changed, Machines)
    assert (changed.count, changed.memory_mib, changed.processes) == (52, 256, 52)
    assert changed.footprint_mib == 52 * (256 + workload.QEMU_MIB)
    with pytest.raises(SamepageError, match="room for data"):
        workload.with_machines(msgspec.structs.replace(changed, kernel_mib=128), None, 96)
    for name in ("small", "programs"):
        with pytest.raises(SamepageError, match="virtual machines"):
            workload.with_machines(workload.load(name), 2, None)
    with pytest.raises(SamepageError, match="synthetic"):
        workload.with_processes(shipped, 3)
    assert isinstance(workload.load("small"), Synthetic)


def test_more_than_all_of_the_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('kind = "machines"\ndescription = "x"\ncount = 1\nmemory_mib = 128\nsame = 60\nzero = 50\n')
    with pytest.raises(SamepageError, match="100 percent"):
        workload.load(str(path))


def test_a_large_machine_is_asked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of 881 MiB at once took longer than one waits for an answer, on a busy host."""
    asked = []

    def answer(question: str) -> int:
        what, first, count, _ = question.split()
        assert what == "digest"
        asked.append((int(first), int(count)))
        return 0

    large = Machine.__new__(Machine)
    monkeypatch.setattr(large, "_ask", answer)
    monkeypatch.setattr(MachineData, "digest", lambda *_: 0)
    shipped = workload.load("vms-most")
    assert isinstance(shipped, Machines)
    data = MachineData(shipped, 1, 0)
    large.check_data(data, DIGESTER)
    assert sum(count for _, count in asked) == data.pages > 200_000
    assert max(count for _, count in asked) <= DIGEST_PAGES
