# SPDX-License-Identifier: MIT
"""Where packages come from: the mirror and the proxy that the host's own apt is configured with."""

from __future__ import annotations

import shlex
import subprocess

from harness.config import Config
from harness.errors import SamepageError

_APT_TIMEOUT = 60


def mirror_url(config: Config) -> str | None:
    """Return the root of a Debian mirror, without a slash at its end; None when neither we nor apt know one."""
    url = config.mirror or _host_mirror()
    return None if url is None else url.rstrip("/")


def _host_mirror() -> str | None:
    """Return the first plain Debian archive among the sources of the host's apt."""
    listing = _output("apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages")
    for line in listing.splitlines():
        url, _, label = line.partition(" ")
        # Without downloaded indexes apt does not know the label; the archive's root is called "debian" then.
        is_debian = label == "Debian" or (label == "" and url.rstrip("/").endswith("/debian"))
        if is_debian and url.startswith(("http://", "https://")):
            return url
    return None


def host_proxies() -> dict[str, str]:
    """Return the proxies that the host's apt goes through, by URL scheme (empty: those of the environment)."""
    proxies = {}
    for scheme in ("http", "https"):
        assignment = _output("apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy").strip()
        value = shlex.split(assignment)[0].removeprefix("PROXY=") if assignment else ""
        if value and value != "DIRECT":
            proxies[scheme] = value
    return proxies


def _output(*argv: str) -> str:
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=_APT_TIMEOUT, check=False)
    except FileNotFoundError:
        return ""  # not a Debian host: a mirror can still be named
    except subprocess.TimeoutExpired as error:
        raise SamepageError(f"gave no answer in {_APT_TIMEOUT} s", where=shlex.join(argv)) from error
    return result.stdout
