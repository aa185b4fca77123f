"""Tiles that products share: every height, width, epilogue and way that rows lie in memory."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, te

from tests.schedules.cpu.kernels import ARCH, composed, kernel, normal, run, scheduled
from tests.schedules.cpu.products import compare, convolve, schedule
from tvmext.arch import FAMILIES, to_target
from tvmext.build.kernels import build_kernels
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.functions import called_by
from tvmext.schedules.cpu.shared_tile import LEAST_STEPS, runs
from tvmext.schedules.kernel.read_contraction import contraction
from tvmext.schedules.layout import relayout
from tvmext.schedules.select import select

op = relax.op
few = settings(max_examples=12, deadline=None)
rows = st.integers(0, 40)
depths = st.sampled_from([LEAST_STEPS, 131, 200])
columns = st.sampled_from([1, 7, 16, 31, 48, 50, 100, 144])


def test_who_shares() -> None:
    """Products of free rows whose sum is long; those of few steps or known rows have own tiles."""

    def shared(m: Any, k: int) -> bool:
        _, result, _ = schedule(op.matmul, ((m, k), "float32"), ((k, 96), "float32"), weights=[1])
        return bool(called_by([result.func]))

    assert shared("m", LEAST_STEPS)
    assert not shared("m", LEAST_STEPS - 1)
    assert not shared(8, LEAST_STEPS)


@few
@given(m=rows, k=depths, n=columns)
def test_every_height_and_width(m: int, k: int, n: int) -> None:
    x, w = normal(m, k), normal(k, n, seed=1)
    compare(op.matmul, [x, w], x @ w, weights=[1], dims=[("m", k), (k, n)], rule="gemm")


@few
@given(m=rows, n=columns)
def test_bias_and_residual(m: int, n: int) -> None:
    x, w, b, r = normal(m, 128), normal(128, n, seed=1), normal(n, seed=2), normal(m, n, seed=3)

    def build(x: Any, w: Any, b: Any, r: Any) -> Any:
        return op.add(op.add(op.matmul(x, w), b), r)

    dims = [("m", 128), (128, n), (n,), ("m", n)]
    compare(build, [x, w, b, r], x @ w + b + r, weights=[1], dims=dims, rule="gemm")


@few
@given(m=rows, n=columns)
def test_an_epilogue_in_a_loop(m: int, n: int) -> None:
    x, w = normal(m, 128), normal(128, n, seed=1)
    expected = np.tanh(x @ w) / (1 + np.exp(-(x @ w)))

    def build(x: Any, w: Any) -> Any:
        y = op.matmul(x, w)
        return op.multiply(op.tanh(y), op.sigmoid(y))

    compare(build, [x, w], expected, weights=[1], dims=[("m", 128), (128, n)], rule="gemm")


def test_doubles() -> None:
    x, w = normal(21, 160).astype("float64"), normal(160, 37, seed=1).astype("float64")
    compare(op.matmul, [x, w], x @ w, weights=[1], dims=[("m", 160), (160, 37)], tolerance=1e-12)


def _heads(x: te.Tensor, w: te.Tensor) -> te.Tensor:
    """[b, h, s, d] as [b, s, h * d], times a weight."""
    batch, heads, length, width = x.shape
    k = te.reduce_axis((0, heads * width), "k")

    def sum_(b: Any, s: Any, n: Any) -> Any:
        return te.sum(x[b, k // width, s, k % width] * w[k, n], k)

    return te.compute((batch, length, w.shape[1]), sum_, "out")


@pytest.mark.parametrize("s", [1, 5, 24])
def test_merged_heads_are_runs(s: int) -> None:
    x, w = normal(2, 4, s, 32), normal(128, 60, seed=1)
    merged = composed(_heads, (("b", 4, "s", 32), "float32"), ((128, 60), "float32"))
    made = replace(merged, constant_args=frozenset([1]))
    along = runs(contraction(made))
    assert along is not None and (along.count, along.steps) == (4, 32)
    result, _ = select(made, ARCH, RULES)
    assert called_by([result.func])
    (out,) = run(result.func, {"x0": x, "x1": relayout(w, result.layouts[1])})
    expected = x.transpose(0, 2, 1, 3).reshape(2, s, 128) @ w
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("stride, pad, side", [(2, 1, 9), (2, 0, 14), (1, 1, 5)])
def test_lines_of_a_window_are_runs(stride: int, pad: int, side: int) -> None:
    x, w = normal(2, side, side + 3, 20), normal(40, 3, 3, 20, seed=1)
    settings = {"strides": stride, "padding": pad, "data_layout": "NHWC", "kernel_layout": "OHWI"}

    def build(x: Any, w: Any) -> Any:
        return op.nn.conv2d(x, w, **settings)

    dims = [("n", "h", "w", 20), (40, 3, 3, 20)]
    if stride > 1:
        _, result, _ = schedule(build, *((shape, "float32") for shape in dims), weights=[1])
        assert called_by([result.func])
    compare(build, [x, w], convolve(x, w, stride, pad), weights=[1], dims=dims, rule="conv")


def _across(x: te.Tensor, y: te.Tensor) -> te.Tensor:
    """The products of all rows of two tensors."""
    k = te.reduce_axis((0, x.shape[1]), "k")
    shape = (x.shape[0], y.shape[0])
    return te.compute(shape, lambda m, n: te.sum(x[m, k] * y[n, k], k), "out")


@pytest.mark.parametrize("m", [0, 1, 6, 19])
@pytest.mark.parametrize("n", [0, 1, 2, 16, 33, 100])
def test_products_of_two_results(m: int, n: int) -> None:
    x, y = normal(m, 160), normal(n, 160, seed=1)
    arrays, dims = [x, np.ascontiguousarray(y.T)], [("m", 160), (160, "n")]
    compare(op.matmul, arrays, x @ y.T, dims=dims)
    made = composed(_across, (("m", 160), "float32"), (("n", 160), "float32"))
    function, _ = scheduled(made)
    assert called_by([function])
    (out,) = run(function, {"x0": x, "x1": y})
    np.testing.assert_allclose(out, x @ y.T, rtol=1e-5, atol=1e-4)


def test_the_function_has_the_heights_of_its_callers() -> None:
    """All of the weight from beyond L2, fewer of the small one, and of both together all."""

    def made(n: int) -> Any:
        shapes = (("m", 768), "float32"), ((768, n), "float32")
        _, result, _ = schedule(op.matmul, *shapes, weights=[1], arch=FAMILIES["znver4"])
        return result.func

    def heights(*kernels: Any) -> int:
        (function,) = called_by(kernels).values()
        return len(set(re.findall(r"height == T.int64\((\d+)\)", function.script())))

    far, near = made(48 * 100), made(48)
    assert heights(near) < heights(far) == heights(near, far)


def test_the_function_is_there_once_and_in_no_kernel() -> None:
    """TVM's notes to LLVM on what memory is whose do not hold across kernel and function."""
    kernels = {}
    for n in (96, 192, 480):
        _, result, _ = schedule(
            op.matmul, (("m", 256), "float32"), ((256, n), "float32"), weights=[1]
        )
        kernels[f"kernel{n}"] = result.func
    assert len(called_by(kernels.values())) == 1
    code = build_kernels(kernels, tvm.target.Target(to_target(ARCH))).inspect_source("ll")
    (head,) = re.findall(r"^define .*@tvmext_tile\w+_compute_.* (#\d+)", code, re.MULTILINE)
    assert re.search(rf"^attributes {head} = .*\bnoinline\b", code, re.MULTILINE)
    assert len(re.findall(r"call .*@tvmext_tile\w+_compute_", code)) >= 3
    alone, _ = scheduled(kernel(op.nn.relu, (("m", "k"), "float32")))
    assert not called_by([alone])
