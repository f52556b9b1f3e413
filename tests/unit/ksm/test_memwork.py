# SPDX-License-Identifier: MIT
"""memwork in C against the oracle in NumPy: two programs that must agree on every byte."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from harness.ksm.content import Digester, Kind, page_bytes
from harness.ksm.differences import ContentError
from harness.ksm.link import WorkError
from harness.ksm.memwork import MemWork
from harness.ksm.processdigest import decode_digests
from harness.ksm.processes import Advice, Syscall, encode_ranges
from harness.ksm.protocol import Op
from tests.unit.ksm.conftest import SECRET


def test_untouched_memory_is_zero(work: MemWork) -> None:
    area = work.process().map(pages=8)
    assert work.check() == 8
    assert area.read(3) == bytes(4096)


@pytest.mark.parametrize("kind", list(Kind))
def test_contents_agree(work: MemWork, kind: Kind) -> None:
    area = work.process().map(pages=5)
    area.fill(kind, key=0xFEDC_BA98_7654_3210, step=0x1_0000_0001)
    for page in range(5):
        assert area.read(page) == page_bytes(kind, 0xFEDC_BA98_7654_3210 + page * 0x1_0000_0001)
    work.check()


def test_prefix_pages_differ_in_their_last_64_bytes_only(work: MemWork) -> None:
    area = work.process().map(pages=2)
    area.fill(Kind.PREFIX, key=5 << 32, step=1)
    first, second = area.read(0), area.read(1)
    assert first[:-64] == second[:-64]
    assert all(first[at : at + 8] != second[at : at + 8] for at in range(4096 - 64, 4096, 8))


def test_random_kinds_and_keys(work: MemWork) -> None:
    random = np.random.default_rng(1)
    area = work.process().map(pages=300)
    kinds = random.integers(0, len(Kind), 250).astype(np.uint8)
    keys = random.integers(0, 2**63, 250).astype(np.uint64)
    keys[50:150] = np.uint64(2**64 - 50) + np.arange(100, dtype=np.uint64)
    area.fill_each(kinds, keys, first=20)
    assert work.check() == 300
    assert area.read(20 + 77) == page_bytes(kinds[77], int(keys[77]))


def test_pokes(work: MemWork) -> None:
    area = work.process().map(pages=4)
    area.fill(Kind.FILLED, key=1)
    area.poke(2, 4095, 0xAB, size=1)
    area.poke(2, 17, 0x1122334455667788)
    area.poke(0, 4088, 2**64 - 1)
    page = bytearray(page_bytes(Kind.FILLED, 1))
    page[4095] = 0xAB
    page[17:25] = bytes.fromhex("8877665544332211")
    assert area.read(2) == page
    work.check()
    area.fill(Kind.BYTE, key=9, pages=range(2, 3))
    assert area.read(2) == b"\x09" * 4096
    work.check()


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (4095, 1), (1234, 3)])
def test_one_wrong_byte_is_found_and_shown(work: MemWork, offset: int, size: int) -> None:
    process = work.process("victim")
    area = process.map(pages=64)
    area.fill(Kind.FILLED, key=100, step=1)
    # Behind the model's back, as a fault of the kernel would be.
    with Path(f"/proc/{process.pid}/mem").open("r+b", buffering=0) as memory:
        memory.seek(area.address(33) + offset)
        old = memory.read(size)
        memory.seek(area.address(33) + offset)
        memory.write(bytes(byte ^ 0x80 for byte in old))
    with pytest.raises(ContentError) as caught:
        work.check()
    assert "1 page with wrong content" in str(caught.value)
    assert f"process 'victim' (pid {process.pid}), page 33 at {area.address(33):#x}, offset {offset}" in str(
        caught.value
    )
    assert f"{size} wrong bytes, expected {old.hex(' ')}" in str(caught.value)
    assert caught.value.exit_code == 1


def test_two_top_bits_do_not_cancel_out() -> None:
    digester = Digester(SECRET)
    page = page_bytes(Kind.FILLED, 3)
    right = digester.of_bytes(page)
    for first in range(7, 4096, 512):
        page[first] ^= 0x80
        page[4095] ^= 0x80
        assert digester.of_bytes(page) != right
        page[first] ^= 0x80
        page[4095] ^= 0x80
    assert digester.of_bytes(page) == right


def test_fork_shares_then_diverges(work: MemWork) -> None:
    parent = work.process()
    area = parent.map(pages=16)
    area.fill(Kind.FILLED, key=1, step=1)
    child = parent.fork()
    grandchild = child.fork()
    child.areas[0].fill(Kind.BYTE, key=7, pages=range(3, 5))
    area.poke(3, 0, 42)
    grandchild.areas[0].poke(4, 8, 43)
    assert work.check() == 48
    assert child.exit() == 0
    more = parent.fork()
    assert more.areas[0].read(3)[:8] == (42).to_bytes(8, "little")
    assert work.check() == 48


def test_exec_empties_a_process(work: MemWork) -> None:
    first, second = work.process(), work.process()
    for process in (first, second):
        process.map(pages=8).fill(Kind.FILLED, 5)
    old = first.areas[0]
    first.exec()
    with pytest.raises(WorkError, match="SIGSEGV"):
        first.send(Op.READ, encode_ranges([(old.address(), 4096)]))
    assert Path(f"/proc/{first.pid}/exe").readlink() == Path(f"/proc/{second.pid}/exe").readlink()
    child = first.fork()
    for process in (first, child):
        process.map(pages=8, address=old.address()).fill(Kind.FILLED, 6, step=1)
    assert work.check() == 24
    assert first.exit() == child.exit() == 0


def test_many_workers(work: MemWork) -> None:
    for number in range(60):
        work.process().map(pages=3).fill(Kind.FILLED, key=number)
    assert work.check() == 180


def test_thousands_of_steps_together(work: MemWork) -> None:
    random = np.random.default_rng(2)
    processes = [work.process() for _ in range(40)]
    with work.together():
        for number, process in enumerate(processes):
            for _ in range(12):
                area = process.map(pages=5, merge=False)
                area.fill(Kind.FILLED, key=number, step=1)
                area.poke(3, 100, number)
            area.unmap()
        # Long requests, and one that needs an answer, among the short ones.
        large = processes[7].map(pages=40000)
        large.fill_each(np.full(40000, Kind.BYTE, np.uint8), random.integers(0, 2**63, 40000).astype(np.uint64))
        assert processes[8].areas[0].read(3)[100] == 8
        processes[9].areas[0].poke(0, 0, 9)
    assert work.check() == 40 * 11 * 5 + 40000


def test_an_error_of_what_waits_comes_at_the_end(work: MemWork) -> None:
    first, second = work.process(), work.process()
    area = first.map(pages=2)

    def steps() -> None:
        with work.together():
            first.post_syscall(Syscall.MADVISE, 0x1234, 4096, 4)
            area.fill(Kind.BYTE, key=3)
            second.map(pages=1).fill(Kind.BYTE, key=4)

    with pytest.raises(WorkError, match="system call") as caught:
        steps()
    assert caught.value.errno == errno.EINVAL
    # What came after it was done all the same.
    assert work.check() == 3


def test_a_worker_that_dies_answers_all_that_it_owes(work: MemWork) -> None:
    victim, other = work.process(), work.process()

    def steps() -> None:
        with work.together():
            for _ in range(50):
                victim.map(pages=400, merge=False).fill(Kind.FILLED, key=1)
            victim.post_syscall(Syscall.KILL, victim.pid, signal.SIGKILL)
            victim.map(pages=1, merge=False)
            other.map(pages=1, merge=False).fill(Kind.BYTE, key=1)

    with pytest.raises(WorkError, match="was killed by signal 9"):
        steps()
    victim.exit()
    assert work.check() == 1


def test_discard_remap_unmap(work: MemWork) -> None:
    process = work.process()
    area = process.map(pages=10)
    area.fill(Kind.FILLED, key=1, step=1)
    area.poke(4, 0, 1)
    area.advise(Advice.DONTNEED, range(2, 5))
    work.check()
    before = area.address()
    area.remap(15)
    assert area.address() != before
    assert work.check() == 15
    area.remap(3)
    assert work.check() == 3
    area.unmap()
    assert work.check() == 0


def test_rewriting_can_be_replayed(work: MemWork) -> None:
    process = work.process()
    area = process.map(pages=50)
    area.fill(Kind.FILLED, key=1000)
    area.rewrite(key=5000, per_second=5000, pages=range(10, 40))
    deadline = time.monotonic() + 10
    while area.read(39) == page_bytes(Kind.FILLED, 1000) and time.monotonic() < deadline:
        time.sleep(0.01)
    written = process.stop_rewriting()
    assert written >= 30
    assert work.check() == 50
    assert area.read(10 + (written - 1) % 30) == page_bytes(Kind.FILLED, 5000 + written - 1)
    area.rewrite(key=1, per_second=1)
    assert process.stop_rewriting() in (0, 1)
    work.check()


def test_errors_come_back(work: MemWork) -> None:
    process = work.process()
    area = process.map(pages=4)
    with pytest.raises(WorkError) as caught:
        process.syscall(Syscall.MADVISE, area.address(), 4096, 12345)
    assert caught.value.errno == errno.EINVAL
    assert "EINVAL" in str(caught.value)
    area.protect(0, range(2, 3))
    with pytest.raises(WorkError) as caught:
        area.poke(2, 0, 1)
    assert caught.value.errno == errno.EFAULT
    assert f"SIGSEGV at {area.address(2):#x}" in str(caught.value)
    area.protect(3)
    assert work.check() == 4


def test_a_killed_worker_is_named(work: MemWork) -> None:
    victim, other = work.process(), work.process()
    victim.map(pages=4)
    other.map(pages=4).fill(Kind.BYTE, key=1)
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(WorkError, match=rf"pid {victim.pid}\) was killed by signal 9"):
        work.check()
    assert os.WTERMSIG(victim.exit()) == signal.SIGKILL
    assert work.check() == 4
    again = work.process()
    assert again.worker == victim.worker


def test_closing_leaves_no_process(work: MemWork) -> None:
    pids = [work.process().pid for _ in range(3)]
    pids.append(work.processes[0].fork().pid)
    work.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_frames_show_sharing_by_fork(work: MemWork) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root sees frame numbers")
    parent = work.process()
    area = parent.map(pages=6)
    area.fill(Kind.FILLED, key=1, pages=range(4))
    child = parent.fork()
    child.areas[0].poke(1, 0, 5)
    mine, its = area.frames()["pagemap"], child.areas[0].frames()["pagemap"]
    assert (mine == its).tolist() == [True, False, True, True, True, True]
    assert (mine >> np.uint64(63)).tolist() == [1, 1, 1, 1, 0, 0]


def test_digests_of_another_process(work: MemWork, memwork_program: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root reads another process's memory")
    process = work.process()
    area = process.map(pages=20)
    area.fill(Kind.FILLED, key=1, step=1, pages=range(3, 9))
    argv = [str(memwork_program), "digest", hex(SECRET), str(process.pid)]
    output = subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=20).stdout
    records = decode_digests(output)[0]
    found = dict(zip(records["address"].tolist(), records["digest"].tolist(), strict=True))
    for page in range(20):
        expected = int(area.model.digests(work.digester)[page]) if page in range(3, 9) else None
        assert found.get(area.address(page)) == expected
