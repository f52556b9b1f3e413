# SPDX-License-Identifier: MIT
"""Kernels built from a Debian source package, at a fixed path, so that the same inputs give the same bytes.

The source and its objects stay in a work folder of the cache until the build is complete: an interrupted one goes on
where it was. The compiler's results go through ccache, which outlives them.
"""

from __future__ import annotations

import collections
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config import Config
from harness.errors import CheckFailed, SamepageError
from harness.kernel.options import not_granted, read_fragments
from harness.kernel.recipe import BuiltKernelRecipe, fragment_paths
from harness.packages.source import source_deb, source_package
from harness.progress import Step, step
from harness.sandbox import Mounts, Sandbox
from harness.store import remove_tree

SOURCE_PATH = "/build/linux"
_CCACHE_PATH = "/build/ccache"
_OUT_PATH = "/out"
_ENVIRONMENT = {
    "KBUILD_BUILD_TIMESTAMP": "@0",
    "KBUILD_BUILD_USER": "samepage",
    "KBUILD_BUILD_HOST": "samepage",
    "CCACHE_DIR": _CCACHE_PATH,
    "CCACHE_MAXSIZE": "5G",
    "CCACHE_COMPILERCHECK": "content",
}
_SHOWN = 40
"""Lines of the compiler's that an error shows."""


@dataclass(frozen=True)
class KernelBuild:
    """One kernel in the making."""

    config: Config
    name: str
    recipe: BuiltKernelRecipe
    tools: Sandbox
    work: Path
    """Holds the source and its objects."""
    use_ccache: bool = True

    def run(self, out: Path) -> str:
        """Fill the empty folder `out` with the kernel (see Kernel.tree) and return its release.

        Raises CheckFailed with the compiler's messages, or the options that Kconfig did not grant.
        """
        self._unpack()
        self._configure()
        with step(f"Building the {self.name} kernel") as progress:
            self._make(["bzImage", "modules"], progress=progress)
        release = (self.work / "include/config/kernel.release").read_text("ascii").strip()
        with step(f"Installing the {self.name} kernel"):
            self._install(release, out)
        remove_tree(self.work)
        return release

    def _unpack(self) -> None:
        """Unpack the source, all of it or nothing."""
        if self.work.is_dir():
            return
        package = source_package(self.config, self.recipe.base)
        deb = source_deb(self.config, self.recipe.base)
        partial = self.work.with_name(f"{self.work.name}.partial")
        remove_tree(partial)
        partial.mkdir(parents=True)
        inner = f"tar -xO ./usr/src/{package.name}.tar.xz | tar -xJ --strip-components=1 -C {SOURCE_PATH}"
        line = self.tools.command(["bash", "-o", "pipefail", "-c", inner], rw={partial: SOURCE_PATH})
        with (
            step(f"Unpacking the source of Linux {self.recipe.base}"),
            subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as reader,
        ):
            result = subprocess.run(line, stdin=reader.stdout, capture_output=True, check=False)
            reader.kill()  # it need not write what is behind the archive
        if result.returncode != 0:
            raise SamepageError(f"cannot be unpacked: {result.stderr.decode(errors='replace').strip()}", where=deb)
        partial.rename(self.work)

    def _configure(self) -> None:
        options = read_fragments(fragment_paths(self.config.images, self.recipe))
        wanted = "".join(f"{option.name}={option.value}\n" for option in options)
        wanted += f'CONFIG_LOCALVERSION="-samepage-{self.name}"\n'
        fragment = self.work / "samepage.config"
        if fragment.is_file() and fragment.read_text("utf-8") == wanted and (self.work / ".config").is_file():
            return
        (self.work / ".config").unlink(missing_ok=True)
        fragment.write_text(wanted, "utf-8")
        self._make([f"KCONFIG_ALLCONFIG={SOURCE_PATH}/{fragment.name}", "allnoconfig"])
        refused = not_granted(options, (self.work / ".config").read_text("utf-8"))
        if refused:
            (self.work / ".config").unlink()
            raise CheckFailed("Kconfig did not grant all options:\n" + "\n".join(refused), where=self.name)

    def _install(self, release: str, out: Path) -> None:
        (out / "boot").mkdir()
        self._make([f"INSTALL_MOD_PATH={_OUT_PATH}/usr", "INSTALL_MOD_STRIP=1", "modules_install"], rw={out: _OUT_PATH})
        (out / f"usr/lib/modules/{release}/build").unlink(missing_ok=True)
        script = (
            f"cp arch/x86/boot/bzImage {_OUT_PATH}/boot/vmlinuz-{release} && cp vmlinux .config {_OUT_PATH}/ && "
            # What a module's build needs of the source and its objects; kbuild's own script for packages.
            f"KBUILD_EXTMOD= SRCARCH=x86 CC=gcc HOSTCC=gcc MAKE=make srctree=. objtree=. "
            f"bash scripts/package/install-extmod-build {_OUT_PATH}/headers"
        )
        self._sandboxed(["bash", "-c", script], rw={out: _OUT_PATH})

    def _make(self, arguments: Sequence[str], *, rw: Mounts | None = None, progress: Step | None = None) -> None:
        compiler = "ccache gcc" if self.use_ccache else "gcc"
        fixed = [f"--jobs={self.config.jobs}", "--no-print-directory", f"CC={compiler}", f"HOSTCC={compiler}"]
        self._sandboxed(["make", *fixed, *self.recipe.make, *arguments], rw=rw or {}, progress=progress)

    def _sandboxed(self, argv: Sequence[str], *, rw: Mounts, progress: Step | None = None) -> None:
        """Run a program in the source's folder; it dies with us. Shows how many lines it has said, and the last one."""
        ccache = self.config.cache / "ccache"
        ccache.mkdir(parents=True, exist_ok=True)
        mounts: Mapping[Path, str] = {self.work: SOURCE_PATH, ccache: _CCACHE_PATH, **rw}
        line = self.tools.command(argv, rw=mounts, cwd=SOURCE_PATH, env=_ENVIRONMENT)
        last: collections.deque[str] = collections.deque(maxlen=_SHOWN)
        with subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            try:
                for number, text in enumerate(process.stdout or (), 1):
                    last.append(text.rstrip())
                    if progress is not None:
                        progress.detail(f": {number} files, {text.split()[-1] if text.split() else ''}")
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise CheckFailed(f"{argv[0]} failed for the {self.name} kernel:\n" + "\n".join(last), where=self.work)
