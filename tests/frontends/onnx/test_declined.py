"""What converters refuse: the error names the node and says why."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontends.onnx.stock import one_node
from tvmext.errors import UnsupportedError
from tvmext.frontends import load

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def bytes_(*shape):
    return np.zeros(shape, np.uint8)


F1, U1 = np.float32(1), np.uint8(0)
DECLINED = {
    "training": (
        "Dropout",
        [X, None, np.bool_(True)],
        {},
        "training",
    ),
    "another number of operands": ("Einsum", [X, X], {"equation": "ijk->i"}, "2 operands"),
    "operands of another rank": ("Einsum", [X], {"equation": "ij->i"}, "operand 0, 'ij', has 3"),
    "a state of other dims": (
        "LSTM",
        [floats(3, 2, 4), floats(1, 12, 4), floats(1, 12, 3), None, None, floats(1, 12, 4)],
        {"hidden_size": 3, "outputs": 2},
        "where 1, 2, 3 are needed",
    ),
    "an axis of a number": (
        "CumSum",
        [np.float32(1)],
        {"constants": {1: np.int64(0)}},
        "without dims",
    ),
    "a padding that is none": (
        "GridSample",
        [floats(1, 1, 3, 2), floats(1, 2, 4, 2)],
        {"padding_mode": "text"},
        "padding_mode text",
    ),
    "a mode that is none": (
        "GridSample",
        [floats(1, 1, 3, 2), floats(1, 2, 4, 2)],
        {"mode": "text"},
        "mode text",
    ),
    "an image without columns": (
        "Conv",
        [floats(1, 1, 5, 0), floats(1, 1, 3, 3)],
        {"pads": [1, 2, 1, 2]},
        "without positions",
    ),
    **{
        f"a {what} of two dims": (
            "QLinearMatMul",
            [bytes_(3, 4), *scales[:2], bytes_(4, 5), F1, U1, *scales[2:]],
            {},
            f"a {what} of 2 dims",
        )
        for what, scales in (
            ("scale", (F1, U1, floats(3, 5), U1)),
            ("zero point", (F1, bytes_(3, 4), F1, U1)),
        )
    },
    "strides that leave almost nothing but zeros": (
        "ConvTranspose",
        [floats(1, 1, 2, 2), floats(1, 1, 3, 3)],
        {"strides": [65536, 65536]},
        "strides of 65536x65536",
    ),
    "more than there are": (
        "TopK",
        [X],
        {"constants": {1: np.int64([5])}, "outputs": 2},
        "k is 5, of 4 elements",
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined_with_a_reason(name):
    op, arrays, options, reason = DECLINED[name]
    proto, _ = one_node(op, arrays, **options)
    with pytest.raises(UnsupportedError) as caught:
        load(proto)
    (unsupported,) = caught.value.ops
    assert (unsupported.op_type, unsupported.node) == (op, "the_node")
    assert reason in unsupported.reason
