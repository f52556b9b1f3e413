# SPDX-License-Identifier: MIT
"""From recipes and lock files to an image in the cache, built when it is first asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.config import Config
from harness.document import decode_json, read_bytes
from harness.image.erofs import make_erofs
from harness.image.initramfs import make_initramfs
from harness.image.kernel import extract_vmlinux, find_vmlinuz
from harness.image.modules import ModuleIndex, index_modules, module_tree
from harness.image.programs import compile_program
from harness.image.recipe import ImageRecipe, guest_sources, load_image_recipe, overlay_folder
from harness.image.root import base_tree, root_tree
from harness.kernel import BuiltKernelRecipe, Kernel, built_recipe, kernel_inputs, kernel_of
from harness.packages.lock import load_lock, lock_path
from harness.packages.recipe import load_recipe
from harness.progress import step
from harness.sandbox import Sandbox
from harness.store import built_folder, file_sha256, key_of, remove_tree
from harness.toolroot import tool_root

FILES = ("vmlinuz", "vmlinux", "initramfs", "root.erofs", "modules.erofs")
"""What an image consists of."""

_MANIFEST = "image.json"


@dataclass(frozen=True)
class GuestNeeds:
    """What guests of a kernel need beyond what is asked for."""

    append: tuple[str, ...] = ()
    """Kernel arguments."""
    memory_factor: int = 1
    pvh: bool = True
    """Whether it may be started by PVH, uncompressed."""


@dataclass(frozen=True)
class Image:
    """What a guest boots."""

    kernel: str
    """Name of the recipe without its prefix: 6.12."""
    release: str
    """What `uname -r` says in the guest."""
    vmlinuz: Path
    vmlinux: Path
    """The same kernel uncompressed, which QEMU starts by PVH: sooner, but always at the same address (no KASLR)."""
    initramfs: Path
    root: Path
    modules: Path
    sha256: str
    """Over all of the files."""
    needs: GuestNeeds = GuestNeeds()

    def files(self) -> list[Path]:
        """Return every file that the image consists of."""
        return [self.vmlinuz, self.vmlinux, self.initramfs, self.root, self.modules]


class _Manifest(msgspec.Struct, frozen=True):
    kernel: str
    release: str
    sha256: str
    files: dict[str, str]
    needs: GuestNeeds


def ensure_image(config: Config, kernel: str) -> Image:
    """Return the image for a kernel, building what is missing of it. With nothing to do this only reads small files."""
    folder = built_folder(
        config.cache / "images" / f"{kernel}-{_inputs_key(config, kernel)}",
        lambda partial: _build(config, kernel, partial),
        keep=4,
    )
    path = folder / _MANIFEST
    hint = f"Remove {folder}: it is built anew."
    manifest = decode_json(read_bytes(path, hint), _Manifest, what="manifest of an image", where=path, hint=hint)
    return Image(
        kernel=manifest.kernel,
        release=manifest.release,
        vmlinuz=folder / "vmlinuz",
        vmlinux=folder / "vmlinux",
        initramfs=folder / "initramfs",
        root=folder / "root.erofs",
        modules=folder / "modules.erofs",
        sha256=manifest.sha256,
        needs=manifest.needs,
    )


def _inputs_key(config: Config, kernel: str) -> str:
    """A name for everything that an image is made from: recipes, locks, sources, and the code that builds."""
    return key_of(*(part for path in _inputs(config, kernel) for part in (path.name, read_bytes(path))))


def _inputs(config: Config, kernel: str) -> Iterator[Path]:
    toolchain = load_image_recipe(config.images).toolchain
    for name in sorted({"tools", "guest", toolchain}):
        load_recipe(config.images, name)  # whose errors name what is wrong
        load_lock(config.images, name)
        yield config.images / f"{name}.toml"
        yield lock_path(config.images, name)
    yield from kernel_inputs(config, kernel)
    for folder in (guest_sources(config.images), overlay_folder(config.images)):
        yield from sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    yield from sorted(Path(__file__).parent.glob("*.py"))


def _build(config: Config, name: str, folder: Path) -> None:
    kernel = kernel_of(config, name)
    built = built_recipe(config.images, name)
    scratch = folder / "scratch"  # inside, so that nothing of a killed build stays
    scratch.mkdir()
    build = _Build(
        config=config,
        recipe=load_image_recipe(config.images),
        kernel=kernel,
        tools=Sandbox(tool_root(config, "tools")),
        scratch=scratch,
        folder=folder,
    )
    programs = build.compile_programs()
    build.make_root(programs)
    index = index_modules(config, build.tools, kernel.tree, kernel.release)
    build.make_modules(index)
    build.make_initramfs(index, programs)
    build.copy_kernel()
    remove_tree(scratch)
    files = {name: file_sha256(folder / name) for name in FILES}
    total = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in files.items()).encode()).hexdigest()
    needs = GuestNeeds() if built is None else _needs(built)
    manifest = _Manifest(kernel=name, release=kernel.release, sha256=total, files=files, needs=needs)
    (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def _needs(recipe: BuiltKernelRecipe) -> GuestNeeds:
    return GuestNeeds(tuple(recipe.append), recipe.memory_factor, recipe.pvh)


@dataclass(frozen=True)
class _Build:
    """One image in the making: its files appear in `folder`."""

    config: Config
    recipe: ImageRecipe
    kernel: Kernel
    tools: Sandbox
    scratch: Path
    folder: Path

    def compile_programs(self) -> dict[str, Path]:
        toolchain = Sandbox(tool_root(self.config, self.recipe.toolchain))
        sources = guest_sources(self.config.images)
        out = self.scratch / "programs"
        out.mkdir()
        with step("Compiling the guest's programs"):
            return {
                name: compile_program(toolchain, sources, name, program, out)
                for name, program in self.recipe.program.items()
            }

    def make_root(self, programs: dict[str, Path]) -> None:
        base = base_tree(self.config)
        stage = self.scratch / "root"
        stage.mkdir()
        with step("Building the guest's root"):
            installed = {item.path: programs[name] for name, item in self.recipe.program.items()}
            links = {link: f"/{item.path}" for item in self.recipe.program.values() for link in item.links}
            root_tree(base, overlay_folder(self.config.images), installed, links, stage)
            make_erofs(self.tools, stage, self.folder / "root.erofs")

    def make_modules(self, index: ModuleIndex) -> None:
        wanted = [*self.recipe.modules.boot, *self.recipe.modules.root]
        with step(f"Selecting modules of Linux {self.kernel.release}"):
            chosen = index.load_order(wanted, every_provider=True)
            tree = module_tree(self.tools, self.kernel.tree, self.kernel.release, chosen, self.scratch / "modules")
            make_erofs(self.tools, tree, self.folder / "modules.erofs")

    def make_initramfs(self, index: ModuleIndex, programs: dict[str, Path]) -> None:
        inside = {item.initramfs: programs[name] for name, item in self.recipe.program.items() if item.initramfs}
        archive = make_initramfs(inside, index, self.kernel.tree, self.kernel.release, self.recipe.modules.boot)
        (self.folder / "initramfs").write_bytes(archive)

    def copy_kernel(self) -> None:
        vmlinuz = find_vmlinuz(self.kernel.tree, self.kernel.release)
        (self.folder / "vmlinuz").write_bytes(vmlinuz.read_bytes())
        (self.folder / "vmlinux").write_bytes(extract_vmlinux(self.tools, vmlinuz))
