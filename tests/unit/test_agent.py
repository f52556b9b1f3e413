# SPDX-License-Identifier: MIT
"""The guest's agent and the host's end of the channel, over a pair of sockets: at host speed, with nothing emulated."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.config import PACKAGE_PARENT, load_config
from harness.guest.channel import Channel
from harness.guest.errors import ChannelClosed, CommandFailed, CommandTimeout, GuestFileError, ProtocolError
from harness.guest.files import GuestFiles
from harness.guest.protocol import HEADER, WINDOW, Frame, FrameType, encode_number, encode_start
from harness.guest.stream import Stream
from harness.image.programs import compile_program
from harness.image.recipe import Program, load_image_recipe
from harness.sandbox import Sandbox
from harness.toolroot import tool_root

SOURCES = PACKAGE_PARENT / "images/guest"
MIB = 1 << 20


class Plain:
    """Stands for the guest: kills what takes too long."""

    timeout_factor = 1.0

    def __init__(self) -> None:
        self.ended: list[str] = []

    def finished(self, stream: Stream) -> None:
        self.ended.append(stream.command)

    def timed_out(self, stream: Stream, what: str, seconds: float) -> Exception:
        stream.kill()
        assert stream.wait_killed(5)
        return CommandTimeout(stream.command, f"needed more than {seconds} s {what}")

    def lost(self, stream: Stream) -> Exception:
        return ChannelClosed("lost")


class Agent:
    """A running agent."""

    def __init__(self, channel: Channel, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.channel = channel
        self.sock = sock
        self.process = process
        self.plain = Plain()
        self.files = GuestFiles(lambda argv: Stream(self.channel, self.plain, FrameType.FILES, argv, {}, ""))

    def spawn(self, *argv: str, env: dict[str, str] | None = None, cwd: str = "") -> Stream:
        return Stream(self.channel, self.plain, FrameType.EXEC, argv, {"PATH": "/usr/bin", **(env or {})}, cwd)

    def shell(self, script: str, stdin: bytes = b"", timeout: float = 20) -> tuple[int, bytes, bytes]:
        stream = self.spawn("sh", "-c", script)
        output = stream.communicate(stdin, timeout, 512 * MIB)
        return stream.exit_code(), output, stream.stderr

    def pid(self) -> int:
        """The agent's own: bubblewrap's only grandchild that is no bubblewrap."""
        return next(
            child.pid for child in psutil.Process(self.process.pid).children(recursive=True) if child.name() == "agent"
        )


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent, with a trap on undefined behaviour."""
    config = load_config(PACKAGE_PARENT)
    recipe = load_image_recipe(config.images)
    item = recipe.program["agent"]
    strict = Program(
        sources=item.sources,
        without=item.without,
        flags=[*item.flags, "-fsanitize=undefined", "-fsanitize-trap=all"],
        path=item.path,
    )
    toolchain = Sandbox(tool_root(config, recipe.toolchain))
    return compile_program(toolchain, SOURCES, "agent", strict, tmp_path_factory.mktemp("agent"))


