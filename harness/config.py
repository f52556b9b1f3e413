# SPDX-License-Identifier: MIT
"""Configuration: `[tool.samepage]` of the nearest pyproject.toml, overridden by SAMEPAGE_<NAME> in the environment.

The bench serves any out-of-tree module: a project of its own names its module folder in its own pyproject.toml.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from harness.document import Text, toml_table
from harness.errors import SamepageError

PROJECT_FILE = "pyproject.toml"
PACKAGE_PARENT = Path(__file__).resolve().parent.parent

Accelerator = Literal["auto", "kvm", "tcg"]
Url = Annotated[str, msgspec.Meta(pattern=r"^(https?|file)://[!-Z^-~]+\Z")]
"""Without spaces, control characters and brackets, which urllib has no clear word for."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person may set. Relative paths are relative to the folder of pyproject.toml."""

    kernel: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]*\Z")] = "6.12"
    """The recipe to build for and boot: images/kernel-<kernel>.toml."""
    module: Text = "kmod"
    """Folder of the out-of-tree module, with a Kbuild file or Makefile for kbuild in it."""
    images: Text | None = None
    """Folder of the recipes and lock files; those that come with the harness when unset."""
    runs: Text = "runs"
    """Where runs leave their results."""
    cache: Text | None = None
    """Downloads, tool roots, images, built modules; $XDG_CACHE_HOME/samepage when unset."""
    mirror: Url | None = None
    """Debian mirror to fetch from; the one that the host's apt uses when unset."""
    snapshot: Url = "https://snapshot.debian.org/archive/debian"
    """Archive that still has versions which the mirror has dropped."""
    qemu: Text | None = None
    """A QEMU of the host's to use in place of the locked one: a path or a name on PATH."""
    accelerator: Accelerator = "auto"
    """`auto` takes KVM where a probe boots with it, TCG otherwise."""
    module_btf: bool = False
    """Give the module BTF (costs 1.4 s of each build)."""
    module_prototypes: bool = False
    """Fail the build of a module that has another type than the kernel's BTF for a function of the same name."""
    jobs: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    """Compiler jobs and downloads at once; the number of usable CPUs when unset."""
    guest_snapshots: bool = True
    """Boot each kind of guest once and restore it from then on; false boots every one."""
    timeout_factor: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    """Every time limit for a guest is multiplied by this; raise it on a slow or busy machine."""


@dataclass(frozen=True)
class Config:
    """Settings with every path made absolute."""

    root: Path
    cache: Path
    runs: Path
    images: Path
    kernel: str
    module: Path
    mirror: str | None
    snapshot: str
    qemu: str | None
    accelerator: Accelerator
    module_btf: bool
    module_prototypes: bool
    jobs: int
    guest_snapshots: bool
    timeout_factor: float


def load_config(start: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration that holds in `start` (the current folder when None).

    Raises SamepageError, naming the file or variable and the setting, for a value that is not allowed.
    """
    project = find_project(start or Path.cwd())
    settings = _apply_environment(_read_settings(project), environ)
    root = project.parent

    def absolute(name: str, text: str) -> Path:
        try:
            return _absolute(root, text)
        except (OSError, RuntimeError) as error:  # a home that nobody has, links in a circle
            where = variable if environ.get(variable := _variable(name)) else project
            raise SamepageError(f"{name}: {text!r} is no path here: {error}", where=where) from error

    return Config(
        root=root,
        cache=_default_cache(environ) if settings.cache is None else absolute("cache", settings.cache),
        runs=absolute("runs", settings.runs),
        images=PACKAGE_PARENT / "images" if settings.images is None else absolute("images", settings.images),
        kernel=settings.kernel,
        module=absolute("module", settings.module),
        mirror=settings.mirror,
        snapshot=settings.snapshot,
        qemu=settings.qemu,
        accelerator=settings.accelerator,
        module_btf=settings.module_btf,
        module_prototypes=settings.module_prototypes,
        jobs=settings.jobs or len(os.sched_getaffinity(0)),
        guest_snapshots=settings.guest_snapshots,
        timeout_factor=settings.timeout_factor,
    )


def find_project(start: Path) -> Path:
    """Return the nearest pyproject.toml at or above `start` with a `[tool.samepage]` table, else our own."""
    for folder in (start.resolve(), *start.resolve().parents):
        candidate = folder / PROJECT_FILE
        if candidate.is_file() and _table(candidate) is not None:
            return candidate
    own = PACKAGE_PARENT / PROJECT_FILE
    if own.is_file():
        return own
    raise SamepageError(
        "no pyproject.toml with a [tool.samepage] table here or above",
        where=start,
        hint='Make one that names your module, for example: [tool.samepage] module = "src"',
    )


def _table(path: Path) -> object:
    """Return what a pyproject.toml says of us, None where that is nothing."""
    tool = toml_table(path).get("tool")
    return tool.get("samepage") if isinstance(tool, dict) else None


def _read_settings(project: Path) -> Settings:
    table = _table(project)
    try:
        return msgspec.convert({} if table is None else table, Settings)
    except msgspec.ValidationError as error:
        names = ", ".join(Settings.__struct_fields__)
        raise SamepageError(f"[tool.samepage]: {error}", where=project, hint=f"Settings are: {names}") from error


def _variable(name: str) -> str:
    return f"SAMEPAGE_{name.upper()}"


def _apply_environment(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Override settings one at a time, so that an error names the variable that caused it."""
    for name in Settings.__struct_fields__:
        variable = _variable(name)
        text = environ.get(variable, "")
        if text == "":
            continue
        try:
            # strict=False turns the text into the number or boolean that the field wants.
            changed = msgspec.convert({name: text}, Settings, strict=False)
        except ValueError as error:  # of msgspec; text that is no UTF-8 it does not even look at
            raise SamepageError(f"{text!r} is not a value for it: {error}", where=variable) from error
        settings = msgspec.structs.replace(settings, **{name: getattr(changed, name)})
    return settings


def _default_cache(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    folder = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return folder / "samepage"


def _absolute(root: Path, text: str) -> Path:
    return (root / Path(text).expanduser()).resolve()
