# SPDX-License-Identifier: MIT
"""What a profile leaves, and the table that is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich.table import Table

from harness.ksm.profile.flame import flame_html
from harness.ksm.profile.fold import Stack, folded_text
from harness.ksm.profile.run import Profile


def title(profile: Profile) -> str:
    """Say what was profiled."""
    last = profile.skipped_passes + profile.passes
    which = f"pass {last}" if profile.passes == 1 else f"passes {profile.skipped_passes + 1} to {last}"
    return f"{profile.workload}, {profile.merger}, Linux {profile.kernel}: {which} over {profile.pages:,} pages"


def note(profile: Profile) -> str:
    """Say what the figures are, and how they agree with the kernel's."""
    return (
        f"{profile.instructions:,} instructions of the merging thread, {profile.per_page:,.0f} a page and pass; "
        f"the kernel charged it with {profile.schedstat:,} ({profile.difference:+.3f} %). "
        f"Not among them: {profile.interrupts:,} of interrupts. "
        "Instructions are not time: cache misses and memory bandwidth do not show in them."
    )


def table(profile: Profile, rows: int) -> Table:
    """Return the functions with the most instructions of their own."""
    result = Table(title=title(profile), caption=note(profile), title_justify="left", caption_justify="left")
    result.add_column("function", no_wrap=True)
    for name in ("instructions", "share %", "per page", "with callees %"):
        result.add_column(name, justify="right", no_wrap=True)
    visits = profile.pages * profile.passes
    for function in profile.functions[:rows]:
        result.add_row(
            function.name,
            f"{function.own:,}",
            f"{100 * function.own / profile.instructions:.1f}",
            f"{function.own / visits:,.1f}",
            f"{100 * function.total / profile.instructions:.1f}",
        )
    return result


def write(profile: Profile, stacks: Mapping[Stack, int], folder: Path) -> None:
    """Write profile.json, stacks.folded and flame.html into `folder`."""
    text = msgspec.json.format(msgspec.json.encode(profile), indent=2)
    (folder / "profile.json").write_bytes(text + b"\n")
    (folder / "stacks.folded").write_text(folded_text(stacks), "utf-8")
    (folder / "flame.html").write_text(flame_html(stacks, title(profile), note(profile)), "utf-8")
