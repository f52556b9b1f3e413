# SPDX-License-Identifier: MIT
"""Nonsense from user space: what is refused changes nothing, what is accepted is what was written.

In-tree KSM is given the same nonsense, and its answers are what the module's must be.
"""

from __future__ import annotations

import errno
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.errors import CheckFailed
from harness.guest.errors import GuestFileError
from harness.guest.guest import Guest
from harness.ksm.content import Kind
from harness.ksm.inguest import why
from harness.ksm.memwork import MemWork
from harness.module.build import BuiltModule
from tests.guest.ksm.control import KSM, RUN, SAMEPAGE, STOP, UNMERGE, Merger

PAGES = 300
KEY = 37 << 40
PARAMETERS = "/sys/module/samepage/parameters/"
DEBUG = "/sys/kernel/debug/samepage"
CHECK, TENANTS = f"{DEBUG}/check", f"{DEBUG}/tenants"
FLAGS = {"use_zero_pages", "smart_scan", "check_passes"}
BOUNDS = {
    "huge_min_twins": (0, 2**32 - 1),
    "convergence_seconds": (0, 2**32 - 1),
    "convergence_max_cpu": (1, 100),
    "reserve_percent": (0, 100),
    "domain_cgroup_level": (0, 2**32 - 1),
}
"""Of the module's own numbers; those that in-tree KSM has are compared with it."""
REFUSALS = {errno.EINVAL, errno.ERANGE, errno.EBUSY}

WRITE = r"""
import errno, json, os, sys
def get(path):
    return open(path, "rb").read().decode().strip()
def plain(text):
    return text[text.index("[") + 1:text.index("]")] if "[" in text else text
def put(path, data):
    file = os.open(path, os.O_WRONLY)
    try:
        return os.write(file, data)
    except OSError as error:
        return -error.errno
    finally:
        os.close(file)
asked = json.load(sys.stdin)
files = list(dict.fromkeys(path for path, _ in asked))
first = {path: get(path) for path in files}
done = []
for path, data in asked:
    before = get(path)
    answer = put(path, bytes.fromhex(data))
    after = get(path)
    if after != before:
        put(path, plain(before).encode())
    done.append([before, answer, after])
# The advisor and the governor set pages_to_scan while they are on.
for path in files:
    if get(path) != first[path]:
        put(path, plain(first[path]).encode())
left = {path: get(path) for path in files if get(path) != first[path]}
json.dump([done, left], sys.stdout)
"""


@dataclass(frozen=True)
class Write:
    """One write to a file, and what came of it."""

    path: str
    data: bytes
    before: str
    answer: int
    """Bytes taken, or an errno below 0."""
    after: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        said = self.answer if self.answer >= 0 else errno.errorcode[-self.answer]
        return f"{self.path}: {self.before!r}, {self.data[:40]!r} ({len(self.data)} bytes): {said}, {self.after!r}"


def nonsense(current: str, chance: random.Random) -> list[bytes]:
    """Return what is hardly a value for a file, made of what it says now where that helps."""
    now = re.sub(r".*\[(.*)\].*", r"\1", current).encode()
    forms = [b"+", b"++", b"-", b" ", b"\t", b"\n", b"0x", b"000", b"'", b"\xef\xbb\xbf", b"\0"]
    tails = [b"\n", b"\n\n", b"\r\n", b" ", b"x", b".0", b"e3", b",1", b"\0", b"\0junk", b"\0" * 5000, b"\xff", b" 1"]
    numbers = [-1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**31), -(2**63), 10**30]
    words = ["nan", "inf", "none scan-time", "[none]", "scan", "scan-time ", "SCAN-TIME", "max", "oops", "%s%n", "../x"]
    long = [character * size for character in (b"9", b"0", b"a", b"\n", b" ") for size in (4095, 4096, 5000, 70000)]
    binary = [chance.randbytes(chance.randint(1, 64)) for _ in range(12)]
    return [
        *(b"", b"\n", b" ", b"\0", b"-0", b"1e3", b"\xd9\xa3", b"\x01"),
        *(form + now for form in forms),
        *(now + tail for tail in tails),
        *(str(number).encode() for number in numbers),
        *(word.encode() for word in words),
        *(character for character in long),
        # No digit in front: that would be a value for a flag.
        *(data for data in binary if not data[:1].isalnum()),
    ]


