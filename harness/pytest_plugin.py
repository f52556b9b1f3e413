# SPDX-License-Identifier: MIT
"""pytest plugin: hands guests to tests, and fails the test in which a guest's kernel complains.

    def test_ksm_is_there(guest):
        assert guest.read("/sys/kernel/mm/ksm/run") == "0"

    @pytest.mark.guest(memory_mib=2048, cpus=4)
    def test_with_a_larger_guest(fresh_guest): ...

`guest` is shared by the tests of a file; one that is not healthy any more, or not of the size that a test asks for, is
replaced. `fresh_guest` is for one test. Both are restored from a snapshot (harness/guest/snapshot.py), which takes a
fraction of a second; with `--no-snapshot` each is booted. A conftest's `pytest_guest_end(guest)` has the last look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    # Imported when the first guest is asked for: tests without one start at once.
    from harness.config import Config
    from harness.guest.guest import Guest
    from harness.guest.spec import GuestSpec
    from harness.image import Image

CONSOLE_LINES = 60
"""Lines of the console that are shown with a test that failed."""

_guests = pytest.StashKey[list["Guest"]]()
_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    group = parser.getgroup("samepage", "guests under QEMU")
    group.addoption(
        "--samepage-kernel", metavar="NAME", help="kernel of the guests, such as 6.12 (default: configured)"
    )
    group.addoption("--no-snapshot", action="store_true", help="boot every guest in place of restoring a snapshot")
    group.addoption(
        "--samepage-coverage", metavar="FOLDER", type=Path, help="leave the counts of guests' kernels there (gcov)"
    )


class _Hooks:
    """What a conftest may define."""

    def pytest_guest_end(self, guest: Guest) -> None:
        """Look at a guest of these fixtures before it ends, if it is healthy. What this raises fails a test."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Make the hook known."""
    pluginmanager.add_hookspecs(_Hooks)


def pytest_configure(config: pytest.Config) -> None:
    """Explain the marks."""
    config.addinivalue_line(
        "markers", "guest(**spec): size and kernel arguments of the test's guest, see harness.guest.spec.GuestSpec"
    )
    config.addinivalue_line("markers", "splats_allowed: the test itself judges what its guest's kernel complains of")


@pytest.fixture(scope="session")
def config(pytestconfig: pytest.Config) -> Config:
    """The configuration of the project under test, with the kernel that the command line names."""
    from harness.config import load_config
    from harness.kernel import for_kernel

    config = load_config(pytestconfig.rootpath)
    config = for_kernel(config, pytestconfig.getoption("--samepage-kernel") or config.kernel)
    snapshots = config.guest_snapshots and not pytestconfig.getoption("--no-snapshot")
    return dataclasses.replace(config, guest_snapshots=snapshots)


@pytest.fixture(scope="session")
def image(config: Config) -> Image:
    """The image that guests boot, built when it is missing."""
    from harness.image import ensure_image

    return ensure_image(config, config.kernel)


@dataclasses.dataclass
class _SharedGuest:
    """The guest that the tests of a file share."""

    config: Config
    image: Image
    folders: pytest.TempPathFactory
    pytest: pytest.Config
    guest: Guest | None = None
    asked: GuestSpec | None = None
    """For this one; the guest's own has what its kernel needs."""

    def get(self, spec: GuestSpec) -> Guest:
        """Return a pristine guest of this size, a new one if need be."""
        if self.guest is None or not self.guest.pristine or self.asked != spec:
            self.close()
            self.asked = spec
            self.guest = _start(self.config, self.image, spec, self.folders.mktemp("guest"))
        return self.guest

    def close(self) -> None:
        """End it. What the kernel complained of was reported with the test in which it happened."""
        guest, self.guest = self.guest, None
        if guest is not None:
            _close(guest, self.pytest)


def _close(guest: Guest, config: pytest.Config) -> None:
    from harness.guest.coverage import save_coverage

    coverage = config.getoption("--samepage-coverage")
    try:
        if guest.healthy:
            config.hook.pytest_guest_end(guest=guest)
    finally:
        try:
            if coverage is not None and guest.healthy:
                save_coverage(guest, coverage)
        finally:
            guest.close()


@pytest.fixture(scope="module")
def _shared_guest(
    pytestconfig: pytest.Config, config: Config, image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_SharedGuest]:
    shared = _SharedGuest(config, image, tmp_path_factory, pytestconfig)
    yield shared
    shared.close()


@pytest.fixture
def guest(request: pytest.FixtureRequest, _shared_guest: _SharedGuest) -> Iterator[Guest]:
    """A guest that the tests of this file share."""
    guest = _shared_guest.get(_spec(request))
    yield from _watch(request, guest)


@pytest.fixture
def fresh_guest(request: pytest.FixtureRequest, config: Config, image: Image, tmp_path: Path) -> Iterator[Guest]:
    """A guest of this test's own."""
    guest = _start(config, image, _spec(request), tmp_path / "guest")
    try:
        yield from _watch(request, guest)
    finally:
        _close(guest, request.config)


def _spec(request: pytest.FixtureRequest) -> GuestSpec:
    from harness.guest.spec import GuestSpec

    mark = request.node.get_closest_marker("guest")
    return GuestSpec(**mark.kwargs) if mark else GuestSpec()


def _start(config: Config, image: Image, spec: GuestSpec, folder: Path) -> Guest:
    from harness.guest.snapshot import start_guest

    return start_guest(config, image, spec, folder)


def _watch(request: pytest.FixtureRequest, guest: Guest) -> Iterator[Guest]:
    """Hand out the guest, and see afterwards that its kernel did not complain behind the test's back."""
    node = request.node
    node.stash.setdefault(_guests, []).append(guest)
    before = len(guest.splats)
    yield guest
    if node.get_closest_marker("splats_allowed") is not None:
        return
    if guest.running and not guest.log.unreadable:
        guest.log.check(f"the end of {node.name}")
    unexpected = [splat for splat in guest.splats[before:] if not splat.expected]
    if unexpected and not node.stash.get(_failed, False):
        titles = "\n".join(splat.title for splat in unexpected)
        pytest.fail(f"the test passed although the kernel complained:\n{titles}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    """Attach the end of the console to a test that failed."""
    report: pytest.TestReport = yield  # type: ignore[misc, assignment]
    if report.failed:
        item.stash[_failed] = True
        for guest in item.stash.get(_guests, []):
            lines = "\n".join(guest.console.last_lines(CONSOLE_LINES))
            report.sections.append((f"Console of the guest, whole in {guest.folder}/console.log", lines))
    return report  # type: ignore[return-value]
