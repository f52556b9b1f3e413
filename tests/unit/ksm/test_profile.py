# SPDX-License-Identifier: MIT
"""Profiles: names of addresses, folding, layout of the flame graph, the plugin's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.config import PACKAGE_PARENT, load_config
from harness.errors import CheckFailed
from harness.ksm.profile.flame import WIDTH, boxes, flame_html
from harness.ksm.profile.fold import by_function, fold, folded_text
from harness.ksm.profile.plugin import require_same_qemu
from harness.ksm.profile.shared import INTERRUPTS, MAGIC, MAX_CONTEXTS, SHARED, Counted, read_counted
from harness.ksm.profile.symbols import UNKNOWN, make_symbols, parse_kallsyms

SYMBOLS = make_symbols([(0x100, "outer"), (0x200, "inner"), (0x300, "inner.cold"), (0x300, "__pfx_x")])
# Context 2: called from outer (the call is its last instruction); 3: from inner, within 2; 4: in an interrupt.
COUNTED = Counted(
    counts=((0, 0x110, 10), (2, 0x210, 5), (3, 0x300, 2), (2, 0x220, 1), (INTERRUPTS, 0x100, 70), (4, 0x200, 7)),
    contexts=((0, 0), (0, 0), (0, 0x200), (2, 0x240), (INTERRUPTS, 0x120)),
)


def test_addresses_have_names() -> None:
    assert [SYMBOLS.name(address) for address in (0x50, 0x100, 0x1FF, 0x200, 0x310)] == [
        UNKNOWN,
        "outer",
        "outer",
        "inner",
        "inner",
    ]
    assert SYMBOLS.with_more([(0x280, "more")]).name(0x281) == "more"
    assert SYMBOLS.address("inner") == 0x200
    with pytest.raises(CheckFailed, match="no function nothing"):
        SYMBOLS.address("nothing")


def test_kallsyms() -> None:
    symbols = parse_kallsyms(
        "ffffffff81000010 T asm_sysvec_x\nffffffff81000020 D data\n"
        "ffffffff81000030 t f\nffffffffc0000000 t m\t[module]\n"
    )
    assert [name for _, name in symbols.functions] == ["asm_sysvec_x", "f"]
    assert symbols.interrupt_entries() == [0xFFFFFFFF81000010]
    with pytest.raises(CheckFailed, match="no addresses"):
        parse_kallsyms("0000000000000000 T hidden\n")


def test_folding() -> None:
    stacks, interrupts = fold(COUNTED, SYMBOLS)
    assert stacks == {("outer",): 10, ("outer", "inner"): 6, ("outer", "inner", "inner"): 2}
    assert interrupts == 77
    # A function that calls itself counts once in what is below it.
    assert by_function(stacks) == {"outer": (10, 18), "inner": (8, 8)}
    assert folded_text(stacks) == "outer 10\nouter;inner 6\nouter;inner;inner 2\n"


def test_flame_graph_is_laid_out_to_scale() -> None:
    laid = boxes({("a",): 1, ("a", "b"): 2, ("c",): 1, ("tiny",): 0})
    assert [(box.name, box.row, box.x, box.width) for box in laid] == [
        ("all", 0, 0, WIDTH),
        ("a", 1, 0, WIDTH * 3 / 4),
        ("b", 2, 0, WIDTH / 2),
        ("c", 1, WIDTH * 3 / 4, WIDTH / 4),
    ]
    assert boxes({}) == []


def test_flame_graph_needs_nothing_else() -> None:
    page = flame_html({("a<b>",): 1}, "title & more", "note")
    assert "a&lt;b&gt;: 1 instructions, 100.00 %" in page
    assert "title &amp; more" in page
    assert "http" not in page
    assert "<script" not in page


def shared_file(path: Path, **head: int) -> Path:
    data = np.zeros(1, SHARED)
    data["head"]["magic"], data["head"]["task"], data["head"]["used"] = MAGIC, 1, (3, 1)
    for name, value in head.items():
        data["head"][name] = value
    data["context"][0][2] = (0x200, 0, 0)
    data["count"][0][7] = (0x210, 9, 2, 0)
    data.tofile(path)
    return path


def test_plugins_file(tmp_path: Path) -> None:
    counted = read_counted(shared_file(tmp_path / "file"))
    assert counted.counts == ((2, 0x210, 9),)
    assert counted.calls(2) == [0x200]
    assert not counted.in_interrupt(2)


@pytest.mark.parametrize(
    ("head", "says"),
    [({"magic": 0}, "not written by"), ({"task": 0}, "never came"), ({"lost": 1}, "too small")],
)
def test_plugins_file_is_no_use(tmp_path: Path, head: dict[str, int], says: str) -> None:
    with pytest.raises(CheckFailed, match=says):
        read_counted(shared_file(tmp_path / "file", **head))


def test_full_table_of_contexts_is_no_use(tmp_path: Path) -> None:
    path = shared_file(tmp_path / "file")
    data = np.fromfile(path, SHARED)
    data["head"]["used"][0, 0] = MAX_CONTEXTS
    data.tofile(path)
    with pytest.raises(CheckFailed, match="too small"):
        read_counted(path)


def test_the_plugin_has_the_header_of_the_locked_qemu() -> None:
    require_same_qemu(load_config(PACKAGE_PARENT))
