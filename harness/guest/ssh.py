# SPDX-License-Identifier: MIT
"""ssh into a guest without a network: `sshd -i` runs as a program over the command channel, paramiko speaks to it.

Keys are made fresh for each guest and never leave this process and that guest; the host's key is known beforehand.
"""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness.errors import CheckFailed
from harness.guest.errors import CommandFailed
from harness.guest.stream import Stream

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
AUTHORIZED_KEYS = "/root/.ssh/authorized_keys"
ATTEMPTS = 3
CONNECT_TIMEOUT = 60.0
"""Seconds for one attempt: under emulation the key exchange alone takes some."""

_NAME = "guest"
_log = logging.getLogger(__name__)


class SshFailed(CheckFailed):
    """No ssh session could be had with a guest that answers otherwise."""


class _GuestAccess(Protocol):
    """What of a guest is needed here."""

    def put(self, data: bytes, path: str, mode: int = ..., timeout: float = ...) -> None: ...

    def run(self, argv: Sequence[str]) -> object: ...

    def spawn(self, argv: Sequence[str]) -> Stream: ...


@dataclass(frozen=True)
class Keys:
    """The two key pairs of a guest."""

    client: paramiko.Ed25519Key
    host: paramiko.Ed25519Key
    host_private: bytes

    @classmethod
    def generate(cls) -> Keys:
        """Make fresh ones."""
        (client, _), (host, host_private) = _key_pair(), _key_pair()
        return cls(client, host, host_private)


def _key_pair() -> tuple[paramiko.Ed25519Key, bytes]:
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return paramiko.Ed25519Key(file_obj=io.StringIO(private.decode())), private


def install_keys(guest: _GuestAccess, keys: Keys) -> None:
    """Give the guest's sshd its host key and our public key."""
    guest.run(["mkdir", "-p", "-m", "0700", "/root/.ssh", "/run/sshd"])
    guest.put(keys.host_private, HOST_KEY, 0o600)
    public = f"{keys.client.get_name()} {keys.client.get_base64()} samepage\n"
    guest.put(public.encode(), AUTHORIZED_KEYS, 0o600)


def connect(guest: _GuestAccess, keys: Keys, factor: float = 1.0) -> paramiko.SSHClient:
    """Return a session as root. A first attempt that fails is made again, twice, and logged."""
    failure: Exception | None = None
    for attempt in range(1, ATTEMPTS + 1):
        stream = guest.spawn(["/usr/sbin/sshd", "-i", "-e"])
        try:
            return _connect_over(stream, keys, CONNECT_TIMEOUT * factor)
        except (paramiko.SSHException, EOFError, OSError, CommandFailed) as error:
            said = stream.stderr.decode(errors="replace").strip()
            stream.kill()
            _log.warning("ssh: attempt %d of %d failed: %s; sshd said: %s", attempt, ATTEMPTS, error, said)
            failure = SshFailed(f"no session after {attempt} attempts: {error}; sshd said: {said}", where="ssh")
    assert failure is not None
    raise failure


def _connect_over(stream: Stream, keys: Keys, timeout: float) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.get_host_keys().add(_NAME, keys.host.get_name(), keys.host)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        _NAME,
        username="root",
        pkey=keys.client,
        sock=cast(socket.socket, StreamSocket(stream)),
        timeout=timeout,
        banner_timeout=timeout,
        auth_timeout=timeout,
        allow_agent=False,
        look_for_keys=False,
    )
    return client


class StreamSocket:
    """As much of a socket as paramiko needs, over a program's stdin and stdout."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._timeout: float | None = None
        self._closed = False

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that recv waits; None for ever."""
        self._timeout = timeout

    def recv(self, size: int) -> bytes:
        """Return some bytes, none at the end; raises TimeoutError."""
        try:
            return self._stream.read_some(size, self._timeout)
        except CheckFailed:
            return b""  # whoever uses the guest otherwise is told why it is gone

    def send(self, data: bytes) -> int:
        """Send all of `data`."""
        if self._closed:
            raise OSError("the session is closed")
        self._stream.write(data)
        return len(data)

    def close(self) -> None:
        """End sshd, and the session with it."""
        if not self._closed:
            self._closed = True
            self._stream.close_stdin()

    def getpeername(self) -> tuple[str, int]:
        """Return a name for logs."""
        return (_NAME, 0)
