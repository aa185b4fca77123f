"""Operators whose shapes, axes or bounds are inputs of the network, against onnx.reference."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tests.frontends.onnx.graphs import graph
from tests.frontends.onnx.stock import assert_matches, one_node, run
from tvmext.frontends import load

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)


def i64(*values):
    return np.array(values, np.int64)


CASES = {
    "Reshape": ("Reshape", [X, i64(4, -1, 2)], {"shapes": {0: ("n", 3, 4)}}),
    "Slice": ("Slice", [X, i64(-1, 0), i64(-4, 9), i64(2, 1), i64(-2, 2)], {}),
    "Split": ("Split", [X, i64(1, 2)], {"axis": 1, "outputs": 2}),
    "Unsqueeze": ("Unsqueeze", [X, i64(-1, 1)], {}),
    "CumSum": ("CumSum", [X, np.array(-2, np.int64)], {"reverse": 1}),
    "Compress": ("Compress", [X, np.array([True, False, True])], {"axis": 1}),
    "NonZero": ("NonZero", [X > 0], {"shapes": {0: (2, "n", "m")}}),
    "Unique": ("Unique", [np.array([2, np.nan, 1, 2, np.nan, 0, 1], np.float32)], {"outputs": 4}),
    "Unique of rows": (
        "Unique",
        [np.random.default_rng(0).integers(0, 2, (3, 9, 2))],
        {"axis": -2, "outputs": 4, "shapes": {0: (3, "n", 2)}},
    ),
    "Unique in order": (
        "Unique",
        [np.random.default_rng(1).integers(-9, 9, 200)],
        {"sorted": 0, "outputs": 4, "shapes": {0: ("n",)}},
    ),
    "Trilu": ("Trilu", [X, np.array(-1, np.int64)], {"shapes": {0: (2, "n", "m")}}),
    "TopK": ("TopK", [X, i64(2)], {"axis": 1, "outputs": 2, "shapes": {0: (2, "n", "m")}}),
    "Range": ("Range", [np.array(v, np.int64) for v in (9, 1, -3)], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_operator(name):
    op, arrays, options = CASES[name]
    proto, feeds = one_node(op, arrays, **options)
    assert_matches(load(proto), proto, feeds)


@pytest.mark.parametrize("count", [5, 1, 0])
def test_dims_that_an_input_gives(count):
    """They are known by the tensor's own size, though the number is read from data."""
    body = """start = Constant<value_int=0>() step = Constant<value_int=1>()
        steps = Range(start, n, step) dims = Shape(steps) y = Expand(x, dims)"""
    proto = graph(17, "int64 n, float[1] x", body)
    feeds = {"n": np.array(count, np.int64), "x": np.ones(1, np.float32)}
    assert_matches(load(proto), proto, feeds)


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("most", [-1, 3, 99])
def test_non_max_suppression(center, most):
    """Against ONNX Runtime: equal scores, boxes without area, no box, fewer boxes than wanted."""
    rng = np.random.default_rng(center)
    for count in (0, 1, 17):
        boxes = rng.integers(0, 6, (2, count, 4)).astype(np.float32)
        scores = rng.integers(0, 5, (2, 3, count)).astype(np.float32)
        limits = [np.array([value], np.float32) for value in (0.3, 0.5)]
        proto, feeds = one_node(
            "NonMaxSuppression",
            [boxes, scores, i64(most), *limits],
            shapes={0: (2, "n", 4), 1: (2, 3, "n")},
            center_point_box=center,
        )
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        (found,) = run(load(proto), feeds)
        np.testing.assert_array_equal(found, session.run(None, feeds)[0])