def write_all(guest: Guest, values: dict[str, list[bytes]]) -> list[Write]:
    """Write everything, one after the other, putting back what was there; in the end all is as it was."""
    asked = [(path, data) for path, every in values.items() for data in every]
    line = ["python3", "-c", WRITE]
    text = json.dumps([(path, data.hex()) for path, data in asked])
    done, left = json.loads(guest.run(line, stdin=text.encode(), timeout=300).stdout)
    assert not left
    return [Write(path, data, *answer) for (path, data), answer in zip(asked, done, strict=True)]


def accepted(write: Write) -> str | None:
    """Return what a file says once these bytes were accepted; None for what is no value of its kind."""
    text = write.data[:4096].partition(b"\0")[0]
    if write.name in FLAGS:
        on = text[:1] in (b"1", b"y", b"Y", b"t", b"T") or text[:2].lower() == b"on"
        off = text[:1] in (b"0", b"n", b"N", b"f", b"F") or text[:2].lower() == b"of"
        return ("NY" if write.name == "check_passes" else "01")[on] if on or off else None
    word = text.decode(errors="replace").removesuffix("\n")
    if write.name == "domain_by":
        return word if word in ("none", "user", "cgroup", "explicit") else None
    if write.name == "advisor_mode":
        return {"none": "[none] scan-time", "scan-time": "none [scan-time]"}.get(word)
    number = re.fullmatch(rb"\+?([0-9]+)\n?", text)
    return str(int(number[1].lstrip(b"0") or b"0")) if number else None


def judge(write: Write) -> None:
    value = accepted(write)
    if not write.data:  # never reaches the module
        assert (write.answer, write.after) == (0, write.before), write
    elif write.answer < 0:
        assert -write.answer in REFUSALS, write
        assert write.after == write.before, write
    else:
        assert value is not None, write
        assert write.after == value, write
        assert write.answer == min(len(write.data), 4096), write
    if write.data and value is not None and write.name in BOUNDS:
        low, high = BOUNDS[write.name]
        assert (write.answer > 0) == (low <= int(value) <= high), write


def tunables(guest: Guest, *folders: str) -> dict[str, str]:
    """Return every file in some folders that may be written, with what it says."""
    line = ["find", *folders, "-maxdepth", "1", "-type", "f", "-perm", "-u=w"]
    return {path: guest.read(path) for path in sorted(guest.run(line).text.split())}


@pytest.fixture
def in_tree_afterwards(guest: Guest, module: BuiltModule, merger: Merger) -> Iterator[Merger]:
    """The module at first; a test takes it away, and it is loaded again."""
    yield merger
    if not merger.in_force:
        merger["run"] = UNMERGE
        merger["run"] = STOP
        guest.insmod(module.ko)


def merged(merger: Merger, work: MemWork) -> None:
    """Everything is merged, and stays so."""
    merger.hurry()
    merger["run"] = RUN
    merger.passes(4)
    assert merger.counts() == (PAGES, PAGES, 0)
    work.check()


def test_files(in_tree_afterwards: Merger, guest: Guest, work: MemWork) -> None:
    merger, chance = in_tree_afterwards, random.Random(1)
    for _ in range(2):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merged(merger, work)
    files = tunables(guest, KSM, SAMEPAGE, PARAMETERS)
    assert {KSM + "run", KSM + "advisor_mode", SAMEPAGE + "threads", PARAMETERS + "check_passes"} <= files.keys()
    values = {path: nonsense(now, chance) for path, now in files.items()}
    ours = write_all(guest, values)
    for write in ours:
        judge(write)
    assert sum(write.answer < 0 for write in ours) > len(ours) // 2
    assert any(write.answer > 0 and write.after != write.before for write in ours), "some of it is accepted"
    assert tunables(guest, KSM, SAMEPAGE, PARAMETERS) == files
    merged(merger, work)
    merger.check()
    guest.rmmod("samepage")
    merged(merger, work)
    known = tunables(guest, KSM)
    common = {path: values[path] for path in values if path in known and known[path] == files[path]}
    assert common.keys() == {path for path in files if path.startswith(KSM)} & known.keys()
    pairs = zip([write for write in ours if write.path in common], write_all(guest, common), strict=True)
    differ = [(our, their) for our, their in pairs if str(our) != str(their)]
    # Where in-tree KSM itself does not keep what it accepts (advisor_max_cpu, of 32 bits), it is no judge.
    assert [pair for pair in differ if pair[1].answer < 0 or pair[1].after == accepted(pair[1])] == []
    assert {our.name for our, _ in differ} <= {"advisor_max_cpu"}
    merged(merger, work)


