# SPDX-License-Identifier: MIT
"""Building the tests from a kernel's source package, as it is, with that kernel's own user headers (linux-libc-dev)."""

from __future__ import annotations

from pathlib import Path

from harness.config import Config
from harness.errors import CheckFailed, SamepageError
from harness.kernel import base_of
from harness.packages.source import kernel_source
from harness.sandbox import Sandbox
from harness.store import built_folder, key_of
from harness.toolroot import tool_root, unpacked_groups

_SELFTESTS = "tools/testing/selftests"
_PATHS = (f"{_SELFTESTS}/kselftest.h", "include/vdso")
_FOLDERS = (f"{_SELFTESTS}/mm", f"{_SELFTESTS}/vm")  # `vm` until Linux 6.3
PROGRAMS = ("ksm_tests", "ksm_functional_tests")
_HELPERS = ("vm_util.c", "thp_settings.c", "hugepage_settings.c")
"""What selftests/mm/Makefile links with every test; each kernel has some of them."""

# As the kernel's Makefile has it, but static, and with the headers that it would make installed already.
_FLAGS = (
    "-Wall",
    "-O2",
    "-static",
    "-D_GNU_SOURCE=",
    "-I/linux",
    f"-I/linux/{_SELFTESTS}",
    "-isystem/libs/usr/include",
)
_LIBRARIES = ("-L/libs/usr/lib/x86_64-linux-gnu", "-lrt", "-lpthread", "-lm", "-lnuma")


def build_selftests(config: Config, kernel: str) -> dict[str, Path]:
    """Return the static programs of one kernel by name; what that kernel's source does not have is absent.

    Raises CheckFailed with gcc's messages when one does not compile.
    """
    kernel = base_of(config, kernel)
    source = kernel_source(config, kernel, _PATHS, optional=_FOLDERS)
    folder = next((folder for folder in _FOLDERS if (source / folder / f"{PROGRAMS[0]}.c").is_file()), None)
    if folder is None:
        raise SamepageError(
            f"holds no {PROGRAMS[0]}.c in {' or '.join(_FOLDERS)}", where=f"the source of Linux {kernel}"
        )
    tools = tool_root(config, f"kernel-{kernel}")
    libraries = unpacked_groups(config, f"kernel-{kernel}", ["selftests"])
    names = [name for name in PROGRAMS if (source / folder / f"{name}.c").is_file()]
    helpers = [name for name in _HELPERS if (source / folder / name).is_file()]

    def build(partial: Path) -> None:
        for name in names:
            line = ["gcc", *_FLAGS, f"{name}.c", *helpers, "-o", f"/out/{name}", *_LIBRARIES]
            mounts = {source: "/linux", libraries: "/libs"}
            result = Sandbox(tools).run(line, ro=mounts, rw={partial: "/out"}, cwd=f"/linux/{folder}", check=False)
            if result.returncode != 0:
                said = result.stderr.decode(errors="replace").strip()
                raise CheckFailed(f"{name} does not compile:\n{said}", where=source / folder)

    key = key_of(source.name, tools.name, libraries.name, *_FLAGS, *_LIBRARIES, *names, *helpers)
    built = built_folder(config.cache / "selftests" / f"{kernel}-{key}", build, keep=2)
    return {name: built / name for name in names}
