# SPDX-License-Identifier: MIT
"""Kernels by name: Debian's own (recipes `kernel-NAME`), and those that are built here (images/kernels/NAME.toml)."""

from harness.kernel.kernel import Kernel, base_of, ensure_built, for_kernel, kernel_inputs, kernel_of, verify_built
from harness.kernel.recipe import BuiltKernelRecipe, built_kernels, built_recipe

__all__ = [
    "BuiltKernelRecipe",
    "Kernel",
    "base_of",
    "built_kernels",
    "built_recipe",
    "ensure_built",
    "for_kernel",
    "kernel_inputs",
    "kernel_of",
    "verify_built",
]
