# SPDX-License-Identifier: MIT
"""The module's trees and signatures in user space, with sanitizers."""
