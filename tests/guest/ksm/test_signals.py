# SPDX-License-Identifier: MIT
"""What takes long is interrupted at random moments: nothing is lost by it, and the same again comes to its end."""

from __future__ import annotations

import json

import pytest

from harness.guest.guest import Guest
from harness.ksm.content import Kind, page_bytes
from harness.ksm.inguest import contents, why
from harness.ksm.memwork import MemWork
from tests.guest.ksm.control import RUN, Merger
from tests.guest.ksm.inguest import InGuest

PAGES = 3000
KEY = 57 << 40
TURNS = 10
FILE = "/run/common"
PROGRAM = f"""
import json, os, random, signal, sys, time
sys.path.insert(0, "/run")
import contents, why

def put(name, value):
    file = os.open("/sys/kernel/mm/" + name, os.O_WRONLY)
    os.write(file, value.encode())
    os.close(file)

def passes(count=4):
    scans = lambda: int(open("/sys/kernel/mm/ksm/full_scans").read())
    goal, deadline = scans() + count, time.monotonic() + 300
    while scans() < goal:
        assert time.monotonic() < deadline
        time.sleep(0.02)

def merge():
    put("ksm/run", "1")
    passes()

def other_policy():
    now = open("/sys/kernel/mm/samepage/domain_by").read().strip()
    put("samepage/domain_by", "none" if now == "user" else "user")

what, sent, pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
prepare, do = {{
    "unmerge": (merge, lambda: put("ksm/run", "2")),
    "other domains": (passes, other_policy),
    "share contents": (contents.clear, lambda: contents.share(["{FILE}"])),
    "clear contents": (lambda: [contents.share(["{FILE}"]), passes()], contents.clear),
    "ask why": (lambda: None, lambda: why.why(pid)),
}}[what]

def disturbed(*_):
    raise InterruptedError

def turn(after):
    prepare()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, disturbed)
        try:
            do()
        except InterruptedError:
            os._exit(1)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, sent)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

began = time.monotonic()
prepare()
made_ready = time.monotonic() - began
began = time.monotonic()
assert turn(None) == 0
whole = max(time.monotonic() - began - made_ready, 0.01)
chance = random.Random(3)
print(json.dumps([turn(chance.uniform(0, whole)) for _ in range({TURNS})]))
prepare()
do()
"""


@pytest.mark.parametrize("sent", [10, 9], ids=["SIGUSR1", "SIGKILL"])
@pytest.mark.parametrize("what", ["unmerge", "other domains", "share contents", "clear contents", "ask why"])
def test_interrupted(guest: Guest, merger: Merger, work: MemWork, what: str, sent: int) -> None:
    for _ in range(3):
        work.process().map(pages=PAGES).fill(Kind.FILLED, KEY, step=1)
    common = InGuest(guest, contents)
    InGuest(guest, why)
    guest.put(b"".join(page_bytes(Kind.FILLED, KEY + page) for page in range(PAGES)), FILE)
    merger.merge(work)
    words = ["python3", "-c", PROGRAM, what, str(sent), str(work.processes[0].pid)]
    codes = json.loads(guest.run(words, timeout=600).text)
    assert set(codes) <= {0, 1, -sent}, "nothing but success, an interruption, or its death"
    assert set(codes) != {0}, "no signal came in time"
    merger.check()
    work.check()
    common("clear")
    guest.write("/sys/kernel/mm/samepage/domain_by", "user")
    merger["run"] = RUN
    merger.merge(work)
    assert merger.counts() == merger.expected(work)
    work.check()
