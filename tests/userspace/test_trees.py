# SPDX-License-Identifier: MIT
"""The module's own trees, records, signatures and matching in user space, with sanitizers, against a model.

trees.c gives them memory that is an array; hypothesis is the adversary that chooses contents, and when they change.
What must hold whatever it does: no page ever holds another content, none shares with another content or another domain;
and once all is quiet, equal pages of a domain are merged, the counters right, and at the end nothing is left.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config import PACKAGE_PARENT, load_config
from harness.sandbox import Sandbox
from harness.toolroot import tool_root

HERE = Path(__file__).parent
KMOD = PACKAGE_PARENT / "kmod"
SOURCES = ("records", "blockids", "signature", "stable", "unstable", "match", "twins")
SPACES, PAGES, CONTENTS, WORDS = 8, 128, 256, 512
PASSES = 8
"""Enough for all to be merged: crowded samples take a pass more, and one for each stale twin."""
LONGEST_LIST = 14
"""Candidates in one bucket: at two in the mean, Poisson makes one of 512 lists longer once in a million times."""


@dataclass(frozen=True)
class Program:
    """trees.c, compiled; it runs where its compiler's libraries are."""

    toolchain: Sandbox
    folder: Path

    def run(self, words: Sequence[str], text: str) -> str:
        done = self.toolchain.run(
            ["/out/trees", *words], ro={self.folder: "/out"}, stdin=text.encode(), timeout=60, check=False
        )
        assert done.returncode == 0, f"{done.stderr.decode()}\n{text}"
        return done.stdout.decode()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Compile trees.c with the module's sources; every header of the kernel is an empty file."""
    config = load_config(PACKAGE_PARENT)
    toolchain = Sandbox(tool_root(config, f"kernel-{config.kernel}"))
    folder = tmp_path_factory.mktemp("userspace")
    for source in (*KMOD.glob("*.c"), *KMOD.glob("*.h")):
        for header in re.findall(r"#include <(\S+)>", source.read_text("utf-8")):
            (folder / "include" / header).parent.mkdir(parents=True, exist_ok=True)
            (folder / "include" / header).touch()
    command = ["gcc", "-g", "-O1", "-std=gnu11", "-Wall", "-Werror", "-Wno-unused-value", "-DSP_SEGMENT_SHIFT=1"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    command += ["-I", "/src", "-isystem", "/out/include", "-I", "/kmod", "-include", "/src/kernel.h"]
    command += [*(f"/kmod/{name}.c" for name in SOURCES), "/src/kernel.c", "/src/trees.c", "-o", "/out/trees"]
    toolchain.run(command, ro={HERE: "/src", KMOD: "/kmod"}, rw={folder: "/out"})
    return Program(toolchain, folder)


Content = tuple[tuple[int, int], ...]
"""The words of a page that are not zero, each with its place."""


@dataclass(frozen=True)
class Page:
    """A page as the program prints it."""

    space: int
    number: int
    merged: bool
    candidate: bool
    folio: int
    content: Content


@dataclass
class Dump:
    """Everything at one moment."""

    pages: list[Page] = field(default_factory=list)
    shared: int = 0
    sharing: int = 0
    candidates: int = 0
    longest: int = 0


def play(program: Program, commands: Sequence[str], *words: str) -> list[Dump]:
    """Carry out commands; return what each D printed, and after that what the end did."""
    text = "".join(f"{command}\n" for command in commands)
    dumps = [Dump()]
    for line in program.run(words, text).splitlines():
        kind, *numbers = line.split()
        assert kind in ("page", "counts"), line
        if kind == "page":
            space, number, merged, candidate, folio, *rest = map(int, numbers)
            content = tuple(zip(rest[::2], rest[1::2], strict=True))
            dumps[-1].pages.append(Page(space, number, bool(merged), bool(candidate), folio, content))
        else:
            dumps[-1].shared, dumps[-1].sharing, dumps[-1].candidates, dumps[-1].longest = map(int, numbers)
            dumps.append(Dump())
    return dumps[:-1]


@dataclass
class Model:
    """What pages must hold, as the commands so far say."""

    words: dict[int, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    pages: dict[tuple[int, int], Content] = field(default_factory=dict)
    domains: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def content(self, number: int) -> Content:
        return tuple(sorted((word, value) for word, value in self.words[number].items() if value))

    def follow(self, command: str) -> None:
        what, *numbers = command.split()
        if what == "W":
            content, word, value = map(int, numbers)
            self.words[content][word] = value
        elif what == "S":
            space, page, content = map(int, numbers)
            self.pages[space, page] = self.content(content)
        elif what == "U":
            space, page = map(int, numbers)
            self.pages.pop((space, page), None)
        elif what == "X":
            space, domain = map(int, numbers)
            self.domains[space] = domain

    def check(self, dump: Dump, *, quiet: bool, max_page_sharing: int = 256) -> None:
        """Compare; `quiet`: nothing changed for so long that all that can be merged is."""
        assert {(page.space, page.number) for page in dump.pages} == set(self.pages)
        folios: dict[int, list[Page]] = defaultdict(list)
        groups: dict[tuple[int, object], list[Page]] = defaultdict(list)
        for page in dump.pages:
            held = self.pages[page.space, page.number]
            assert page.content == held
            folios[page.folio].append(page)
            groups[self.domains[page.space], held].append(page)
        for sharers in folios.values():
            assert len({(self.domains[page.space], self.pages[page.space, page.number]) for page in sharers}) == 1
            assert len(sharers) <= max_page_sharing
            assert len(sharers) == 1 or all(page.merged for page in sharers)
        if not quiet:
            return
        for (_, content), group in groups.items():
            alone = [page for page in group if not page.merged]
            assert len(alone) <= (1 if max_page_sharing < len(group) or len(group) == 1 else 0), content
            assert all(page.candidate for page in alone)
        merged = [sharers for sharers in folios.values() if sharers[0].merged]
        assert dump.shared == len(merged)
        assert dump.sharing == sum(len(sharers) - 1 for sharers in merged)
        assert dump.candidates == sum(page.candidate for page in dump.pages)


SPACE, PAGE, CONTENT = st.integers(0, 2), st.integers(0, 15), st.integers(0, 11)
COMMANDS = st.one_of(
    st.builds("W {} {} {}".format, CONTENT, st.sampled_from([0, 1, 7, 8, 9, 255, 256, 511]), st.integers(0, 2)),
    st.builds("S {} {} {}".format, SPACE, PAGE, CONTENT),
    st.builds("S {} {} {}".format, SPACE, PAGE, CONTENT),
    st.builds("U {} {}".format, SPACE, PAGE),
    st.builds("V {} {}".format, SPACE, PAGE),
    st.builds("P {}".format, st.integers(1, 3)),
    st.builds("X {} {}".format, SPACE, st.integers(0, 2)),
    st.builds("F {}".format, st.sampled_from([0, 0, 2, 3, 7])),
    st.just("D"),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    commands=st.lists(COMMANDS, min_size=40, max_size=120),
    locks=st.sampled_from(["locks", "one"]),
    crc=st.sampled_from(["crc", "nh"]),
    sharing=st.sampled_from([2, 3, 256]),
)
def test_an_adversary_with_a_handful_of_contents(
    program: Program, commands: list[str], locks: str, crc: str, sharing: int
) -> None:
    script = [*commands, "F 0", f"P {PASSES}", "D"]
    dumps = play(program, script, locks, crc, str(sharing))
    model = Model()
    at = 0
    for command in script:
        model.follow(command)
        if command == "D":
            # A change of contents after a page was written says nothing of that page.
            model.check(dumps[at], quiet=at == len(dumps) - 2, max_page_sharing=sharing)
            at += 1
    assert (dumps[-1].shared, dumps[-1].sharing, dumps[-1].candidates) == (0, 0, 0)


@pytest.mark.parametrize("crc", ["crc", "nh"])
@pytest.mark.parametrize("step", [1, 8, 64])
def test_pages_that_differ_in_one_word_each(program: Program, crc: str, step: int) -> None:
    """Samples collide by the hundred; in full no two are alike, and each finds its twin."""
    count = 200
    script = [f"W {content} {content * step % WORDS} {1 + content * step // WORDS}" for content in range(1, count)]
    script += [f"S {space} {page} {page + 100 * (space // 2)}" for space in range(4) for page in range(100)]
    dump, left = play(program, [*script, f"P {PASSES}", "D"], crc)
    assert (dump.shared, dump.sharing, dump.candidates) == (200, 200, 0)
    assert (left.shared, left.candidates) == (0, 0)


def test_lists_stay_short(program: Program) -> None:
    """A thousand candidates, of contents that are as much alike as pages can be: none is filed behind many others."""
    script = [f"W {content} {content % 8} {content // 8 + 1}" for content in range(CONTENTS)]
    script += [f"X {space} {space}" for space in range(SPACES)]
    script += [f"S {space} {page} {page}" for space in range(SPACES) for page in range(PAGES)]
    dump, _ = play(program, [*script, f"P {PASSES}", "D"], "crc")
    assert (dump.shared, dump.candidates) == (0, SPACES * PAGES)
    assert dump.longest <= LONGEST_LIST


def test_a_sample_that_another_domain_finds_crowded(program: Program) -> None:
    """A candidate was filed by its sample; two pages of another domain show that the sample stands for two contents."""
    filed = ["S 2 8 0", "X 2 2", "P 3"]
    crowded = ["W 1 511 2", "S 1 0 0", "S 1 6 1", "P 4"]
    script = [*filed, *crowded, "S 2 10 0", f"P {PASSES}", "D"]
    for _ in range(8):  # which words are in a sample is random
        dump, _ = play(program, script, "crc")
        assert (dump.shared, dump.sharing, dump.candidates) == (1, 1, 2)


def test_memory_that_fails_costs_savings_only(program: Program) -> None:
    for every in range(2, 9):
        script = [f"W {content} 3 {content}" for content in range(20)]
        script += [f"S {space} {page} {page % 20}" for space in range(4) for page in range(64)]
        dumps = play(program, [*script, f"F {every}", "P 5", "D", "F 0", f"P {PASSES}", "D"], "crc", "locks")
        assert (dumps[1].shared, dumps[1].sharing, dumps[1].candidates) == (20, 4 * 64 - 20, 0)
        assert (dumps[2].shared, dumps[2].sharing, dumps[2].candidates) == (0, 0, 0)
