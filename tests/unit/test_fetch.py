# SPDX-License-Identifier: MIT
"""Downloads against a server of our own: what is kept, what is refused, what goes on where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.config import Config, load_config
from harness.errors import SamepageError
from harness.packages.fetch import fetch_packages, verify_cached
from harness.packages.lock import Lock, Package

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SNAPSHOT = "20261123T120000Z"


def package(name: str, content: bytes = CONTENT) -> Package:
    return Package(
        name=name,
        version="1.0",
        suite="trixie",
        groups=["x"],
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        path=f"pool/main/{name}_1.0~x+y_all.deb",
    )


@dataclass
class Server:
    """Serves `files`; breaks off after `break_after` bytes of each answer; remembers what it was asked."""

    files: dict[str, bytes]
    url: str = ""
    break_after: int | None = None
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    state = Server(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers["Range"]))
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers["Range"] else 0
            if not state.ranges:
                start = 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = None if state.break_after is None else start + state.break_after
            self.wfile.write(content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def mirror() -> Iterator[Server]:
    with serving({}) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, mirror: Server, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    base = load_config(tmp_path, {})
    return dataclasses.replace(base, cache=tmp_path, mirror=f"{mirror.url}/debian/", snapshot=f"{mirror.url}/snapshot")


def fetch(config: Config, *packages: Package) -> dict[str, Path]:
    return fetch_packages(config, "recipe", Lock(format=1, snapshot=SNAPSHOT, package=list(packages)), packages)


def on_mirror(item: Package) -> str:
    return f"/debian/{item.path}"


def in_snapshot(item: Package) -> str:
    return f"/snapshot/{SNAPSHOT}/{item.path}"


def test_from_the_mirror_then_from_the_cache(config: Config, mirror: Server) -> None:
    one, two = package("one"), package("two", b"2" * 1000)
    mirror.files = {on_mirror(one): CONTENT, on_mirror(two): b"2" * 1000}
    files = fetch(config, one, two)
    assert files["one"].read_bytes() == CONTENT
    assert files["one"].name == f"{one.sha256}.deb"
    assert files["two"].read_bytes() == b"2" * 1000
    mirror.files, mirror.asked = {}, []
    assert fetch(config, one, two) == files
    assert mirror.asked == []


def test_from_the_snapshot_service_when_the_mirror_dropped_it(config: Config, mirror: Server) -> None:
    one = package("one")
    mirror.files = {in_snapshot(one): CONTENT}
    assert fetch(config, one)["one"].read_bytes() == CONTENT
    assert [path for path, _ in mirror.asked] == [on_mirror(one), in_snapshot(one)]


def test_from_the_snapshot_service_when_the_mirror_is_down(config: Config, mirror: Server) -> None:
    one = package("one")
    mirror.files = {in_snapshot(one): CONTENT}
    config = dataclasses.replace(config, mirror="http://127.0.0.1:9")
    assert fetch(config, one)["one"].read_bytes() == CONTENT


def test_vanished_version_names_it_and_the_command(config: Config) -> None:
    with pytest.raises(SamepageError) as caught:
        fetch(config, package("gone"))
    message = str(caught.value)
    assert "gone 1.0 has vanished" in message
    assert "samepage lock recipe" in message
    assert caught.value.exit_code == 2


def test_unreachable_sources_are_not_called_vanished(config: Config) -> None:
    config = dataclasses.replace(config, mirror="http://127.0.0.1:9", snapshot="http://127.0.0.1:9")
    with pytest.raises(SamepageError, match="cannot be fetched") as caught:
        fetch(config, package("one"))
    assert "Connection refused" in str(caught.value)


def test_wrong_content_is_refused_and_removed(config: Config, mirror: Server) -> None:
    one = package("one")
    mirror.files = {on_mirror(one): CONTENT[:-1] + b"!", in_snapshot(one): CONTENT}
    with pytest.raises(SamepageError, match="not the one that was locked") as caught:
        fetch(config, one)
    assert one.sha256 in str(caught.value)
    left = [path.name for path in (config.cache / "packages").iterdir() if path.suffix != ".lock"]
    assert left == []


def test_another_size_is_another_file(config: Config, mirror: Server) -> None:
    one = package("one")
    mirror.files = {on_mirror(one): b"<html>please log in</html>", in_snapshot(one): CONTENT}
    assert fetch(config, one)["one"].read_bytes() == CONTENT


def test_goes_on_where_it_stopped(config: Config, mirror: Server) -> None:
    one = package("one")
    mirror.files, mirror.break_after = {on_mirror(one): CONTENT}, 300_000
    with pytest.raises(SamepageError, match="broke off after 300000"):
        fetch(config, one)
    mirror.break_after, mirror.asked = None, []
    assert fetch(config, one)["one"].read_bytes() == CONTENT
    assert mirror.asked == [(on_mirror(one), "bytes=300000-")]


def test_begins_again_where_the_server_knows_no_ranges(config: Config, mirror: Server) -> None:
    one = package("one")
    mirror.files, mirror.break_after, mirror.ranges = {on_mirror(one): CONTENT}, 300_000, False
    with pytest.raises(SamepageError):
        fetch(config, one)
    mirror.break_after = None
    assert fetch(config, one)["one"].read_bytes() == CONTENT


def test_no_space_is_said_before_the_download(config: Config, mirror: Server) -> None:
    huge = Package(**{name: getattr(package("one"), name) for name in Package.__struct_fields__} | {"size": 2**60})
    with pytest.raises(SamepageError, match="MiB are needed"):
        fetch(config, huge)
    assert mirror.asked == []


def test_a_damaged_cache_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "x.deb"
    file.write_bytes(b"rotten")
    with pytest.raises(SamepageError, match="was damaged"):
        verify_cached(package("one"), file)
    assert not file.exists()
