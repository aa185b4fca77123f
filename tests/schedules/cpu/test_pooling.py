"""Pooling in both layouts, against the kernel as it was before scheduling and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tests.schedules.cpu.kernels import check, kernel, normal, run, scheduled
from tvmext.schedules.cpu.pooling import Pooling
from tvmext.schedules.rule import Declined

op = relax.op
few = settings(max_examples=12, deadline=None)


def test_padding_becomes_limits_of_the_window() -> None:
    function, selection = scheduled(
        kernel(
            lambda x: op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1), layout="NHWC"),
            ((1, 12, 12, 32), "float32"),
        )
    )
    assert selection.rule == "pooling"
    assert "if_then_else" not in function.script()
    assert len(function.body.block.alloc_buffers) == 0


def test_declines_a_reduction_without_a_window() -> None:
    answer = Pooling().match(kernel(lambda x: op.sum(x, 1), ((4, 5), "float32")))
    assert isinstance(answer, Declined)


@few
@given(
    st.sampled_from(["max_pool2d", "avg_pool2d"]),
    st.sampled_from(["NHWC", "NCHW"]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 1),
    st.sampled_from([1, 3, 16, 17, 40]),
    st.sampled_from([5, 8, 13]),
)
def test_against_the_unscheduled_kernel(
    name: str, layout: str, window: int, stride: int, pad: int, channels: int, size: int
) -> None:
    pad = min(pad, window - 1)
    shape = (2, size, size + 2, channels) if layout == "NHWC" else (2, channels, size, size + 2)
    before = kernel(
        lambda x: getattr(op.nn, name)(
            x, (window, window), (stride, stride), (pad, pad), layout=layout
        ),
        (shape, "float32"),
    )
    x = {"x0": normal(*shape)}
    after, _ = scheduled(before)
    np.testing.assert_allclose(run(after, x)[0], run(before.func, x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 7, 20])
def test_symbolic_dims(size: int) -> None:
    x = normal(2, size, 6, 20)
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (1, 2))
    check(
        lambda x: op.nn.max_pool2d(x, (2, 2), layout="NHWC"),
        [x],
        windows.max((-1, -2)),
        dims=[("n", "h", 6, 20)],
        rule="pooling",
    )


def test_global_average() -> None:
    x = normal(2, 7, 7, 50)
    check(
        lambda x: op.nn.adaptive_avg_pool2d(x, (1, 1), layout="NHWC"),
        [x],
        x.mean((1, 2), keepdims=True),
    )
