# SPDX-License-Identifier: MIT
"""Every kind of file that the harness reads: a sound one, and how it is read."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness.cli.coverage import Reasons
from harness.config import PACKAGE_PARENT, load_config
from harness.document import read_toml
from harness.image.nested import load_disk_recipe
from harness.image.recipe import load_image_recipe
from harness.kernel.options import read_fragments
from harness.kernel.recipe import built_recipe
from harness.ksm import domainrules, result, workload
from harness.ksm.attack import result as attack
from harness.ksm.bench import HISTORY
from harness.ksm.bench import result as bench
from harness.ksm.bench.cases import Case
from harness.ksm.fuzz import steps
from harness.ksm.metrics import of_result, openmetrics
from harness.ksm.series import read_series
from harness.packages.lock import load_lock
from harness.packages.recipe import load_recipe
from tests.unit.badinput.mutate import to_json, to_toml

IMAGES = PACKAGE_PARENT / "images"


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    name: str
    path: str
    """Below an empty folder."""
    sound: bytes
    read: Callable[[Path], object]
    """Reads it, given that folder."""
    document: dict[str, Any] | None = None
    """What it says, where that is more than lines."""
    write: Callable[[dict[str, Any]], bytes] = to_toml

    def place(self, folder: Path, data: bytes) -> Path:
        """Make the folder anew with this file in it."""
        shutil.rmtree(folder, ignore_errors=True)
        path = folder / self.path
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return path


def _toml(name: str, path: str, text: str | bytes, read: Callable[[Path], object]) -> Kind:
    data = text.encode() if isinstance(text, str) else text
    return Kind(name, path, data, read, tomllib.loads(data.decode()))


def _json(name: str, path: str, value: object, read: Callable[[Path], object]) -> Kind:
    document = msgspec.json.decode(msgspec.json.encode(value))
    return Kind(name, path, to_json(document), read, document, to_json)


def _read_metrics(folder: Path) -> str:
    return openmetrics(of_result(result.read(folder / "result.json")), {})


_RESULT = result.Result(
    name="x",
    kernel="6.12",
    merger="samepage",
    workload="small",
    description="x",
    seed=1,
    processes=2,
    harness="0.1",
    python="3.11",
    started="2026-01-01T00:00:00Z",
    counters={"full_scans": 3},
    milestones={"50": 1.5},
    stages=[
        result.Stage(
            name="merged", seconds=1, counters={}, pages_merged=1, saved_bytes=1, pages_checked=1, content_errors=0
        )
    ],
)
_CASE = Case("passes", "same", 2, 256)
_BENCH = bench.BenchResult(
    set="short",
    inputs=bench.Inputs(
        kernel="6.12", qemu="10", qemu_sha256="a", image_sha256="b", guest_program_sha256="c", module_sha256=None
    ),
    figures=[bench.Figure(case=_CASE, merger="samepage", metric="first pass", value=2, unit="x")],
    curves=[bench.Curve(case=_CASE, merger="samepage", possible=3, scanner_instructions=[1], saved=[1])],
)
_MEASURED: dict[str, Any] = {"attack": "write", "mode": "in-tree", "timing": "tcg"}
_ATTACK = attack.AttackResult(
    size="smallest",
    level=0.99,
    inputs=attack.Inputs(kernel="6.12", qemu="10", image_sha256="a", program_sha256="b", module_sha256=None, seed=1),
    figures=[attack.Figure(**_MEASURED, metric="x", value=1, low=0, high=1, n=9, unit="", goal=None, reached=None)],
    distributions=[attack.Distribution(**_MEASURED, label="x", percentiles=[1.0])],
    skipped=[attack.Skipped(**_MEASURED, reason="x")],
)
_PROJECT = """
[tool.samepage]
kernel = "6.12"
module = "kmod"
images = "images"
runs = "runs"
cache = "cache"
mirror = "https://here/debian"
snapshot = "https://here/snapshot"
qemu = "qemu"
accelerator = "tcg"
module_btf = true
jobs = 2
timeout_factor = 2.5
"""
_LOCK = "\n".join((IMAGES / "kernel-6.12.lock").read_text("utf-8").splitlines()[:8]) + "\n]\n"
_WORKLOADS = [
    _toml(
        f"workload-{name}",
        "mine.toml",
        (workload.WORKLOADS / f"{name}.toml").read_bytes(),
        lambda folder: workload.load(str(folder / "mine.toml")),
    )
    for name in ("mixed", "programs", "vms")
]

KINDS = (
    *_WORKLOADS,
    _toml("project", "pyproject.toml", _PROJECT, lambda folder: load_config(folder, {})),
    _toml(
        "recipe", "kernel-x.toml", (IMAGES / "kernel-6.12.toml").read_bytes(), lambda it: load_recipe(it, "kernel-x")
    ),
    _toml("lock", "kernel-x.lock", _LOCK, lambda folder: load_lock(folder, "kernel-x")),
    _toml(
        "kernel",
        "kernels/debug.toml",
        (IMAGES / "kernels/debug.toml").read_bytes(),
        lambda it: built_recipe(it, "debug"),
    ),
    _toml("image", "guest/image.toml", (IMAGES / "guest/image.toml").read_bytes(), load_image_recipe),
    _toml("disk", "nested/disk.toml", (IMAGES / "nested/disk.toml").read_bytes(), load_disk_recipe),
    _toml(
        "reasons",
        "reasons.toml",
        '[reasons]\nsp_fail = {lines = 2, why = "Only without memory."}\n',
        lambda folder: read_toml(folder / "reasons.toml", Reasons),
    ),
    _toml(
        "domains",
        "tenants.toml",
        '[[rule]]\ndomain = "web"\ncgroup = "web.slice"\n[[rule]]\ndomain = 7\nuser = "root"\nprocess = "make"\n',
        lambda folder: domainrules.load(folder / "tenants.toml"),
    ),
    _json("result", "result.json", _RESULT, _read_metrics),
    _json("attack-result", "result.json", _ATTACK, lambda folder: attack.read(folder / "result.json")),
    _json("bench-result", "result.json", _BENCH, lambda folder: bench.recall(str(folder / "result.json"), folder)),
    _json(
        "bench-history",
        HISTORY,
        {"name": "monday", "result": _BENCH},
        lambda folder: bench.recall("monday", folder),
    ),
    Kind("steps", "x.steps", b"spawn\nmap 0 400 1 0  # x\n", lambda folder: steps.load(folder / "x.steps")),
    Kind(
        "options",
        "x.config",
        b"# x\nCONFIG_KASAN=y\nCONFIG_HZ=100\n",
        lambda folder: read_fragments([folder / "x.config"]),
    ),
    Kind(
        "counters",
        "counters.csv",
        b"seconds,phase,ksm.run\n0.0,start,1\n1.5,merging,2\n",
        lambda folder: read_series(folder / "counters.csv"),
    ),
)
