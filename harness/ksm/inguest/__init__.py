# SPDX-License-Identifier: MIT
"""Programs that run in the guest with nothing but its Python; the host imports them to know what they must answer."""
