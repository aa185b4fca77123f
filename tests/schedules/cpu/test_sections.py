"""Products whose factor is a concat or a pad: a kernel for each of its sections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax import op

from tests.schedules.cpu.kernels import ARCH, composed, normal, run, scheduled
from tests.schedules.cpu.kernels import kernel as fused_kernel
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.sections import Sections, sections
from tvmext.schedules.memory import Memory
from tvmext.schedules.price import cycles
from tvmext.schedules.rule import Declined, Kernel

TOKENS, HEADS, WIDTH, COLS = 40, 3, 8, 16


def attention_values(first: te.Tensor, second: te.Tensor, right: te.Tensor) -> te.Tensor:
    """Columns of two matrices, a row of ones behind them, times a third: EfficientViT's sums."""
    n = 2 * HEADS

    def rows(h: Any, r: Any, t: Any) -> Any:
        inside = tirx.And(h < HEADS, r < WIDTH)
        other = tirx.And(h >= HEADS, r < WIDTH)
        near, far = first[t, h * WIDTH + r], second[t, (h - HEADS) * WIDTH + r]
        one = tirx.const(1, "float32")
        return tirx.if_then_else(inside, near, tirx.if_then_else(other, far, one))

    left = te.compute((n, WIDTH + 1, TOKENS), rows, "rows")
    k = te.reduce_axis((0, TOKENS), "k")
    return te.compute(
        (n, WIDTH + 1, COLS), lambda h, r, c: te.sum(left[h, r, k] * right[h, k, c], k), "product"
    )


SHAPES = (
    ((TOKENS, HEADS * WIDTH), "float32"),
    ((TOKENS, HEADS * WIDTH), "float32"),
    ((2 * HEADS, TOKENS, COLS), "float32"),
)


def padded(x: te.Tensor, w: te.Tensor) -> te.Tensor:
    """A product of rows behind zeros, and what is added to it."""
    n = x.shape[0]
    zero = tirx.const(0, "float32")
    rows = te.compute(
        (n + 3, 24), lambda i, k: tirx.if_then_else(i < 3, zero, x[i - 3, k] * 2), "rows"
    )
    k = te.reduce_axis((0, 24), "k")
    total = te.compute((n + 3, 32), lambda i, j: te.sum(rows[i, k] * w[k, j], k), "total")
    return te.compute((n + 3, 32), lambda i, j: tirx.max(total[i, j], zero), "relu")


def test_equals_the_unscheduled_kernel() -> None:
    kernel = composed(attention_values, *SHAPES)
    func, selection = scheduled(kernel)
    assert selection.rule == "sections"
    assert [one.rule for one in selection.decision].count("gemm") == 2
    arrays = [normal(*shape, seed=seed) for seed, (shape, _) in enumerate(SHAPES)]
    first, second, right = arrays
    rows = [m.reshape(TOKENS, HEADS, WIDTH).transpose(1, 2, 0) for m in (first, second)]
    ones = np.ones((2 * HEADS, 1, TOKENS), "float32")
    left = np.concatenate([np.concatenate(rows), ones], axis=1)
    (actual,) = run(func, {f"x{k}": array for k, array in enumerate(arrays)})
    np.testing.assert_allclose(actual, left @ right, rtol=1e-4, atol=1e-5)


def test_what_is_computed_is_left_to_others() -> None:
    kernel = composed(padded, ((40, 24), "float32"), ((24, 32), "float32"))
    reason = sections(kernel)
    assert isinstance(reason, Declined)
    assert "in place" in reason.reason


def test_a_weight_is_left_to_convolutions() -> None:
    """Each section would lay it out anew: a 1x1 convolution that pads."""
    layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
    shapes = ((1, 5, 6, 3), "float32"), ((8, 1, 1, 3), "float32")
    conv = fused_kernel(lambda x, w: op.nn.conv2d(x, w, padding=1, **layouts), *shapes)
    assert isinstance(sections(replace(conv, constant_args=frozenset([1]))), Declined)


def test_must_not_fire_on_a_plain_product() -> None:
    def product(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, 24), "k")
        return te.compute((40, 32), lambda i, j: te.sum(x[i, k] * w[k, j], k), "product")

    kernel = composed(product, ((40, 24), "float32"), ((24, 32), "float32"))
    assert isinstance(Sections(RULES).match(kernel), Declined)


def test_the_price_is_that_of_the_sections() -> None:
    kernel = composed(attention_values, *SHAPES)
    parts = sections(kernel)
    assert not isinstance(parts, Declined)
    memory = Memory(ARCH)
    each = [cycles(Kernel(part.name, part.func), memory) for part in parts]
    assert max(each) < cycles(kernel, memory) < sum(each)
