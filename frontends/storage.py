"""Elements of ONNX's 8-, 4- and 2-bit types as they lie in memory: one byte each.

TVM computes with none of them. A module has them as bytes: small integers by value, small floats by
their bits; only a cast gives them a meaning (onnx/convert/narrow.py).
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

STORED = {
    "int2": "int8", "int4": "int8", "uint2": "uint8", "uint4": "uint8",
    **dict.fromkeys(
        ("float4_e2m1fn", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
         "float8_e8m0fnu"),
        "uint8",
    ),
}  # fmt: skip
"""{type: the type of TVM that holds an element of it}"""

NARROW_INTEGERS = frozenset(name for name in STORED if "float" not in name)
NARROW_FLOATS = frozenset(STORED) - NARROW_INTEGERS


def stored(dtype: str) -> str:
    """The type that a module has for an ONNX type."""
    return STORED.get(dtype, dtype)


def to_stored(array: np.ndarray) -> np.ndarray:
    """The array as a module takes it."""
    name = array.dtype.name
    if name in NARROW_INTEGERS:
        return array.astype(STORED[name])
    return array.view(np.uint8) if name in NARROW_FLOATS else array


def from_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """What a module returned as an array of `dtype`."""
    if dtype in NARROW_INTEGERS:
        return array.astype(dtype)
    return array.view(dtype) if dtype in NARROW_FLOATS else array


def values(dtype: str, target: str) -> np.ndarray:
    """What each of the 256 bytes means as `dtype`, as numbers of the type `target`."""
    with np.errstate(over="ignore"):
        return np.arange(256).astype(np.uint8).view(dtype).astype(numpy_dtype(target))


def numpy_dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))
