# SPDX-License-Identifier: MIT
"""Everything that knows same-page merging: workloads, content oracle, counters, results, reports."""