def test_files_that_are_read_only(merger: Merger, guest: Guest) -> None:
    every = guest.run(["find", KSM, SAMEPAGE, "-type", "f"]).text.split()
    fixed = sorted(set(every) - tunables(guest, KSM, SAMEPAGE).keys())
    assert {KSM + "pages_shared", SAMEPAGE + "merges"} <= set(fixed)
    shown = guest.run(["find", DEBUG, "-type", "f"]).text.split()
    assert sorted(shown) == [CHECK, TENANTS]
    for path in [*fixed, *shown]:
        with pytest.raises(GuestFileError) as refused:
            guest.write(path, "1")
        assert refused.value.errno == (errno.EINVAL if path in shown else errno.EACCES), path
    merger.check()


def test_parameters_of_the_module(in_tree_afterwards: Merger, guest: Guest, module: BuiltModule, work: MemWork) -> None:
    guest.rmmod("samepage")
    for value in ("maybe", "", "-1", "2", "O", "\x01", "x" * 1000):
        with pytest.raises(CheckFailed, match=r"Invalid argument|Invalid parameters"):
            guest.insmod(module.ko, f"check_passes={value}")
        assert not in_tree_afterwards.in_force
        assert guest.run(["ls", "/sys/kernel/mm"]).text.split().count("samepage") == 0
    in_tree_afterwards.merges_all(work, KEY)


