# SPDX-License-Identifier: MIT
"""Figures of merging that repeat to the last digit: what each merger costs, counted in instructions (docs/bench.md)."""

HISTORY = "bench-history.jsonl"
"""Under runs/, a line for each run."""
