"""Reductions on a GPU, and what is computed of them: along rows, across rows, in one launch."""

from __future__ import annotations

import dataclasses
import math
import re
from functools import partial

import numpy as np
import pytest
from tvm import relax

from tests.schedules.cpu.kernels import composed, kernel, normal
from tvmext.schedules.cuda.rows import Rows
from tvmext.schedules.rule import Declined

from .kernels import ARCH, ORDERS, RACES, check, run, scheduled, source
from .test_contract import without_barrier

op = relax.op


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("shape", [(4, 300), (3, 1), (1, 33), (70, 64), (5, 5000), (0, 7)])
def test_softmax_along_rows(shape: tuple[int, int]) -> None:
    x = normal(*shape)
    (plan,) = check(lambda x: op.nn.softmax(x), [x], softmax(x, -1), dims=[("n", shape[1])])
    assert plan.stages[0] == 0


def test_softmax_across_rows() -> None:
    x = normal(2, 300, 37)
    (plan,) = check(lambda x: op.nn.softmax(x, axis=1), [x], softmax(x, 1))
    assert not plan.along
    assert plan.threads > 1


def test_rows_of_unknown_length() -> None:
    x = normal(5, 77)
    check(lambda x: op.nn.softmax(x), [x], softmax(x, -1), dims=[("n", "m")])


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1), (0, 1, 2)])
def test_sums_over_any_axes(axes: tuple[int, ...]) -> None:
    x = normal(5, 33, 70)
    check(lambda x: op.sum(x, list(axes)), [x], x.sum(axes), tolerance=1e-4)


def test_normalization_is_one_launch() -> None:
    x, scale, shift = normal(6, 10, 100), normal(100, seed=1), normal(100, seed=2)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    plans = check(
        lambda x, g, b: op.nn.layer_norm(x, g, b, [-1]),
        [x, scale, shift],
        expected * scale + shift,
        tolerance=1e-4,
    )
    assert len(plans) == 1


@pytest.mark.parametrize(
    ("shape", "axis", "along", "dims"),
    [
        ((3, 50, 4), 1, False, None),
        ((2, 3000), 1, True, None),
        ((70, 40), 1, True, ("n", "m")),
        ((2, 30, 20), None, True, None),
        ((3, 400, 2), 1, False, None),
    ],
)
def test_indices_of_the_largest(shape: tuple, axis: int, along: bool, dims: tuple) -> None:
    """Threads share a row; of equal ones the first is found, whoever found it."""
    x = np.random.default_rng(0).integers(0, 9, shape).astype("float32")
    (plan,) = check(lambda x: op.argmax(x, axis), [x], x.argmax(axis), dims=[dims or shape])
    assert plan.along == along and (plan.threads > 1 or shape[1] < 64)


def test_bounds_that_are_data() -> None:
    """RoiAlign takes as many samples as a region is large: none of one that is turned around."""
    from tvm import topi

    x = normal(2, 3, 20, 20)
    boxes = np.array([[0, 2, 2, 30, 40], [1, 0, 0, 5, 70], [1, 30, 30, 8, 4]], "float32")
    made = composed(
        lambda x, r: topi.vision.roi_align_nchw(x, r, (5, 5), 0.25, "avg", 0, aligned=True),
        (("b", 3, "h", "w"), "float32"),
        (("n", 5), "float32"),
    )
    function, selection = scheduled(made)
    assert selection.rule == "rows"
    (result,) = run(function, {"x0": x, "x1": boxes}, 7)
    np.testing.assert_allclose(result, regions(x, boxes, 5, 0.25), rtol=1e-4, atol=1e-4)


def regions(x: np.ndarray, boxes: np.ndarray, size: int, scale: float) -> np.ndarray:
    """RoiAlign (average, aligned, as many samples as pixels), one sample after another."""
    out = np.zeros((len(boxes), x.shape[1], size, size))
    high, wide = x.shape[2] - 1, x.shape[3] - 1
    for n, (image, left, top, right, bottom) in enumerate(boxes):
        steps = (bottom - top) * scale / size, (right - left) * scale / size
        counts = [max(0, math.ceil(step)) for step in steps]
        for i, j, u, v in np.ndindex(size, size, *counts):
            y = top * scale + (i + (u + 0.5) / counts[0]) * steps[0]
            z = left * scale + (j + (v + 0.5) / counts[1]) * steps[1]
            if y < -1 or z < -1 or y > high + 1 or z > wide + 1:
                continue
            y, z = min(max(y, 0), high), min(max(z, 0), wide)
            a, b = int(y), int(z)
            c, d = min(a + 1, high), min(b + 1, wide)
            p, q = y - a, z - b
            here = x[int(image)]
            value = (here[:, a, b] * (1 - q) + here[:, a, d] * q) * (1 - p)
            value += (here[:, c, b] * (1 - q) + here[:, c, d] * q) * p
            out[n, :, i, j] += value / (counts[0] * counts[1])
    return out


