# SPDX-License-Identifier: MIT
"""Random steps in a guest, each followed by a look at every byte and at all that the module knows."""
