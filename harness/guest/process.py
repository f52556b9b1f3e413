# SPDX-License-Identifier: MIT
"""QEMU as a child that cannot outlive the harness.

bubblewrap asks the kernel to kill it when its parent dies (PR_SET_PDEATHSIG), and takes QEMU with it: QEMU runs in a
process-id namespace whose first process is bubblewrap. That signal comes when the *thread* dies which started it, so
one thread, which lives as long as the harness, starts all of them. A session of its own keeps Ctrl-C away from QEMU:
the harness gets it and ends its guests in order.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SamepageError

_END_TIMEOUT = 10.0


@dataclass(frozen=True)
class _Job:
    argv: Sequence[str]
    descriptors: Sequence[int]
    output: Path
    result: Future[subprocess.Popen[bytes]]


class _Launcher:
    """The thread that is the parent of every QEMU."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, argv: Sequence[str], descriptors: Sequence[int], output: Path) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="samepage-launcher", daemon=True)
                self._thread.start()
        job = _Job(argv, descriptors, output, Future())
        self._jobs.put(job)
        return job.result.result()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                with job.output.open("wb") as output:
                    job.result.set_result(
                        subprocess.Popen(
                            job.argv,
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=subprocess.STDOUT,
                            pass_fds=job.descriptors,
                            start_new_session=True,
                        )
                    )
            except BaseException as error:
                job.result.set_exception(error)


_launcher = _Launcher()


class QemuProcess:
    """A running QEMU."""

    def __init__(self, argv: Sequence[str], descriptors: Sequence[int], log: Path) -> None:
        """Start `argv` with these descriptors inherited; what QEMU says goes to `log`."""
        self._log = log
        try:
            self._process = _launcher.start(argv, descriptors, log)
        except FileNotFoundError as error:
            raise SamepageError("is not installed", where=argv[0], hint=f"apt-get install {argv[0]}") from error

    @property
    def pid(self) -> int:
        """The host's id of the process that holds QEMU (bubblewrap's)."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether QEMU has not ended yet."""
        return self._process.poll() is None

    def said(self) -> str:
        """Return what QEMU wrote to stdout and stderr."""
        return self._log.read_text("utf-8", "replace").strip()

    def wait(self, timeout: float) -> int | None:
        """Return the exit code (minus the signal's number for a killed one), or None after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End QEMU at once and wait until it is gone."""
        if self.running:
            self._process.send_signal(signal.SIGKILL)
        if self.wait(_END_TIMEOUT) is None:
            raise SamepageError(f"QEMU (process {self.pid}) cannot be killed: it hangs in the host's kernel")
