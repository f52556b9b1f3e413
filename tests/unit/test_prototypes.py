# SPDX-License-Identifier: MIT
"""Comparing functions' types as pfunct prints them."""

from __future__ import annotations

from harness.module.prototypes import Prototype, differing, parse

KERNEL = """\
int walk(struct vm_area_struct *, long unsigned int, const struct mm_walk_ops  *, void *);
struct page * page_of(struct folio *);
inline int snprintf(char *, size_t, const char  *, ...);
void hidden(int);
void hidden(char);
void visit(int (*)(void *), void *);
"""


def test_parse() -> None:
    found = parse(KERNEL)
    assert found["page_of"] == {Prototype("struct page *", "struct folio *")}
    assert found["snprintf"] == {Prototype("int", "char *, long unsigned int, const char *, ...")}
    assert found["visit"] == {Prototype("void", "int (*)(void *), void *")}
    assert len(found["hidden"]) == 2


def test_what_differs_is_named() -> None:
    kernel = parse(KERNEL)
    assert differing(kernel, kernel) == []
    assert differing(parse("void hidden(char);\nint our_own(void);\n"), kernel) == []
    for wrong in (
        "struct folio * page_of(struct folio *);",
        "struct page * page_of(const struct folio *);",
        "struct page * page_of(struct folio *, int);",
    ):
        (line,) = differing(parse(wrong), kernel)
        assert line.startswith("page_of: the module has ")
        assert line.endswith(", the kernel has struct page * (struct folio *)")
