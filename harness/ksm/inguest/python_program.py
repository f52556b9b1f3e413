# SPDX-License-Identifier: MIT
"""A Python program like many that run side by side: a good part of the standard library, and data.

Three quarters of its data are the same in every instance. It is asked over stdin and answers on stdout, each a JSON
document behind its length (4 bytes, little-endian).
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import base64
import calendar
import concurrent.futures
import configparser
import csv
import ctypes
import dataclasses
import datetime
import decimal
import difflib
import email.message
import fractions
import html.parser
import http.client
import http.server
import importlib.metadata
import ipaddress
import json
import logging.handlers
import lzma
import mmap
import multiprocessing
import optparse
import os
import pathlib
import pickle
import platform
import pprint
import random
import shelve
import socketserver
import sqlite3
import ssl
import statistics
import string
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import typing
import unittest.mock
import urllib.request
import uuid
import xml.etree.ElementTree
import zipfile
import zoneinfo

from .data import digest, noise

# What a program of some size has loaded; most of it is never called here.
LIBRARIES = (
    argparse, ast, asyncio, base64, calendar, concurrent.futures, configparser, csv, ctypes, dataclasses, datetime,
    decimal, difflib, email.message, fractions, html.parser, http.client, http.server, importlib.metadata, ipaddress,
    json, logging.handlers, lzma, mmap, multiprocessing, optparse, pathlib, pickle, platform, pprint, random, shelve,
    socketserver, sqlite3, ssl, statistics, string, subprocess, tarfile, tempfile, textwrap, typing, unittest.mock,
    urllib.request, uuid, xml.etree.ElementTree, zipfile, zoneinfo,
)  # fmt: skip

ASSET_BYTES = 256 << 10
ROWS_PER_MIB = 200
EVERY = 8
"""One in so many pieces of data is changed when a change is asked for."""


class Data:
    """What an instance holds: byte strings, buffers, records of several types, and a database."""

    def __init__(self, seed: int, instance: int, mib: int) -> None:
        count = mib * (1 << 20) * 3 // 8 // ASSET_BYTES
        # As a cache of files holds them: half in objects, half in buffers that are written in place.
        self.assets = [noise(ASSET_BYTES, seed, self._owner(n, instance), "asset", n) for n in range(count)]
        self.buffers = [self._buffer(noise(ASSET_BYTES, seed, self._owner(n, instance), n)) for n in range(count)]
        self.records = {
            f"record-{n:06}": self._record(seed, self._owner(n, instance), n) for n in range(mib * ROWS_PER_MIB)
        }
        self.database = sqlite3.connect(":memory:")
        self.database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, name TEXT, amount INTEGER)")
        self.database.executemany(
            "INSERT INTO entries VALUES (?, ?, ?)",
            ((n, name, record["amount"]) for n, (name, record) in enumerate(self.records.items())),
        )

    @staticmethod
    def _buffer(content: bytes) -> mmap.mmap:
        buffer = mmap.mmap(-1, len(content), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        buffer[:] = content
        return buffer

    @staticmethod
    def _owner(number: int, instance: int) -> object:
        return instance if number % 4 == 3 else "all"

    @staticmethod
    def _record(seed: int, owner: object, number: int) -> dict[str, typing.Any]:
        bits = noise(48, seed, owner, "record", number)
        return {
            "amount": int.from_bytes(bits[:3], "little"),
            "price": decimal.Decimal(int.from_bytes(bits[3:7], "little")) / 100,
            "name": base64.b32encode(bits[7:27]).decode(),
            "tags": [f"tag-{byte % 32}" for byte in bits[27:35]],
            "nested": {"key": bits[35:].hex(), "when": datetime.date.fromordinal(700000 + bits[0] * 100).isoformat()},
        }

    def change(self, round_number: int) -> None:
        """Overwrite some of everything."""
        for number in range(round_number % EVERY, len(self.assets), EVERY):
            self.assets[number] = noise(ASSET_BYTES, "changed", round_number, number)
        for number, buffer in enumerate(self.buffers):
            for page in range(round_number % EVERY, ASSET_BYTES // mmap.PAGESIZE, EVERY):
                at = page * mmap.PAGESIZE + 100
                buffer[at : at + 64] = noise(64, "changed", round_number, number, page)
        for number, (name, record) in enumerate(self.records.items()):
            if number % EVERY == round_number % EVERY:
                record["amount"] += round_number
                record["tags"].append(f"round-{round_number}")
                self.database.execute("UPDATE entries SET amount = ? WHERE name = ?", (record["amount"], name))

    def digest(self) -> str:
        """Return a digest of everything."""
        records = json.dumps(self.records, sort_keys=True, default=str).encode()
        rows = repr(self.database.execute("SELECT * FROM entries ORDER BY id").fetchall()).encode()
        return digest([*self.assets, *(buffer[:] for buffer in self.buffers), records, rows])

    def query(self, least: int) -> dict[str, int]:
        """Answer a question about the database."""
        count, total = self.database.execute(
            "SELECT count(*), coalesce(sum(amount), 0) FROM entries WHERE amount >= ?", (least,)
        ).fetchone()
        return {"count": count, "total": total}


def answer(data: Data, question: dict[str, typing.Any]) -> object:
    """Answer one question."""
    match question["ask"]:
        case "pid":
            return os.getpid()
        case "digest":
            return data.digest()
        case "query":
            return data.query(question["least"])
        case "change":
            data.change(question["round"])
            return True
        case other:
            raise ValueError(f"nobody asks {other!r}")


def main() -> None:
    """Serve until stdin ends."""
    data = Data(*map(int, sys.argv[1:4]))
    while head := sys.stdin.buffer.read(4):
        question = json.loads(sys.stdin.buffer.read(int.from_bytes(head, "little")))
        text = json.dumps(answer(data, question)).encode()
        sys.stdout.buffer.write(len(text).to_bytes(4, "little") + text)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
