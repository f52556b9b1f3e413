# SPDX-License-Identifier: MIT
"""Loads, changes and verifies the data sets of redis servers, over their unix sockets.

Usage: redis_client.py load|change|digest|pid SEED MIB ROUND SOCKET...
Prints one JSON document: a list with an answer for each socket.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator

from .data import digest, noise

VALUE_BYTES = 512
BATCH = 256
EVERY = 8
"""One in so many runs of values is changed when a change is asked for."""
RUN = 128
"""Neighbouring values that are alike in whose they are and when they change, as values that came together would be."""


def keys(mib: int) -> list[str]:
    """Return the keys of a data set of about so many MiB."""
    return [f"item:{number:07}" for number in range((mib << 20) // VALUE_BYTES)]


def changes(number: int, round_number: int) -> bool:
    """Whether a key's value is changed in a round."""
    return number // RUN % EVERY == round_number % EVERY


def value(seed: int, instance: int, number: int, rounds: int) -> bytes:
    """Return what a key must hold after so many rounds of changes; three quarters are the same in all instances."""
    changed = max((done for done in range(1, rounds + 1) if changes(number, done)), default=0)
    return noise(VALUE_BYTES, seed, instance if number // RUN % 4 == 3 else "all", number, changed)


def expected_digest(seed: int, instance: int, mib: int, rounds: int) -> str:
    """Return the digest that an instance must give."""
    return digest([value(seed, instance, number, rounds) for number in range(len(keys(mib)))])


class Redis:
    """A connection, with as much of the protocol as is needed."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(120)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")

    def ask(self, commands: list[list[bytes]]) -> list[bytes]:
        """Send commands together and return their answers."""
        request = b"".join(
            b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in command)
            for command in commands
        )
        self._socket.sendall(request)
        return [self._answer() for _ in commands]

    def _answer(self) -> bytes:
        line = self._file.readline().rstrip(b"\r\n")
        if line[:1] == b"$" and line != b"$-1":
            return self._file.read(int(line[1:]) + 2)[:-2]
        if line[:1] in (b"+", b":"):
            return line[1:]
        raise SystemExit(f"redis answers {line!r}")


def batches(items: list[list[bytes]]) -> Iterator[list[list[bytes]]]:
    """Cut a list of commands into parts."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def work(redis: Redis, verb: str, seed: int, mib: int, rounds: int, instance: int) -> object:
    """Do what is asked of one server."""
    names = keys(mib)
    if verb == "pid":
        info = redis.ask([[b"INFO", b"server"]])[0].decode()
        return next(int(line.partition(":")[2]) for line in info.splitlines() if line.startswith("process_id:"))
    if verb == "digest":
        gets = [[b"GET", name.encode()] for name in names]
        return digest([found for part in batches(gets) for found in redis.ask(part)])
    if verb == "load":
        chosen = list(range(len(names)))
    else:
        assert verb == "change", verb
        chosen = [number for number in range(len(names)) if changes(number, rounds)]
    sets = [[b"SET", names[number].encode(), value(seed, instance, number, rounds)] for number in chosen]
    for part in batches(sets):
        assert set(redis.ask(part)) == {b"OK"}
    return len(chosen)


def main() -> None:
    """Do what is asked of each server."""
    verb, (seed, mib, rounds), paths = sys.argv[1], map(int, sys.argv[2:5]), sys.argv[5:]
    print(json.dumps([work(Redis(path), verb, seed, mib, rounds, n) for n, path in enumerate(paths)]))


if __name__ == "__main__":
    main()
