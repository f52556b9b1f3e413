# SPDX-License-Identifier: MIT
"""Page owner's stacks: whose pages they are."""

from __future__ import annotations

import pytest

from harness.guest.leaks import _of_unloaded

TOP = " post_alloc_hook+0x177/0x1a0\n get_page_from_freelist+0xd96/0x29a0\n __alloc_pages_noprof+0x2e9/0x600\n"
GONE = " 0xffffffffa0154105\n vfs_write+0x1e2/0xfd0\n"


@pytest.mark.parametrize(
    ("stack", "of_unloaded"),
    [
        (TOP + " alloc_pages_mpol_noprof+0x16f/0x470\n" + GONE, True),
        (TOP + " get_free_pages_noprof+0x12/0x40\n" + GONE, True),
        (TOP + " allocate_slab+0x275/0x3c0\n ___slab_alloc+0x9cd/0x13c0\n" + GONE, False),
        (TOP + " pte_alloc_one+0x1f/0x90\n" + GONE, False),
        (TOP + " sp_reserve_adjust+0x1f/0x90 [samepage]\n", False),
        ("", False),
    ],
)
def test_pages_of_code_without_a_name(stack: str, of_unloaded: bool) -> None:
    assert _of_unloaded(stack) is of_unloaded