def test_pooling_has_a_thread_per_element() -> None:
    x = normal(1, 9, 9, 8)
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (1, 2))[:, ::2, ::2]
    (plan,) = check(
        lambda x: op.nn.max_pool2d(x, [2, 2], [2, 2], layout="NHWC"), [x], windows.max((-1, -2))
    )
    assert plan.threads == 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_windows_over_channels_take_vectors(dtype: str) -> None:
    """Pooling with rows enough: sixteen bytes per access, padded too."""
    x = normal(1, 66, 60, 64).astype(dtype)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    made = kernel(
        lambda x: op.nn.max_pool2d(x, [3, 3], [1, 1], [1, 1, 1, 1], layout="NHWC"),
        (x.shape, dtype),
    )
    function, selection = scheduled(made, dataclasses.replace(ARCH, sms=16))
    (plan,) = selection.decision
    assert plan.lanes == 16 // x.itemsize and plan.threads == 1
    np.testing.assert_array_equal(run(function, {"x0": x}, 7)[0], windows.max((-1, -2)))


def test_channels_that_no_vector_divides_stay_single() -> None:
    x = normal(2, 40, 30, 63)
    function, selection = scheduled(
        kernel(lambda x: op.nn.max_pool2d(x, [2, 2], [2, 2], layout="NHWC"), (x.shape, "float32")),
        dataclasses.replace(ARCH, sms=1),
    )
    assert selection.decision[0].lanes == 1
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(run(function, {"x0": x})[0], windows.max((-1, -2)))


def test_declines_what_has_no_reduction() -> None:
    assert isinstance(Rows().match(kernel(op.negative, ((4, 5), "float32"))), Declined)


def test_a_missing_barrier_and_a_missing_shuffle_are_noticed() -> None:
    function, _ = scheduled(kernel(lambda x: op.sum(x, 1), ((2, 4096), "float32")))
    x = normal(2, 4096)
    (right,) = run(function, {"x0": x}, 1)
    np.testing.assert_allclose(right, x.sum(1), rtol=1e-3, atol=1e-3)
    for mutation in (without_barriers, without_shuffles):
        wrong = [run(function, {"x0": x}, order, mutation)[0] for order in ORDERS]
        assert not all(np.allclose(w, x.sum(1), rtol=1e-3, atol=1e-3) for w in wrong)


def test_every_barrier_is_needed_where_warps_race() -> None:
    """But for that after the last join, which has nothing to protect; and of the two between the
    joins one is enough, since threads read the exponentials that they wrote themselves."""
    function, _ = scheduled(kernel(lambda x: op.nn.softmax(x), ((2, 2048), "float32")))
    x = normal(2, 2048)
    for order in RACES:
        np.testing.assert_allclose(run(function, {"x0": x}, order)[0], softmax(x, -1), atol=1e-5)

    def wrong(number: int) -> bool:
        found = (
            run(function, {"x0": x}, order, partial(without_barrier, number))[0] for order in RACES
        )
        return not all(np.allclose(result, softmax(x, -1), atol=1e-5) for result in found)

    count = source(function).count("__syncthreads();")
    assert [number for number in range(count) if not wrong(number)] == [1, 2, 4]


def without_barriers(code: str) -> str:
    return code.replace("__syncthreads();", "")


def without_shuffles(code: str) -> str:
    helper = "template <class T> T own(unsigned, T value, int, int = 0) { return value; }\n"
    return helper + re.sub("__shfl_(xor|up)_sync", "own", code)


def test_stages_that_share_no_rows_are_launches_of_their_own() -> None:
    from tvm import topi

    x = normal(20, 30)
    plans = check(
        lambda x: topi.sum(topi.divide(x, topi.sum(x, 1, keepdims=True)), 0),
        [x],
        (x / x.sum(1, keepdims=True)).sum(0),
        how=composed,
        tolerance=1e-2,
    )
    assert len(plans) >= 2