CALL = r"""
import ctypes, mmap, os, random
libc = ctypes.CDLL(None, use_errno=True)
chance = random.Random(3)
PAGE, TOP = 4096, 1 << 64
def call(name, *numbers):
    ctypes.set_errno(0)
    answer = getattr(libc, name)(*(ctypes.c_ulong(number % TOP) for number in numbers))
    return answer if answer >= 0 else -ctypes.get_errno()
def mapped(pages, protection=3, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
    libc.mmap.restype = ctypes.c_void_p
    numbers = (0, pages * PAGE, protection, flags, -1 % TOP, 0)
    return libc.mmap(*(ctypes.c_ulong(number) for number in numbers))
base = mapped(64)
def registered():
    # Of the 64 pages alone: where the others lie is chance.
    count, inside = 0, False
    for line in open("/proc/self/smaps"):
        if line[:1] in "0123456789abcdef":
            first, last = (int(number, 16) for number in line.split()[0].split("-"))
            inside = first < base + 64 * PAGE and last > base
        count += inside and line.startswith("VmFlags") and " mg" in line
    return count
call("munmap", base + 16 * PAGE, 16 * PAGE)
call("mprotect", base + 40 * PAGE, 8 * PAGE, 0)
shared = mapped(4, 3, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
# Nobody else's memory in front of it or behind it: what is there is the same under both mergers.
ends = [0, 1, PAGE - 1, PAGE, PAGE + 1, 4 * PAGE, 16 * PAGE, 20 * PAGE, 63 * PAGE, 64 * PAGE]
starts = [base + end for end in ends] + [0, 1, PAGE, 1 << 47, (1 << 47) - PAGE, 1 << 63, TOP - PAGE, TOP - 1, shared]
sizes = [0, 1, PAGE - 1, PAGE, PAGE + 1, 24 * PAGE, 1 << 46, 1 << 47, 1 << 63, TOP - PAGE, TOP - PAGE + 1, TOP - 1]
for start in starts:
    for size in sizes:
        within = base <= start and start + size <= base + 64 * PAGE or start == shared and size <= 4 * PAGE
        if within or size > 1 << 40 or size == 0 or start < 1 << 20 or start >= (1 << 47) - PAGE:
            answers = [call("madvise", start, size, advice) for advice in (12, 13)]
            print("madvise", starts.index(start), size, *answers, registered())
for advice in (-1, 11, 14, 26, 99, 1 << 31, (1 << 32) + 12):
    print("advice", advice, call("madvise", base, PAGE, advice), registered())
for _ in range(300):
    first, count, advice = chance.randrange(64), chance.randrange(1, 65), chance.choice((12, 12, 13))
    odd = chance.choice((0, 0, 0, 1, 8, PAGE // 2))
    if first + count <= 64:
        answer = call("madvise", base + first * PAGE + odd, count * PAGE - odd, advice)
        print("random", first, count, odd, advice, answer, registered())
handle = call("syscall", 434, os.getpid(), 0)
place = (ctypes.c_ulong * 2)(base, PAGE)
for flags in (0, 1, TOP - 1):
    for advice in (12, 13, 99):
        for count in (0, 1, 1 << 20):
            numbers = (handle, ctypes.addressof(place), count, advice, flags)
            print("process", *numbers[2:], call("syscall", 440, *numbers), registered())
print("process", "unmapped", call("syscall", 440, handle, 8, 1, 12, 0), call("syscall", 440, -1, 8, 1, 12, 0))
for value in (0, 1, 2, -1, 1 << 31, 1 << 32, 1 << 63):
    for more in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (-1, -1, -1), (1 << 32, 0, 0), (0, 0, 1 << 63)):
        print("set", value, more, call("prctl", 67, value, *more), call("prctl", 68, 0, 0, 0, 0))
        print("get", value, more, call("prctl", 68, value, *more), registered() > 0)
        call("prctl", 67, 0, 0, 0, 0)
"""


def test_calls(in_tree_afterwards: Merger, guest: Guest, work: MemWork) -> None:
    """The same program, with the module and with in-tree KSM: not an errno differs."""
    for _ in range(2):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merged(in_tree_afterwards, work)
    ours = guest.run(["python3", "-c", CALL], timeout=300).text.splitlines()
    merged(in_tree_afterwards, work)
    in_tree_afterwards.check()
    guest.rmmod("samepage")
    merged(in_tree_afterwards, work)
    theirs = guest.run(["python3", "-c", CALL], timeout=300).text.splitlines()
    assert ours == theirs
    answers = {line.split()[-2] for line in ours if line.startswith(("madvise", "random"))}
    assert {"0", str(-errno.EINVAL), str(-errno.ENOMEM)} <= answers
    merged(in_tree_afterwards, work)


