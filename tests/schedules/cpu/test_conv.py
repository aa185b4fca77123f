"""Convolutions of every kind against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tvm import relax, te, tirx, topi

from tests.schedules.cpu.kernels import ARCH, composed, kernel, normal, run
from tests.schedules.cpu.products import compare, convolve, schedule
from tvmext.arch import FAMILIES
from tvmext.schedules.cpu import conv_choice, rules
from tvmext.schedules.cpu.conv import Conv
from tvmext.schedules.cpu.depthwise import Depthwise
from tvmext.schedules.rule import OWN_ADDRESSES, Declined
from tvmext.schedules.select import select

op = relax.op
few = settings(max_examples=12, deadline=None)


def nhwc(**options: object) -> object:
    return lambda x, w: op.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI", **options)


def test_padding_is_staged_and_leaves_the_inner_loop() -> None:
    shapes = ((1, 14, 14, 16), "float32"), ((32, 5, 5, 16), "float32")
    _, result, selection = schedule(nhwc(padding=1), *shapes, weights=[1])
    assert selection.rule == "conv"
    text = result.func.script()
    assert "window" in text
    assert "if_then_else" not in text
    assert result.layouts[1].shape[1:4] == (5, 5, 16)


def test_symbolic_padding_leaves_the_inner_loop() -> None:
    shapes = (("n", "h", "w", 16), "float32"), ((32, 5, 5, 16), "float32")
    _, result, _ = schedule(nhwc(padding=1), *shapes, weights=[1])
    assert "if_then_else" not in result.func.script()


def test_depthwise_copies_nothing() -> None:
    _, result, selection = schedule(
        nhwc(padding=1, groups=32), ((1, 9, 9, 32), "float32"), ((32, 3, 3, 1), "float32")
    )
    assert selection.rule == "depthwise"
    assert "if_then_else" not in result.func.script()


def test_pixels_of_small_pictures_are_one_row() -> None:
    """Lines of 7 pixels are tiles of 4 and 3 rows; 49 pixels are 6 and 7 at a time, which is less
    by the price, if not much. Lines of 12 are two tiles of 6."""

    def decided(size: int) -> conv_choice.Decision:
        shapes = ((1, 2 * size, 2 * size, 16), "float32"), ((32, 3, 3, 16), "float32")
        build = nhwc(padding=1, strides=2)
        arch = FAMILIES["x86-64-v3"]
        found: conv_choice.Decision = schedule(build, *shapes, weights=[1], arch=arch)[2].decision
        return found

    assert decided(7).flat and decided(11).flat
    assert not decided(12).flat and not decided(6).flat


@pytest.mark.parametrize("rule", [Conv(), Depthwise()])
def test_must_not_fire(rule: Conv | Depthwise) -> None:
    for build, shape in ((lambda x: op.sum(x, 1), (4, 5)), (op.exp, (4, 5))):
        assert isinstance(rule.match(kernel(build, (shape, "float32"))), Declined)
    product = kernel(op.matmul, ((4, 5), "float32"), ((5, 6), "float32"))
    assert isinstance(Depthwise().match(product), Declined)


@few
@given(
    st.sampled_from([1, 2]),
    st.sampled_from([1, 5, 7, 13, 28]),
    st.sampled_from([1, 3, 16, 17]),
    st.sampled_from([1, 8, 24, 33]),
    st.sampled_from([1, 2, 3, 5]),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.booleans(),
)
def test_static_sizes(
    n: int, size: int, ci: int, co: int, k: int, stride: int, pad: int, dilation: int, weight: bool
) -> None:
    assume(size + 2 * pad >= dilation * (k - 1) + 1)
    x, w = normal(n, size, size + 1, ci), normal(co, k, k, ci, seed=1)
    compare(
        nhwc(strides=stride, padding=pad, dilation=dilation),
        [x, w],
        convolve(x, w, stride, pad, dilation),
        weights=[1] if weight else [],
    )


@few
@given(
    st.sampled_from([3, 5, 9, 20]),
    st.sampled_from([1, 3, 8, 24, 48]),
    st.sampled_from([3, 5]),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.booleans(),
)
def test_depthwise(
    size: int, channels: int, k: int, stride: int, pad: int, dilation: int, weight: bool
) -> None:
    assume(size + 2 * pad >= dilation * (k - 1) + 1)
    x, w = normal(2, size, size + 1, channels), normal(channels, k, k, 1, seed=1)
    compare(
        nhwc(strides=stride, padding=pad, dilation=dilation, groups=channels),
        [x, w],
        convolve(x, w, stride, pad, dilation, channels),
        weights=[1] if weight else [],
    )


@pytest.mark.parametrize("groups, multiplier", [(2, 1), (4, 2), (8, 3)])
def test_groups(groups: int, multiplier: int) -> None:
    x, w = normal(1, 9, 9, 16), normal(8 * multiplier, 3, 3, 16 // groups, seed=1)
    expected = convolve(x, w, 1, 1, 1, groups)
    selection = compare(nhwc(padding=1, groups=groups), [x, w], expected, weights=[1])
    assert selection.rule == "conv"


@pytest.mark.parametrize("n, h, w", [(0, 5, 7), (1, 1, 1), (2, 7, 5), (1, 12, 33)])
@pytest.mark.parametrize("groups", [1, 16])
def test_symbolic_sizes(n: int, h: int, w: int, groups: int) -> None:
    x, weight = normal(n, h, w, 16), normal(16, 3, 3, 16 // groups, seed=1)
    compare(
        nhwc(padding=1, groups=groups),
        [x, weight],
        convolve(x, weight, 1, 1, 1, groups),
        weights=[1],
        dims=[("n", "h", "w", 16), weight.shape],
        rule="conv" if groups == 1 else "depthwise",
    )


@pytest.mark.parametrize("width", range(1, 14))
def test_every_width_in_mixed_tiles_of_other_machines(width: int) -> None:
    x, w = normal(1, 3, width, 8), normal(16, 3, 3, 8, seed=1)
    arch = FAMILIES["x86-64-v3"]
    dims = [("n", "h", "w", 8), w.shape]
    compare(nhwc(padding=1), [x, w], convolve(x, w, 1, 1), weights=[1], dims=dims, arch=arch)


@pytest.mark.parametrize("channels", [16, 20])
def test_epilogues(channels: int) -> None:
    x, w = normal(1, 9, 9, 8), normal(channels, 3, 3, 8, seed=1)
    bias, skip = normal(1, 1, 1, channels), normal(1, 9, 9, channels, seed=2)
    total = convolve(x, w, 1, 1) + bias
    conv = nhwc(padding=1)
    compare(
        lambda x, w, b, r: op.nn.relu(op.add(op.add(conv(x, w), b), r)),
        [x, w, bias, skip],
        np.maximum(total + skip, 0),
        weights=[1],
        rule="conv",
    )
    compare(
        lambda x, w, b: op.nn.silu(op.add(conv(x, w), b)),
        [x, w, bias],
        total / (1 + np.exp(-total)),
        weights=[1],
        rule="conv",
    )


def test_a_consumer_that_repeats_the_sum_runs_after_it() -> None:
    x, w, y = normal(2, 1, 1, 8), normal(40, 1, 1, 8, seed=1), normal(2, 5, 6, 40, seed=2)
    gate = 1 / (1 + np.exp(-convolve(x, w)))
    conv = nhwc()
    compare(lambda x, w, y: op.multiply(y, op.sigmoid(conv(x, w))), [x, w, y], y * gate)


def test_depthwise_with_a_long_epilogue() -> None:
    x, w = normal(1, 9, 9, 32), normal(32, 3, 3, 1, seed=1)
    total = convolve(x, w, 1, 1, 1, 32)
    conv = nhwc(padding=1, groups=32)
    compare(lambda x, w: op.sigmoid(conv(x, w)), [x, w], 1 / (1 + np.exp(-total)), weights=[1])


@pytest.mark.parametrize("layout", ["OIHW", "transposed", "1d", "3d"])
def test_other_kinds_against_the_unscheduled_kernel(layout: str) -> None:
    build, shapes = {
        "OIHW": (
            lambda x, w: op.nn.conv2d(x, w, padding=1, groups=2),
            [(2, 8, 9, 9), (6, 4, 3, 3)],
        ),
        "transposed": (
            lambda x, w: op.nn.conv2d_transpose(x, w, padding=1, strides=2),
            [(1, 6, 7, 7), (6, 5, 4, 4)],
        ),
        "1d": (lambda x, w: op.nn.conv1d(x, w, padding=1, strides=2), [(2, 6, 30), (9, 6, 3)]),
        "3d": (lambda x, w: op.nn.conv3d(x, w, padding=1), [(1, 4, 5, 6, 7), (5, 4, 3, 3, 3)]),
    }[layout]  # fmt: skip
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    before = kernel(build, *((shape, "float32") for shape in shapes))
    (expected,) = run(before.func, {f"x{i}": array for i, array in enumerate(arrays)})
    compare(build, arrays, expected, weights=[1])


def test_blocks_and_panels_on_two_cores() -> None:
    arch = replace(ARCH, cores=2)
    for size, channels, level in ((28, 32, "blocks"), (7, 256, "panels")):
        x, w = normal(1, size, size, channels), normal(channels, 5, 5, channels, seed=1)
        expected = convolve(x, w, 1, 1)
        selection = compare(nhwc(padding=1), [x, w], expected, weights=[1], arch=arch)
        assert selection.decision.parallel == level


def test_blocks_that_the_cache_limits_are_as_many_for_every_core() -> None:
    """Seven blocks of 56 rows would leave one of two cores idle for the last."""
    x, w = normal(1, 56, 56, 32), normal(16, 5, 5, 32, seed=1)
    expected = convolve(x, w, 1, 2)
    lines = 5 * 60 * 32 * 4
    for cores, blocks in ((1, 7), (2, 8), (3, 12)):
        arch = replace(ARCH, cores=cores, l2_bytes=3 * 8 * lines)
        decision = compare(nhwc(padding=2), [x, w], expected, weights=[1], arch=arch).decision
        assert -(-56 // decision.block_rows) == blocks, decision


@pytest.mark.parametrize(
    "groups, stride, kernel, multiplier", [(16, 1, 3, 1), (16, 2, 3, 1), (8, 1, 5, 2)]
)
def test_narrow_groups_are_taken_together(
    groups: int, stride: int, kernel: int, multiplier: int
) -> None:
    x, w = normal(1, 14, 14, 64), normal(64 * multiplier, kernel, kernel, 64 // groups, seed=1)
    bias = normal(1, 1, 1, 64 * multiplier)
    conv = nhwc(padding=1, groups=groups, strides=stride)
    for dims in (None, [("n", "h", "w", 64), w.shape, bias.shape]):
        selection = compare(
            lambda x, w, b: op.nn.relu(op.add(conv(x, w), b)),
            [x, w, bias],
            np.maximum(convolve(x, w, stride, 1, 1, groups) + bias, 0),
            weights=[1],
            dims=dims,
            rule="conv",
        )
        decision = selection.decision
        assert decision.merged * w.shape[0] // groups % decision.tile.lanes == 0


@pytest.mark.parametrize("filters", [(2,), ()])
def test_addresses_stay_as_they_are(filters: tuple[int, ...]) -> None:
    """Of a sum over the window, and of Winograd's method."""
    shapes = ((1, 14, 14, 64), "float32"), ((64, 3, 3, 64), "float32")
    found = rules(filters)
    _, result, selection = schedule(nhwc(padding=1), *shapes, weights=[1], rules=found)
    assert getattr(selection.decision, "step", 0) == sum(filters)
    assert OWN_ADDRESSES in result.func.attrs


