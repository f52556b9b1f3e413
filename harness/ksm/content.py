# SPDX-License-Identifier: MIT
"""What pages hold and how they are digested: says in NumPy what images/guest/memwork/content.c says in C."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from harness.ksm.protocol import PAGE_BYTES, PAGE_WORDS

Words = NDArray[np.uint64]

GAMMA = np.uint64(0x9E3779B97F4A7C15)
COMMON_SALT = np.uint64(0x5350505245464958)
TAIL_WORDS = 8


class Kind(IntEnum):
    """How a page's content follows from its key."""

    ZERO = 0
    FILLED = 1
    """Every word from the key."""
    PREFIX = 2
    """The last 64 bytes from the key, all before them from its high 32 bits alone."""
    BYTE = 3
    """Every byte is the low byte of the key."""
    WORD = 4
    """One word from the key, at a place that it chooses; all others from its high 32 bits alone."""


def mix(values: Words) -> Words:
    """splitmix64's finalizer, on a copy."""
    x = values ^ (values >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _stream(states: Words, count: int) -> Words:
    """Return `count` words for each state, one row a state."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * GAMMA
    return mix(states[:, np.newaxis] + steps[np.newaxis, :])


def page_words(kind: Kind, keys: Words) -> Words:
    """Return the pages that (kind, key) stand for, one row of 512 words a key."""
    if kind is Kind.FILLED:
        return _stream(mix(keys), PAGE_WORDS)
    if kind is Kind.PREFIX:
        family = mix((keys >> np.uint64(32)) ^ COMMON_SALT)
        return np.concatenate([_stream(family, PAGE_WORDS - TAIL_WORDS), _stream(mix(keys), TAIL_WORDS)], axis=1)
    if kind is Kind.WORD:
        words = _stream(mix((keys >> np.uint64(32)) ^ COMMON_SALT), PAGE_WORDS)
        words[np.arange(len(keys)), keys % np.uint64(PAGE_WORDS)] = mix(keys)
        return words
    words = np.zeros((len(keys), PAGE_WORDS), dtype=np.uint64)
    if kind is Kind.BYTE:
        words += ((keys & np.uint64(0xFF)) * np.uint64(0x0101010101010101))[:, np.newaxis]
    return words


def page_bytes(kind: int, key: int) -> bytearray:
    """Return one page's bytes."""
    words = page_words(Kind(kind), np.array([key], dtype=np.uint64))
    return bytearray(words.astype("<u8").tobytes())


class Digester:
    """Digests of pages under a secret. Two pages that differ in one word never have the same."""

    CHUNK = 2048
    """Pages at a time: 8 MiB of words."""

    def __init__(self, secret: int) -> None:
        self.secret = secret
        self._masks = _stream(mix(np.array([secret], dtype=np.uint64)), PAGE_WORDS)

    def of_words(self, words: Words) -> Words:
        """Digest pages given as rows of 512 words."""
        total: Words = mix(words ^ self._masks).sum(axis=1, dtype=np.uint64)
        return total

    def of_bytes(self, page: bytes | bytearray) -> int:
        """Digest one page."""
        assert len(page) == PAGE_BYTES
        return int(self.of_words(np.frombuffer(page, dtype="<u8").astype(np.uint64)[np.newaxis, :])[0])

    def of_contents(self, kinds: NDArray[np.uint8], keys: Words) -> Words:
        """Digest the pages that (kinds[i], keys[i]) stand for; equal ones are computed once."""
        result = np.empty(len(keys), dtype=np.uint64)
        for kind in Kind:
            chosen = np.flatnonzero(kinds == kind)
            if len(chosen):
                result[chosen] = self._of_kind(kind, keys[chosen])
        return result

    def _of_kind(self, kind: Kind, keys: Words) -> Words:
        distinct, where = np.unique(np.zeros_like(keys) if kind is Kind.ZERO else keys, return_inverse=True)
        chunks = [
            self.of_words(page_words(kind, distinct[start : start + self.CHUNK]))
            for start in range(0, len(distinct), self.CHUNK)
        ]
        digests: Words = np.concatenate(chunks)[where]
        return digests
