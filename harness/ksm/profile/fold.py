# SPDX-License-Identifier: MIT
"""From blocks and return addresses to functions and stacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from harness.ksm.profile.shared import Counted
from harness.ksm.profile.symbols import Symbols

Stack = tuple[str, ...]
"""Functions, the outermost first."""


def fold(counted: Counted, symbols: Symbols) -> tuple[dict[Stack, int], int]:
    """Return the thread's instructions by stack, and how many interrupts took meanwhile."""
    stacks: Counter[Stack] = Counter()
    interrupts = 0
    names: dict[int, str] = {}
    prefixes: dict[int, Stack | None] = {}

    def name(address: int) -> str:
        if address not in names:
            names[address] = symbols.name(address)
        return names[address]

    for context, block, instructions in counted.counts:
        if context not in prefixes:
            # A call may be a function's last instruction: the byte before the return address is surely inside.
            calls = tuple(name(address - 1) for address in counted.calls(context))
            prefixes[context] = None if counted.in_interrupt(context) else calls
        prefix = prefixes[context]
        if prefix is None:
            interrupts += instructions
        else:
            stacks[(*prefix, name(block))] += instructions
    return dict(sorted(stacks.items())), interrupts


def by_function(stacks: Mapping[Stack, int]) -> dict[str, tuple[int, int]]:
    """Return (own instructions, those with all that it calls) of each function, the most own ones first."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for stack, instructions in stacks.items():
        own[stack[-1]] += instructions
        for function in set(stack):
            total[function] += instructions
    order = sorted(total, key=lambda function: (-own[function], -total[function], function))
    return {function: (own[function], total[function]) for function in order}


def folded_text(stacks: Mapping[Stack, int]) -> str:
    """Return the stacks as flamegraph.pl and speedscope read them: `a;b;c COUNT`, a line each."""
    return "".join(f"{';'.join(stack)} {instructions}\n" for stack, instructions in stacks.items())