def test_addresses_of_steps_that_are_written_out_are_looked_for() -> None:
    """Of a picture's three channels."""
    shapes = ((1, 32, 32, 3), "float32"), ((64, 7, 7, 3), "float32")
    _, result, _ = schedule(nhwc(strides=2, padding=3), *shapes, weights=[1], rules=rules(()))
    assert OWN_ADDRESSES not in result.func.attrs


def test_addresses_stay_as_they_are_where_each_channel_is_a_picture() -> None:
    """The steps of the three channels are written out, and lie apart."""
    shapes = ((1, 3, 32, 32), "float32"), ((64, 7, 7, 3), "float32")

    def conv(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        def pixel(n: tirx.Var, h: tirx.Var, w: tirx.Var, c: tirx.Var) -> tirx.Expr:
            inside = tirx.all(h >= 3, h < 35, w >= 3, w < 35)
            return tirx.if_then_else(inside, x[n, c, h - 3, w - 3], tirx.const(0.0, "float32"))

        return topi.nn.conv(te.compute((1, 38, 38, 3), pixel), w, 2, 0, 1, 1, "NHWC", "OHWI")

    found = replace(composed(conv, *shapes), constant_args=frozenset([1]))
    result, selection = select(found, ARCH, rules(()))
    assert selection.rule == "conv"
    assert OWN_ADDRESSES in result.func.attrs