DEVICE = r"""
import ctypes, errno, json, mmap, os, random, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
chance = random.Random(5)
REQUEST, WHY, N = int(sys.argv[1]), struct.Struct(sys.argv[2]), int(sys.argv[3])
PAGE, TOP = 4096, 1 << 64
wrong = []
def call(function, *numbers):
    ctypes.set_errno(0)
    answer = function(*(ctypes.c_ulong(number % TOP) for number in numbers))
    return ctypes.get_errno() if answer == -1 else 0
def expect(label, answer, *allowed):
    if answer not in allowed:
        wrong.append([label, errno.errorcode.get(answer, answer)])
def tried(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0
place = libc.mmap(*map(ctypes.c_ulong, (0, 4 * PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, TOP - 1, 0)))
def ask(label, fields, *allowed, request=REQUEST):
    data = WHY.pack(*fields)
    ctypes.memmove(place, data, len(data))
    answer = call(libc.ioctl, device, request, place)
    expect(label, answer, *allowed)
    if answer and ctypes.string_at(place, len(data)) != data:
        wrong.append([label, "changed what was asked"])
    return WHY.unpack(ctypes.string_at(place, len(data)))
def asked(pid=0, reasons=N, start=0, end=0):
    return (pid, reasons, start, end, *[7] * N)
def all_calls(pid):
    for bit in range(32):
        ask(f"request bit {bit}", asked(), errno.ENOTTY, request=REQUEST ^ 1 << bit)
    for size in (0, 1, WHY.size - 1, WHY.size + 1, 0x3fff):
        ask(f"size {size}", asked(), errno.ENOTTY, request=3 << 30 | size << 16 | REQUEST & 0xffff)
    for reasons in (0, 1, N - 1, N + 1, 1 << 31, (1 << 32) - 1):
        ask(f"reasons {reasons}", asked(reasons=reasons), errno.EINVAL)
    for nobody in (-1, -2, -(1 << 31)):
        ask(f"pid {nobody}", asked(nobody), errno.EINVAL)
    for nobody in (1 << 22, (1 << 31) - 1):
        ask(f"pid {nobody}", asked(nobody), errno.ESRCH)
    ranges = ((1, 0), (0, 1), (PAGE, PAGE - 1), (2 * PAGE, PAGE), (0, 1 << 63), (0, TOP - PAGE), (TOP - PAGE, 0))
    for start, end in ranges:
        ask(f"from {start} to {end}", asked(start=start, end=end), errno.EINVAL)
    for number in range(300):
        one = lambda: chance.choice((0, PAGE, chance.getrandbits(47) & -PAGE, chance.getrandbits(64), place, 1 << 46))
        fields = asked(pid, N, one(), one())
        pages = ask(f"random {fields[:4]}", fields, 0, errno.EINVAL)
        held = fields[3] > fields[2] and fields[2] <= place and fields[3] >= place + PAGE
        if held and pages != fields and not sum(pages[4:]):
            wrong.append([f"random {fields[:4]}", "no page"])
    pages = ask("oneself", asked(), 0)
    if not sum(pages[4:]) or pages[:4] != asked()[:4]:
        wrong.append(["oneself", pages])
device = os.open("/dev/samepage", os.O_RDWR)
all_calls(os.getpid())
ask("a thread of the kernel", asked(2), errno.ESRCH)
# Addresses that hold nothing, or not all of it, or cannot be written.
ctypes.memmove(place + 2 * PAGE, WHY.pack(*asked()), WHY.size)
call(libc.mprotect, place + 2 * PAGE, PAGE, 1)
call(libc.munmap, place + 3 * PAGE, PAGE)
for address in (0, 8, 1 << 47, 1 << 63, TOP - 8, TOP - PAGE, place + 2 * PAGE, place + 3 * PAGE - 8, place + 3 * PAGE):
    expect(f"at {address - place}", call(libc.ioctl, device, REQUEST, address), errno.EFAULT)
whole = os.pread(device, 1 << 16, 0)
if b"".join(os.pread(device, 1, at) for at in range(len(whole))).split()[0] != whole.split()[0]:
    wrong.append(["read", "in parts"])
for size, at in ((0, 0), (1, 1 << 40), (1 << 16, 1 << 62)):
    expect(f"read {size} at {at}", tried(os.pread, device, size, at), 0)
expect("write", tried(os.write, device, b"x"), errno.EINVAL)
expect("map", tried(mmap.mmap, device, PAGE), errno.ENODEV)
expect("truncate", tried(os.ftruncate, device, 0), errno.EINVAL)
expect("before its beginning", tried(os.lseek, device, -1, os.SEEK_SET), errno.EINVAL)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
expect("read by nobody", tried(os.pread, device, 100, 0), errno.EPERM)
ask("root's", asked(1), errno.EACCES, errno.EPERM)
expect("its own", call(libc.prctl, 4, 1), 0)  # PR_SET_DUMPABLE: one's own again after setuid()
all_calls(os.getpid())
json.dump(wrong, sys.stdout)
"""


def test_device(merger: Merger, guest: Guest, work: MemWork) -> None:
    for _ in range(2):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    merged(merger, work)
    line = ["python3", "-c", DEVICE, str(why._REQUEST), why._WHY.format, str(len(why.REASONS))]
    assert json.loads(guest.run(line, timeout=300).stdout) == []
    merged(merger, work)
    merger.check()
