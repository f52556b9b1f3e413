# SPDX-License-Identifier: MIT
"""Guest tests on every kernel of the matrix, several at once, with one result."""
