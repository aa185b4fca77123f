"""What the files of this folder share."""

from __future__ import annotations

import re

from tvmext.errors import OptionError

EXAMPLES = '"llvm", "llvm -mcpu=x86-64-v3 -num-cores=8", "cuda -arch=sm_90a"'
"""Targets, for the hints of errors."""


def dtype_bits(dtype: str) -> int:
    """Bits that one element takes in memory: "float32" -> 32, "bool" -> 8."""
    if dtype == "bool":
        return 8
    digits = re.search(r"\d+", dtype)
    if digits is None:
        raise OptionError(f"'{dtype}' is not the name of a number type")
    return max(8, int(digits.group()))
