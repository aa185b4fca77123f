"""Depthwise convolutions: edges of rows, vectors that overlap, windows of one and three dims."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax, te, tirx, topi
from tvm.ir import Call, Op

from tests.schedules.cpu.kernels import ARCH, composed, kernel, normal, run
from tests.schedules.cpu.products import compare, convolve
from tvmext.arch import FAMILIES
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.depthwise import Decision, Depthwise
from tvmext.schedules.cpu.tile import Shape
from tvmext.schedules.kernel.analysis import collect
from tvmext.schedules.rule import Declined
from tvmext.schedules.select import select

op = relax.op


def nhwc(groups: int, **options: object) -> object:
    return lambda x, w: op.nn.conv2d(
        x, w, groups=groups, data_layout="NHWC", kernel_layout="OHWI", **options
    )


@pytest.mark.parametrize(
    "width, k, stride, dilation, channels",
    [
        (1, 7, 1, 1, 16),
        (7, 7, 1, 1, 20),
        (30, 5, 2, 1, 58),
        (41, 3, 1, 13, 8),  # windows that reach over several tiles at each edge
        (20, 15, 1, 1, 3),  # too many taps to unroll
    ],
)
@pytest.mark.parametrize("family", ["x86-64-v3", None])
def test_edges_of_rows(
    width: int, k: int, stride: int, dilation: int, channels: int, family: str | None
) -> None:
    pad = dilation * (k // 2)
    x, w = normal(1, 9, width, channels), normal(channels, k, k, 1, seed=1)
    build = nhwc(channels, strides=stride, padding=pad, dilation=dilation)
    expected = convolve(x, w, stride, pad, dilation, channels)
    arch = {"arch": FAMILIES[family]} if family else {}
    compare(build, [x, w], expected, weights=[1], rule="depthwise", **arch)
    dims = [("n", "h", "w", channels), w.shape]
    compare(build, [x, w], expected, weights=[1], rule="depthwise", dims=dims, **arch)


@pytest.mark.parametrize(
    "stride, dilation, k", [(1, 1, 3), (2, 1, 3), (3, 1, 2), (1, 2, 5), (2, 1, 15)]
)
def test_images_from_memory_are_fetched_a_row_ahead(stride: int, dilation: int, k: int) -> None:
    x, w = normal(2, 17, 23, 40), normal(40, k, k, 1, seed=1)
    pad = dilation * (k // 2)
    expected = convolve(x, w, stride, pad, dilation, 40)
    arch = replace(ARCH, l3_bytes=40 * 4 * 400)
    build = nhwc(40, strides=stride, padding=pad, dilation=dilation)
    for dims in (None, [("n", "h", "w", 40), w.shape]):
        compare(build, [x, w], expected, weights=[1], rule="depthwise", dims=dims, arch=arch)


def test_fetching_ahead_is_a_question_of_the_size_of_all_images() -> None:
    def fetches(*dims: int | str) -> int:
        shapes = (((*dims, 64), "float32"), ((64, 3, 3, 1), "float32"))
        one = kernel(nhwc(64, padding=1), *shapes)
        workload = Depthwise().match(one)
        assert not isinstance(workload, Declined)
        result = Depthwise().apply(one, workload, Depthwise().choose(workload, arch), arch)
        calls = collect(result.func.body, Call)
        return sum(call.op.name == "tirx.prefetch" for call in calls if isinstance(call.op, Op))

    arch = replace(ARCH, l3_bytes=32 << 20)
    assert not fetches(1, 112, 112)
    assert fetches(2, 112, 112)
    assert fetches("n", "h", "w")


@pytest.mark.parametrize("width", [19, 5])
def test_sums_of_a_tile_outlive_a_long_epilogue(width: int) -> None:
    x, w = normal(2, 9, width, 40), normal(40, 5, 5, 1, seed=1)
    total = convolve(x, w, 1, 2, 1, 40)
    conv = nhwc(40, padding=2)
    dims = [("n", "h", "w", 40), w.shape]
    for sizes in (None, dims):
        compare(
            lambda x, w: op.nn.silu(conv(x, w)),
            [x, w],
            total / (1 + np.exp(-total)),
            weights=[1],
            dims=sizes,
            rule="depthwise",
        )


@pytest.mark.parametrize("padding, heights", [(1, [8, 8]), (0, [8, 4, 2, 1])])
def test_padding_spares_rows_shorter_than_a_tile_their_own(
    padding: int, heights: list[int]
) -> None:
    """With it there are a tile inside and one over an edge, which goes on past a short row."""
    one = kernel(
        nhwc(64, padding=padding), (("n", "h", "w", 64), "float32"), ((64, 3, 3, 1), "float32")
    )
    workload = Depthwise().match(one)
    assert not isinstance(workload, Declined)
    result = Depthwise().apply(one, workload, Decision(Shape(8, 1, 16), 1, 8, False), ARCH)
    buffers = [each.buffer for each in collect(result.func.body, tirx.AllocBuffer)]
    assert [int(buffer.shape[0]) for buffer in buffers if buffer.name == "acc"] == heights


def test_the_tile_fits_the_registers() -> None:
    build = nhwc(768, padding=3)
    workload = Depthwise().match(
        kernel(build, ((1, 7, 7, 768), "float32"), ((768, 7, 7, 1), "float32"))
    )
    assert not isinstance(workload, Declined)
    for arch in FAMILIES.values():
        tile = Depthwise().choose(workload, arch).tile
        assert tile.rows == 1 or (tile.rows + 7) * tile.vectors < arch.vector_registers


@pytest.mark.parametrize("dims", [(2, 9, 19), ("n", "h", "w")])
def test_an_epilogue_over_merged_rows_and_columns(dims: tuple[int | str, ...]) -> None:
    """The sums of SegFormer's mixing layers are read as rows of pixels: none is in memory first."""

    def build(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        total = topi.nn.conv(x, w, 1, 1, 1, 40, "NHWC", "OHWI")
        n, h, width, c = x.shape
        pixels = te.compute((n, h * width, c), lambda i, p, c: total[i, p // width, p % width, c])
        return te.compute(pixels.shape, lambda *at: pixels(*at) * topi.sigmoid(pixels)(*at))

    one = composed(build, ((*dims, 40), "float32"), ((40, 3, 3, 1), "float32"))
    result, selection = select(one, ARCH, RULES)
    assert selection.rule == "depthwise", selection
    x, w = normal(2, 9, 19, 40), normal(40, 3, 3, 1, seed=1)
    total = convolve(x, w, 1, 1, 1, 40).reshape(2, 9 * 19, 40)
    (output,) = run(result.func, {"x0": x, "x1": w})
    np.testing.assert_allclose(output, total / (1 + np.exp(-total)), rtol=1e-5, atol=1e-4)
    buffers = [each.buffer for each in collect(result.func.body, tirx.AllocBuffer)]
    assert all(len(buffer.shape) <= 2 for buffer in buffers), "the sums are written to memory first"
