"""Depthwise convolutions on a GPU: several outputs per thread, 16 bytes of channels, any edges."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tvm import relax

from tests.schedules.cpu.kernels import kernel, normal
from tvmext.schedules.cuda.depthwise import Depthwise
from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import Declined, Kernel

from .kernels import ARCH, machine_code, run, scheduled

op = relax.op


def layer(stride: int, pad: int, dilation: int = 1, layout: str = "HWOI"):
    def build(x: relax.Expr, w: relax.Expr) -> relax.Expr:
        strides, sides, apart = [stride] * 2, [pad] * 2, [dilation] * 2
        channels = int(x.ty.shape.values[3])
        how = {"data_layout": "NHWC", "kernel_layout": layout, "out_layout": "NHWC"}
        return op.nn.relu(op.nn.conv2d(x, w, strides, sides, apart, groups=channels, **how))

    return build


def expected(x: np.ndarray, w: np.ndarray, stride: int, pad: int, dilation: int) -> np.ndarray:
    """``w`` is [taps, taps, channels]."""
    sides = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded, reach = np.pad(x.astype("float32"), sides), (len(w) - 1) * dilation + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach), (1, 2))
    windows = windows[:, ::stride, ::stride, :, ::dilation, ::dilation]
    return np.maximum(np.einsum("nhwcij,ijc->nhwc", windows, w.astype("float32")), 0)


@pytest.mark.parametrize(
    ("shape", "taps", "stride", "pad", "dilation", "dtype", "dims"),
    [
        ((2, 9, 21, 16), 3, 1, 1, 1, "float32", None),
        ((1, 12, 17, 24), 5, 2, 2, 1, "float16", None),
        ((2, 10, 19, 8), 3, 1, 0, 1, "float32", ("n", "h", "w", 8)),
        ((1, 13, 13, 8), 3, 1, 2, 2, "float32", ("n", "h", "w", 8)),
        ((0, 5, 6, 8), 3, 2, 1, 1, "float32", ("n", "h", "w", 8)),
    ],
)
def test_windows(shape, taps, stride, pad, dilation, dtype, dims) -> None:
    x, w = normal(*shape).astype(dtype), normal(taps, taps, shape[3], 1, seed=1).astype(dtype)
    made = kernel(layer(stride, pad, dilation), (dims or shape, dtype), (w.shape, dtype))
    # As if there was work enough for tiles: a machine of one multiprocessor.
    function, selection = scheduled(made, dataclasses.replace(ARCH, sms=1))
    assert selection.rule == "depthwise"
    assert selection.decision.lanes == min(16 // x.itemsize, shape[3])
    (result,) = run(function, {"x0": x, "x1": w}, 7)
    right = expected(x, w[..., 0], stride, pad, dilation)
    bound = 1e-4 if dtype == "float32" else 4e-2
    np.testing.assert_allclose(result, right, rtol=bound, atol=bound)


def test_a_column_is_read_once_for_all_outputs_that_it_counts_to() -> None:
    """With work enough a thread has several outputs; there are fewer loads than products."""
    shape, weight = (16, 56, 56, 64), (3, 3, 64, 1)
    made = kernel(layer(1, 1), (shape, "float32"), (weight, "float32"))
    function, selection = scheduled(made)
    pixels = selection.decision.pixels
    assert pixels > 2
    assert any(word.startswith("LDG.E.128") for word in machine_code(function))
    few = Depthwise().match(made).columns(pixels)
    assert len(few) == pixels + 2 and sum(map(len, few.values())) == 3 * pixels


def test_few_pixels_keep_threads_enough() -> None:
    made = kernel(layer(1, 1), ((1, 7, 7, 64), "float32"), ((3, 3, 64, 1), "float32"))
    assert scheduled(made)[1].decision.pixels == 1


def test_weights_of_another_layout_are_turned() -> None:
    x, w = normal(1, 8, 9, 16), normal(16, 3, 3, 1, seed=1)
    made = kernel(layer(1, 1, layout="OHWI"), (x.shape, "float32"), (w.shape, "float32"))
    known = Kernel("kernel", made.func, frozenset([1]))
    rule = Depthwise()
    assert isinstance(rule.match(made), Declined)
    workload = rule.match(known)
    result = rule.apply(known, workload, rule.choose(workload, ARCH), ARCH)
    turned = relayout(w, result.layouts[1])
    assert turned.shape == (3, 3, 1, 16)
    (got,) = run(result.func, {"x0": x, "x1": turned})
    right = expected(x, w[..., 0].transpose(1, 2, 0), 1, 1, 1)
    np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-4)


def test_declines_products_and_channels_without_vectors() -> None:
    product = kernel(op.matmul, ((8, 16), "float32"), ((16, 8), "float32"))
    odd = kernel(layer(1, 1), ((1, 8, 8, 7), "float32"), ((3, 3, 7, 1), "float32"))
    assert all(isinstance(Depthwise().match(made), Declined) for made in (product, odd))
