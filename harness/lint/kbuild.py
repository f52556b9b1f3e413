# SPDX-License-Identifier: MIT
"""What the compiler (W=1) and sparse have to say about an out-of-tree module."""

from __future__ import annotations

import re
from pathlib import Path

from harness.config import Config
from harness.errors import CheckFailed
from harness.module.build import BUILD_PATH, kbuild_for, source_files, synchronise
from harness.progress import step
from harness.store import built_folder, key_of, remove_tree

# Since 6.8 kbuild itself says -Wall -Wextra. Silenced is what the kernel's own headers rely on.
_WARNINGS = (
    "-Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers"
    " -Wno-override-init -Wno-pointer-sign -Wno-address-of-packed-member -Wno-frame-address"
)
_VARIABLES = {"W": "1", "C": "1", "CHECK": "sparse", "KCFLAGS": _WARNINGS, "CONFIG_DEBUG_INFO_BTF_MODULES": ""}
_FINDING = re.compile(rf"^(?:\./)?{re.escape(BUILD_PATH)}/(?P<text>[^:]+:\d+:\d+: (?:warning|error): .*)$")
_REPORT = "report.txt"


def module_findings(config: Config, source: Path, kernel: str) -> list[str]:
    """Build the module afresh with all warnings and sparse on, and return those about its own files.

    The findings of a source that was checked before are remembered. Raises CheckFailed if it does not build.
    """
    source = source.resolve()
    files = source_files(source)
    kbuild = kbuild_for(config, kernel)
    inputs = (part for item in files.items() for part in item)
    key = key_of(Path(__file__).read_bytes(), kbuild.root.name, *inputs)

    def check(folder: Path) -> None:
        with step(f"Checking {source.name} (W=1, sparse)"):
            work = folder / "work"
            synchronise(files, work)
            result = kbuild.make(work, _VARIABLES)
            said = result.stdout.decode(errors="replace") + result.stderr.decode(errors="replace")
            if result.returncode != 0:
                raise CheckFailed(f"does not build with W=1:\n{said.strip()}", where=source)
            # A build that never called sparse would be free of findings, too.
            if "  CHECK " not in said:
                raise CheckFailed(f"kbuild did not call sparse:\n{said.strip()}", where=source)
            found = {match["text"]: None for match in map(_FINDING.match, said.splitlines()) if match}
            (folder / _REPORT).write_text("".join(f"{line}\n" for line in found))
            remove_tree(work)

    folder = built_folder(config.cache / "lint" / f"{kernel}-{key}", check, keep=32)
    return (folder / _REPORT).read_text().splitlines()
