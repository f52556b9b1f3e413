# SPDX-License-Identifier: MIT
"""Where the instructions of a merging thread go: by function, with the calls that led there."""
