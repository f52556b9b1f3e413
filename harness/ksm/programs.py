# SPDX-License-Identifier: MIT
"""Real programs whose every answer is known: started, asked, changed and ended in a guest."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path

from harness.errors import CheckFailed
from harness.guest.guest import Guest
from harness.guest.stream import Stream
from harness.ksm.inguest import redis_client
from harness.ksm.inguest.python_program import Data
from harness.ksm.memwork import MEMWORK

FOLDER = "/run/samepage"
SCRIPTS = Path(__file__).parent / "inguest"
EXEC_MERGE = (MEMWORK, "exec-merge")

START_SECONDS = 300
"""To import half a standard library and build data, several at once in an emulated guest."""
ANSWER_SECONDS = 300


class WrongAnswer(CheckFailed):
    """A program's own data, or its answer to a question, is not what it must be."""


def install(guest: Guest) -> None:
    """Put the scripts into the guest."""
    guest.run(["mkdir", "-p", f"{FOLDER}/inguest"])
    for script in sorted(SCRIPTS.glob("*.py")):
        guest.put(script.read_bytes(), f"{FOLDER}/inguest/{script.name}")


def python_environment(seed: int, instance: int) -> dict[str, str]:
    """Return what makes an instance of the Python program the same in every run."""
    # Hashes are randomised as anywhere. With a threshold of its own choosing malloc puts large objects now on pages of
    # their own, now on the heap, as the addresses of this start happen to be: then no two runs could merge the same.
    return {"PYTHONHASHSEED": str((seed * 1000 + instance) % 2**32), "MALLOC_MMAP_THRESHOLD_": "131072"}


class Programs(ABC):
    """Some instances of one program."""

    name: str
    pids: list[int]

    def __init__(self, guest: Guest, count: int, seed: int, mib: int) -> None:
        self._guest = guest
        self._count = count
        self._seed = seed
        self._mib = mib
        self._round = 0
        self._streams: list[Stream] = []

    @abstractmethod
    def start(self) -> None:
        """Start all instances and give each its data."""

    @abstractmethod
    def change(self) -> None:
        """Let each instance overwrite an eighth of its data."""

    @abstractmethod
    def verify(self) -> None:
        """Compare each instance's whole data, and its answer to a question, with what they must be."""

    @abstractmethod
    def end(self) -> None:
        """Let each instance end in its own way; raises CheckFailed for one that does not end well."""

    def _wait_all(self) -> None:
        for instance, stream in enumerate(self._streams):
            code = stream.wait(ANSWER_SECONDS)
            if code:
                text = stream.stderr.decode(errors="replace").strip()
                raise CheckFailed(f"ended with {code}: {text[-2000:]}", where=f"{self.name} {instance}")

    def _compare(self, instance: int, what: str, expected: object, found: object) -> None:
        if found != expected:
            raise WrongAnswer(
                f"its {what} is wrong: expected {expected!r}, found {found!r}",
                where=f"{self.name} {instance} (pid {self.pids[instance]})",
            )


class PythonPrograms(Programs):
    """inguest/python_program.py."""

    name = "python"

    def start(self) -> None:
        """Start all instances at once."""
        for instance in range(self._count):
            command = [*EXEC_MERGE, "python3", "-m", "inguest.python_program"]
            arguments = [str(self._seed), str(instance), str(self._mib)]
            env = python_environment(self._seed, instance)
            self._streams.append(self._guest.spawn([*command, *arguments], env=env, cwd=FOLDER))
        self._models = [Data(self._seed, instance, self._mib) for instance in range(self._count)]
        self.pids = [pid for pid in self._ask_all({"ask": "pid"}) if isinstance(pid, int)]

    def change(self) -> None:
        """Change the instances, and the models of them."""
        self._round += 1
        self._ask_all({"ask": "change", "round": self._round})
        for model in self._models:
            model.change(self._round)

    def verify(self) -> None:
        """Compare digests of all data and a query's answer."""
        digests = self._ask_all({"ask": "digest"})
        answers = self._ask_all({"ask": "query", "least": 1 << 23})
        for instance, model in enumerate(self._models):
            self._compare(instance, "data", model.digest(), digests[instance])
            self._compare(instance, "answer to a query", model.query(1 << 23), answers[instance])

    def end(self) -> None:
        """End their input."""
        for stream in self._streams:
            stream.close_stdin()
        self._wait_all()

    def _ask_all(self, question: dict[str, object]) -> list[object]:
        text = json.dumps(question).encode()
        for stream in self._streams:
            stream.write(len(text).to_bytes(4, "little") + text)
        answers = []
        for stream in self._streams:
            size = int.from_bytes(stream.read(4, ANSWER_SECONDS), "little")
            answers.append(json.loads(stream.read(size, ANSWER_SECONDS)))
        return answers


class RedisPrograms(Programs):
    """redis-server, with inguest/redis_client.py to talk to it."""

    name = "redis"

    def start(self) -> None:
        """Start all servers and load them."""
        self._sockets = [f"{FOLDER}/redis-{instance}.sock" for instance in range(self._count)]
        for path in self._sockets:
            quiet = ["--save", "", "--appendonly", "no", "--loglevel", "warning", "--dir", FOLDER]
            server = ["redis-server", "--port", "0", "--unixsocket", path, *quiet]
            self._streams.append(self._guest.spawn([*EXEC_MERGE, *server]))
        wait = 'for path; do for try in $(seq 600); do [ -S "$path" ] && break; sleep 0.1; done; done'
        self._guest.run(["sh", "-c", wait, "sh", *self._sockets], timeout=START_SECONDS)
        self.pids = [pid for pid in self._client("pid") if isinstance(pid, int)]
        self._client("load")

    def change(self) -> None:
        """Overwrite values."""
        self._round += 1
        self._client("change")

    def verify(self) -> None:
        """Compare digests of all values."""
        for instance, found in enumerate(self._client("digest")):
            expected = redis_client.expected_digest(self._seed, instance, self._mib, self._round)
            self._compare(instance, "data", expected, found)

    def end(self) -> None:
        """Ask for a shutdown by the signal that is meant for it."""
        for stream in self._streams:
            stream.kill(15)
        self._wait_all()

    def _client(self, verb: str) -> list[object]:
        command = ["python3", "-m", "inguest.redis_client", verb, str(self._seed), str(self._mib), str(self._round)]
        answer = self._guest.run([*command, *self._sockets], cwd=FOLDER, timeout=START_SECONDS)
        answers: list[object] = json.loads(answer.stdout)
        return answers


KINDS: dict[str, type[Programs]] = {"python": PythonPrograms, "redis": RedisPrograms}
