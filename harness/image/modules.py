# SPDX-License-Identifier: MIT
"""The kernel's own modules: which ones are needed, in which order, and modules.erofs."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.config import Config
from harness.errors import SamepageError
from harness.progress import step
from harness.sandbox import Sandbox
from harness.store import built_folder, key_of

_GENERIC = "_generic"


def canonical(name: str) -> str:
    """Return the kernel's spelling of a module's name or path: kernel/arch/x86/kvm/kvm-amd.ko.xz is kvm_amd."""
    return name.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


@dataclass(frozen=True)
class ModuleIndex:
    """What depmod found out about all modules of a kernel, by canonical names."""

    paths: dict[str, str]
    """Path below lib/modules/RELEASE."""
    needs: dict[str, list[str]]
    """Modules whose symbols it uses, all of them, transitively."""
    before: dict[str, list[str]]
    """Soft dependencies: names or aliases of what should be loaded before it (crc32c, for one)."""
    providers: dict[str, list[str]]
    """Modules that an alias without wildcards stands for."""
    builtin: frozenset[str]

    @classmethod
    def from_depmod(cls, folder: Path) -> ModuleIndex:
        """Read the text files that depmod wrote into `folder`."""
        paths: dict[str, str] = {}
        needs: dict[str, list[str]] = {}
        for line in _lines(folder / "modules.dep"):
            path, _, needed = line.partition(":")
            paths[canonical(path)] = path
            needs[canonical(path)] = [canonical(other) for other in needed.split()]
        before: dict[str, list[str]] = {}
        for line in _lines(folder / "modules.softdep"):
            # softdep libcrc32c pre: crc32c post: ...
            _, name, *rest = line.split()
            words = rest[rest.index("pre:") + 1 :] if "pre:" in rest else []
            before.setdefault(canonical(name), []).extend(words[: words.index("post:")] if "post:" in words else words)
        providers: dict[str, list[str]] = {}
        for line in _lines(folder / "modules.alias"):
            _, alias, name = line.split()
            if "*" not in alias:
                providers.setdefault(canonical(alias), []).append(canonical(name))
        builtin = frozenset(canonical(line) for line in _lines(folder / "modules.builtin"))
        return cls(paths, needs, before, providers, builtin)

    def load_order(self, wanted: Iterable[str], *, every_provider: bool) -> list[str]:
        """Return the paths of the `wanted` modules and of all they need, each after what it needs.

        Where an alias has several providers, take all of them (`every_provider`) or the one that works on any CPU.
        """
        order: dict[str, None] = {}
        for name in wanted:
            for module in self._resolve(canonical(name), every_provider):
                self._visit(module, order, every_provider)
        return [self.paths[name] for name in order]

    def _visit(self, name: str, order: dict[str, None], every_provider: bool) -> None:
        if name in order:
            return
        soft = [module for alias in self.before.get(name, []) for module in self._soft(alias, every_provider)]
        for needed in (*soft, *self.needs[name]):
            if needed != name:
                self._visit(needed, order, every_provider)
        order[name] = None

    def _soft(self, alias: str, every_provider: bool) -> list[str]:
        """What is missing of a soft dependency does no harm."""
        try:
            return self._resolve(canonical(alias), every_provider)
        except SamepageError:
            return []

    def _resolve(self, name: str, every_provider: bool) -> list[str]:
        if name in self.paths:
            return [name]
        if name in self.builtin:
            return []
        found = self.providers.get(name, [])
        if not found:
            raise SamepageError(f"this kernel has no module {name}", hint="See [modules] in images/guest/image.toml.")
        generic = [module for module in found if module.endswith(_GENERIC)]
        return found if every_provider else (generic or found)[:1]


def _lines(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def index_modules(config: Config, tools: Sandbox, package_tree: Path, release: str) -> ModuleIndex:
    """Return what depmod says about all modules of an unpacked kernel package; it is asked once for each package."""
    source = package_tree / "usr/lib/modules" / release

    def build(folder: Path) -> None:
        with step(f"Indexing the modules of Linux {release}"):
            depmod = ["depmod", "-b", "/kernel", "-o", "/out", release]
            tools.run(depmod, ro={source: f"/kernel/lib/modules/{release}"}, rw={folder: "/out"})
        shutil.copyfile(source / "modules.builtin", folder / "lib/modules" / release / "modules.builtin")

    key = key_of(tools.root.name, package_tree.name)
    folder = built_folder(config.cache / "roots" / f"depmod-{release}-{key}", build, keep=2)
    return ModuleIndex.from_depmod(folder / "lib/modules" / release)


def read_module(package_tree: Path, release: str, path: str) -> bytes:
    """Return a module's ELF file, decompressed. Debian signs it; the signature stays."""
    file = package_tree / "usr/lib/modules" / release / path
    data = file.read_bytes()
    if path.endswith(".ko"):
        return data
    if path.endswith(".ko.xz"):
        return lzma.decompress(data)
    raise SamepageError("unknown compression of a module", where=file)


def module_tree(tools: Sandbox, package_tree: Path, release: str, paths: Iterable[str], stage: Path) -> Path:
    """Fill `stage` with the modules `paths` and what modprobe needs beside them; return lib/modules/RELEASE in it."""
    source = package_tree / "usr/lib/modules" / release
    tree = stage / "lib/modules" / release
    for path in paths:
        target = tree / path.removesuffix(".xz")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read_module(package_tree, release, path))
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        shutil.copyfile(source / name, tree / name)
    kept = {path.removesuffix(".xz") for path in paths}
    order = [line.removesuffix(".xz") for line in (source / "modules.order").read_text().splitlines()]
    (tree / "modules.order").write_text("".join(f"{line}\n" for line in order if line in kept))
    tools.run(["depmod", "-b", "/stage", release], rw={stage: "/stage"})
    return tree
