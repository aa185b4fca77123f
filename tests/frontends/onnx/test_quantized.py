"""Converters of quantized operators against onnx.reference, with known and with free dims."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontends.onnx.stock import assert_matches, one_node
from tvmext.frontends import load

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)


def drawn(dtype: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


SCALE, VECTOR = np.float32(0.03), f32(0.03, 0.5, 0.01)
BLOCKS = np.abs(RNG.standard_normal((2, 3, 2))).astype(np.float32) + np.float32(0.1)
BATCH: dict[str, object] = {"shapes": {0: ("n", 3, 4)}}
ROWS: dict[str, object] = {"shapes": {0: ("m", 7)}}

CASES = {
    "quantize": ("QuantizeLinear", [X], {1: SCALE, 2: np.uint8(100)}, {"opset": 10}),
    "quantize, no zero": ("QuantizeLinear", [X], {1: SCALE}, {"opset": 13}),
    "quantize by axis": ("QuantizeLinear", [X], {1: VECTOR, 2: np.int8([1, -2, 3])}, BATCH),
    "quantize int32": (
        "QuantizeLinear",
        [drawn("int8", 5).astype("int32")],
        {1: SCALE},
        {"opset": 13},
    ),
    "quantize to int16": (
        "QuantizeLinear",
        [X],
        {1: SCALE},
        {"opset": 21, "output_dtype": 5},
    ),
    "quantize blocks": (
        "QuantizeLinear",
        [X],
        {1: BLOCKS, 2: drawn("int8", 2, 3, 2)},
        {"opset": 21, "axis": 2, "block_size": 2},
    ),
    "dequantize": (
        "DequantizeLinear",
        [drawn("uint8", 2, 3, 4)],
        {1: SCALE, 2: np.uint8(7)},
        BATCH,
    ),
    "dequantize by axis": (
        "DequantizeLinear",
        [drawn("int8", 2, 4, 3)],
        {1: VECTOR, 2: np.int8([1, -2, 3])},
        {"axis": -1},
    ),
    "dequantize int32": ("DequantizeLinear", [drawn("int16", 6).astype("int32")], {1: SCALE}, {}),
    "dequantize blocks": (
        "DequantizeLinear",
        [drawn("uint8", 2, 3, 4)],
        {1: BLOCKS, 2: drawn("uint8", 2, 3, 2)},
        {"opset": 21, "axis": -1, "block_size": 2},
    ),
    "quantize by the data": ("DynamicQuantizeLinear", [X], {}, {"outputs": 3, **BATCH}),
    "integers": (
        "MatMulInteger",
        [drawn("uint8", 5, 7)],
        {1: drawn("int8", 7, 6), 2: np.uint8(3), 3: drawn("int8", 6)},
        ROWS,
    ),
    "windows of integers": (
        "ConvInteger",
        [drawn("uint8", 1, 3, 5, 6)],
        {1: drawn("uint8", 4, 3, 3, 3), 2: np.uint8(3), 3: np.uint8(100)},
        {"pads": [1, 0, 1, 2]},
    ),
    "matmul": (
        "QLinearMatMul",
        [drawn("uint8", 5, 7)],
        {
            1: SCALE,
            2: np.uint8(120),
            3: drawn("int8", 7, 3),
            4: VECTOR,
            5: np.int8([0, 0, 1]),
            6: np.float32(2),
            7: np.uint8(9),
        },
        ROWS,
    ),
    "conv": (
        "QLinearConv",
        [drawn("uint8", 1, 2, 5, 6)],
        {
            1: SCALE,
            2: np.uint8(120),
            3: drawn("int8", 3, 2, 3, 3),
            4: VECTOR,
            5: np.int8([0, 0, 0]),
            6: np.float32(2),
            7: np.uint8(9),
            8: drawn("int16", 3).astype("int32"),
        },
        {"pads": [1, 1, 1, 1], "strides": [2, 1]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_against_the_reference(name: str) -> None:
    op, arrays, constants, rest = CASES[name]
    proto, feeds = one_node(op, arrays, constants=constants, **rest)
    assert_matches(load(proto), proto, feeds)
