"""Pooling along contiguous rows, against ONNX Runtime and the kernel as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.relax import op

from tests.schedules.cpu.kernels import kernel, normal, run, scheduled
from tvmext.arch import FAMILIES
from tvmext.schedules.cpu.pool_rows import PoolRows
from tvmext.schedules.rule import Declined

few = settings(max_examples=8, deadline=None)


@few
@given(st.data())
def test_equals_the_unscheduled_kernel(data: st.DataObject) -> None:
    draw = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    rank, name = draw(1, 2, 2, 3), draw("max", "avg")
    window = tuple(draw(1, 2, 3, 9) for _ in range(rank))
    stride = tuple(draw(1, 2, 3) for _ in range(rank))
    padding = tuple(draw(0, min(1, k - 1)) for k in (*window, *window))
    sizes = [draw(9, 11, 20, 40) for _ in range(rank)]
    options: dict[str, Any] = {"ceil_mode": draw(True, False)}
    if name == "avg":
        options["count_include_pad"] = draw(True, False)
    call = getattr(op.nn, f"{name}_pool{rank}d")
    dims = ["n", 3, *(f"d{i}" for i in range(rank))] if draw(True, False) else [2, 3, *sizes]
    before = kernel(lambda x: call(x, window, stride, padding, **options), (dims, "float32"))
    x = {"x0": normal(2, 3, *sizes)}
    (expected,) = run(before.func, x)
    function, selection = scheduled(before)
    # A stride over a window of one element, cut off at an unknown end, is left to another rule.
    assert selection.rule == "pool rows" or 1 in (*window, expected.shape[-1])
    np.testing.assert_allclose(run(function, x)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", range(1, 19))
def test_rows_shorter_than_a_vector(width: int) -> None:
    x = normal(1, 2, 3, 2 * width)
    arch = FAMILIES["x86-64-v3"]
    before = kernel(
        lambda x: op.nn.max_pool2d(x, (1, 2), (1, 2)), (("n", "c", "h", "w"), "float32")
    )
    function, selection = scheduled(before, arch)
    assert selection.rule == "pool rows"
    expected = x.reshape(1, 2, 3, width, 2).max(-1)
    np.testing.assert_array_equal(run(function, {"x0": x}, arch)[0], expected)


def test_must_not_fire() -> None:
    image = ((1, 8, 8, 16), "float32")
    for build in (
        lambda x: op.nn.max_pool2d(x, (2, 2), layout="NHWC"),
        lambda x: op.nn.max_pool2d(x, (2, 2), (1, 1), (1, 1), (2, 2)),
        lambda x: op.sum(x, 3),
    ):
        assert isinstance(PoolRows().match(kernel(build, image)), Declined)