@contextmanager
def running(program: Path) -> Iterator[Agent]:
    config = load_config(PACKAGE_PARENT)
    sandbox = Sandbox(tool_root(config, load_image_recipe(config.images).toolchain))
    ours, theirs = socket.socketpair()
    with theirs:
        line = sandbox.command(["/agent", str(theirs.fileno())], ro={program: "/agent"})
        line[1:1] = ["--cap-drop", "ALL"]  # garbage may be a RESUME: the clock that it would set is the host's
        process = subprocess.Popen(line, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
    channel = Channel(ours)
    try:
        assert channel.wait_ready(10)
        yield Agent(channel, ours, process)
    finally:
        channel.close()
        process.kill()
        process.wait()


@pytest.fixture
def agent(program: Path) -> Iterator[Agent]:
    with running(program) as agent:
        yield agent


def test_exit_codes_and_both_outputs(agent: Agent) -> None:
    assert agent.shell("echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")
    assert agent.shell("kill -TERM $$")[0] == -15
    assert agent.shell("cat", b"through")[:2] == (0, b"through")
    assert agent.plain.ended == ["sh -c echo out; echo err >&2; exit 3", "sh -c kill -TERM $$", "sh -c cat"]


def test_environment_arguments_and_folder(agent: Agent) -> None:
    script = 'echo "$X|$1|$2|$PWD"; ulimit -n; sed -n "s/^Sig[BI][lg][kn]:.//p" /proc/self/status'
    stream = agent.spawn("sh", "-c", script, "sh", "a b", "", env={"X": "1 2"}, cwd="/tmp")
    limit = str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    lines = stream.communicate(b"", 10, MIB).decode().splitlines()
    assert lines[:2] == ["1 2|a b||/tmp", limit]
    blocked, ignored = (int(mask, 16) for mask in lines[2:])
    # Signals 32 and 33 are libc's own; make 4.3 leaves them ignored, and libc lets nobody change that.
    assert (blocked, ignored & ~(3 << 31)) == (0, 0)


def test_a_program_that_is_not_there(agent: Agent) -> None:
    stream = agent.spawn("/no/such/program")
    stream.communicate(b"", 10, MIB)
    with pytest.raises(CommandFailed, match="could not be started: /no/such/program: No such file"):
        stream.exit_code()
    with pytest.raises(CommandFailed, match="No such file"):
        agent.spawn("true", cwd="/no/such/folder").wait(10)


def test_every_byte_both_ways(agent: Agent) -> None:
    data = bytes(range(256)) * 64
    assert agent.shell("cat", data)[1] == data


def test_large_transfers_arrive_whole(agent: Agent) -> None:
    data = random.Random(1).randbytes(64 * MIB)
    code, output, _ = agent.shell("cat", data, timeout=60)
    assert code == 0
    assert hashlib.sha256(output).digest() == hashlib.sha256(data).digest()


def test_a_slow_reader_stops_the_writer_and_memory_is_bounded(agent: Agent) -> None:
    streams = [agent.spawn("sh", "-c", "yes 0123456789abcde") for _ in range(20)]
    first = [stream.read(1024) for stream in streams]
    time.sleep(1)
    assert len(set(first)) == 1
    assert psutil.Process(agent.pid()).memory_info().rss < 8 * MIB
    assert agent.channel.ping(5) is not None
    # As much as was sent is there, and then it goes on without a gap.
    assert streams[0].read(4 * WINDOW) == (b"0123456789abcde\n" * (4 * WINDOW // 16))
    for stream in streams:
        stream.kill()
        assert stream.wait(10) == -9


def test_a_program_that_does_not_read_holds_nobody_up(agent: Agent) -> None:
    stuck = agent.spawn("sleep", "100")
    writer = threading.Thread(target=lambda: stuck.write(b"x" * 4 * MIB, 30))
    writer.start()
    assert agent.shell("echo fine")[1] == b"fine\n"
    assert psutil.Process(agent.pid()).memory_info().rss < 8 * MIB
    assert writer.is_alive()
    stuck.kill()
    writer.join(10)
    assert not writer.is_alive()
    assert stuck.wait(10) == -9


def test_input_for_a_program_that_has_closed_it_is_dropped(agent: Agent) -> None:
    assert agent.shell("exec <&-; sleep 0.2; echo done", b"x" * 2 * MIB)[:2] == (0, b"done\n")
    assert agent.shell("head -c 10", b"0123456789" * MIB)[:2] == (0, b"0123456789")


def test_many_at_once(agent: Agent) -> None:
    streams = [agent.spawn("sh", "-c", f"read x; echo $x {number}; exit {number % 200}") for number in range(300)]
    for number, stream in enumerate(streams):
        stream.write(f"word{number}\n".encode())
    for number, stream in enumerate(streams):
        assert stream.read(len(f"word{number} {number}\n")) == f"word{number} {number}\n".encode()
        assert stream.wait(20) == number % 200


def test_a_kill_reaches_the_whole_session(agent: Agent) -> None:
    stream = agent.spawn("bash", "-c", "set -m; sleep 1000 & (trap '' TERM; sleep 1000) & echo ready; wait")
    stream.read(6)
    stream.kill()
    assert stream.wait(10) == -9
    assert agent.shell("cat /proc/*/comm 2>/dev/null")[1].decode().split().count("sleep") == 0


def test_a_child_left_behind_does_not_hold_up_the_end(agent: Agent) -> None:
    begin = time.monotonic()
    code, output, _ = agent.shell("(sleep 100; echo late) & echo early")
    assert (code, output) == (0, b"early\n")
    assert time.monotonic() - begin < 10


def test_output_before_the_end_is_never_lost(agent: Agent) -> None:
    for _ in range(50):
        code, output, _ = agent.shell("head -c 60000 /dev/zero; sleep 100 & exit 7")
        assert (code, len(output)) == (7, 60000)


def test_time_outs(agent: Agent) -> None:
    with pytest.raises(CommandTimeout, match=r"needed more than 0.3 s to end"):
        agent.shell("sleep 100", timeout=0.3)
    with pytest.raises(CommandTimeout, match="to answer"):
        agent.spawn("sleep", "100").read(1, 0.3)
    with pytest.raises(CommandTimeout, match="to read its stdin"):
        agent.spawn("sleep", "100").write(b"x" * MIB, 0.3)
    stream = agent.spawn("cat")
    with pytest.raises(TimeoutError):
        stream.read_some(1, 0.1)
    stream.write(b"alive")
    assert stream.read_some(100) == b"alive"


def test_an_end_in_the_middle_of_an_answer(agent: Agent) -> None:
    stream = agent.spawn("sh", "-c", "echo half; echo why >&2; exit 4")
    with pytest.raises(CommandFailed, match=r"(?s)exit code 4\) 15 bytes before the end of an answer of 20.*half.*why"):
        stream.read(20)


def test_files(agent: Agent) -> None:
    data = random.Random(2).randbytes(3 * MIB)
    agent.files.put(data, "/tmp/file", 0o640, 10)
    assert agent.files.get("/tmp/file", 0, None, 10) == data
    assert agent.files.get("/tmp/file", MIB, 1000, 10) == data[MIB : MIB + 1000]
    assert agent.files.get("/tmp/file", 3 * MIB - 5, 1000, 10) == data[-5:]
    assert agent.shell("stat -c %a /tmp/file")[1] == b"640\n"
    agent.files.put(b"", "/tmp/file", 0o644, 10)
    assert agent.files.get("/tmp/file", 0, None, 10) == b""
    agent.files.write("/tmp/file", b"text", 10)
    agent.shell("mkdir /tmp/folder; echo 1 > /tmp/folder/a; echo 2 > /tmp/folder/b; mkdir /tmp/folder/c")
    assert agent.files.read_many(["/tmp/file", "/none", "/tmp/folder/", "/tmp/folder"], 10) == {
        "/tmp/file": b"text",
        "/none": None,
        "/tmp/folder/a": b"1\n",
        "/tmp/folder/b": b"2\n",
        "/tmp/folder": None,
    }


def test_another_process_memory_at_a_high_address(agent: Agent) -> None:
    stream = agent.spawn("sh", "-c", "echo $$; cat /proc/$$/maps; read x")
    pid = int(stream.read_some(100).split()[0])
    maps = agent.files.get(f"/proc/{pid}/maps", 0, None, 10).decode()
    stack = next(line for line in maps.splitlines() if "[stack]" in line)
    start, end = (int(word, 16) for word in stack.split()[0].split("-"))
    assert len(agent.files.get(f"/proc/{pid}/mem", start, end - start, 10)) == end - start
    stream.kill()


@pytest.mark.parametrize(
    ("path", "errno"), [("/proc/none", 2), ("/tmp", 21), ("/proc/self/mem", 5), ("/etc/passwd/x", 20)]
)
def test_files_that_cannot_be_read(agent: Agent, path: str, errno: int) -> None:
    with pytest.raises(GuestFileError, match=path) as caught:
        agent.files.get(path, 0, None, 10)
    assert caught.value.errno in (errno, 2)


def test_files_that_cannot_be_written(agent: Agent) -> None:
    with pytest.raises(GuestFileError, match="No such file") as caught:
        agent.files.write("/tmp/none", b"x", 10)
    assert caught.value.errno == 2
    with pytest.raises(GuestFileError, match="Invalid argument") as caught:
        agent.files.write("/proc/self/oom_score_adj", b"nonsense", 10)
    assert caught.value.errno == 22


def test_an_idle_agent_executes_nothing(agent: Agent) -> None:
    waiting = [agent.spawn("cat") for _ in range(5)]
    agent.channel.ping(5)
    process = psutil.Process(agent.pid())
    time.sleep(0.3)
    before = process.cpu_times(), process.num_ctx_switches()
    time.sleep(1)
    assert (process.cpu_times(), process.num_ctx_switches()) == before
    for stream in waiting:
        assert stream.wait(5) == 0


def test_a_closed_channel_tells_everybody(agent: Agent) -> None:
    stream = agent.spawn("sleep", "100")
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            stream.wait(30)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    agent.process.kill()
    thread.join(10)
    assert isinstance(caught[0], ChannelClosed)
    with pytest.raises(ChannelClosed):
        agent.spawn("true")


def inject(agent: Agent, data: bytes) -> None:
    """Send bytes past the channel."""
    while data:
        select.select([], [agent.sock], [], 5)
        data = data[os.write(agent.sock.fileno(), data) :]


# The program that runs meanwhile has id 1.
BAD = {
    "unknown type": HEADER.pack(0, 1, 77),
    "from the guest": HEADER.pack(0, 1, FrameType.STDOUT),
    "too long": HEADER.pack(0xFFFFFFFF, 1, FrameType.STDIN),
    "no strings": Frame(1, FrameType.EXEC, b"").encode(),
    "no argv": Frame(1, FrameType.EXEC, b"\0" * 9).encode(),
    "too few strings": Frame(1, FrameType.EXEC, b"\x05\0\0\0\0\0\0\0a\0b\0").encode(),
    "too many strings": Frame(1, FrameType.EXEC, b"\x01\0\0\0\0\0\0\0a\0b\0c\0").encode(),
    "no NUL": Frame(1, FrameType.EXEC, b"\x01\0\0\0\0\0\0\0a\0b").encode(),
    "counts that overflow": Frame(1, FrameType.EXEC, b"\xff\xff\xff\xff\x03\0\0\0a\0b\0").encode(),
    "open id": Frame(1, FrameType.EXEC, encode_start(["true"], {}, "")).encode(),
    "short resume": Frame(1, FrameType.RESUME, b"x" * 8).encode(),
    "long resume": Frame(1, FrameType.RESUME, b"x" * 265).encode(),
    "long ping": Frame(1, FrameType.PING, b"x" * 257).encode(),
    "short kill": Frame(1, FrameType.KILL, b"\x09").encode(),
    "beyond the window": Frame(1, FrameType.STDIN, b"x" * 32768).encode() * 12,
    "after the end": Frame(1, FrameType.STDIN_END).encode() + Frame(1, FrameType.STDIN, b"x").encode(),
}


@pytest.mark.parametrize("name", BAD)
def test_the_agent_refuses_what_is_no_protocol(agent: Agent, name: str) -> None:
    waiting = agent.spawn("sleep", "100")
    inject(agent, BAD[name])
    with pytest.raises(ChannelClosed):
        waiting.wait(10)
    assert isinstance(agent.channel.failure, ProtocolError)
    assert "the agent gave up: " in str(agent.channel.failure)


def test_late_frames_are_dropped(agent: Agent) -> None:
    for kind in (FrameType.STDIN, FrameType.STDIN_END, FrameType.CREDIT, FrameType.KILL):
        agent.channel.send(Frame(4242, kind, encode_number(9)))
    assert agent.shell("echo fine")[1] == b"fine\n"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=300), st.integers(0, 50))
def test_no_garbage_crashes_the_agent(program: Path, garbage: bytes, kind: int) -> None:
    """It answers, gives up with a reason, or waits for the rest of a frame; it never dies of a signal."""
    with running(program) as agent:
        inject(agent, HEADER.pack(len(garbage), 1, kind) + garbage + garbage)
        time.sleep(0.02)
        if agent.channel.failure is None and agent.process.poll() is None:
            return
        # 1: it gave up. 0: it answered an id that the channel had not opened, and the channel gave up.
        assert agent.process.wait(5) in (0, 1)
        end = time.monotonic() + 5
        while agent.channel.failure is None and time.monotonic() < end:
            time.sleep(0.01)  # the channel notices a moment after the process has gone
        assert isinstance(agent.channel.failure, ProtocolError)
