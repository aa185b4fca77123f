"""Convolutions whose results lie across the order of their vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx

from tests.schedules.cpu.kernels import ARCH, composed, normal, run
from tests.schedules.cpu.products import convolve
from tvmext.arch import FAMILIES, CpuArch
from tvmext.schedules.cpu import RULES
from tvmext.schedules.layout import relayout
from tvmext.schedules.select import Selection, manner, select

few = settings(max_examples=8, deadline=None)
Consumer = Callable[[te.Tensor, list[te.Tensor]], te.Tensor]


def conv(groups: int, consumer: Consumer) -> Callable[..., te.Tensor]:
    """``consumer(x[n, h, w, c] * w[o, y, x, c / groups], others)``, stride 1."""

    def build(x: te.Tensor, w: te.Tensor, *others: te.Tensor) -> te.Tensor:
        channels, outputs = w.shape[3], w.shape[0]
        shape = [x.shape[0], x.shape[1] - w.shape[1] + 1, x.shape[2] - w.shape[2] + 1, outputs]
        axes = [te.reduce_axis((0, n), name) for n, name in zip(w.shape[1:], ("ry", "rx", "rc"))]

        def at(n: Any, i: Any, j: Any, o: Any) -> Any:
            ry, rx, rc = axes
            group = 0 if groups == 1 else tirx.floordiv(o, outputs // groups) * channels
            return te.sum(x[n, i + ry, j + rx, group + rc] * w[o, ry, rx, rc], axes)

        return consumer(te.compute(shape, at, name="conv"), list(others))

    return build


def picture(made: te.Tensor, others: list[te.Tensor]) -> te.Tensor:
    """NCHW, with a residual in that order."""
    (residual,) = others
    n, h, w, c = made.shape
    shape = (n, c, h, w)
    return te.compute(
        shape, lambda b, o, i, j: te.max(made[b, i, j, o] + residual[b, o, i, j], 0.0)
    )


def shuffled(groups: int) -> Consumer:
    def consumer(made: te.Tensor, _others: list[te.Tensor]) -> te.Tensor:
        n, h, w, c = made.shape
        each = c // groups
        split = te.compute(
            (n, h, w, groups, each), lambda b, i, j, g, o: made[b, i, j, g * each + o] + 1.0
        )
        return te.compute((n, h, w, each, groups), lambda b, i, j, o, g: split[b, i, j, g, o])

    return consumer


def compare(
    build: Callable[..., te.Tensor],
    arrays: list[np.ndarray],
    expected: np.ndarray,
    dims: list[Any] | None = None,
    arch: CpuArch = ARCH,
) -> Selection:
    shapes = dims or [array.shape for array in arrays]
    made = composed(build, *((shape, str(array.dtype)) for shape, array in zip(shapes, arrays)))
    result, selection = select(replace(made, constant_args=frozenset([1])), arch, RULES)
    values = {
        f"x{i}": relayout(array, result.layouts[i]) if i in result.layouts else array
        for i, array in enumerate(arrays)
    }
    (output,) = run(result.func, values, arch)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5 * scale)
    return selection


@few
@given(
    st.integers(1, 2),
    st.integers(1, 12),
    st.sampled_from([1, 7, 16, 29]),
    st.sampled_from([3, 16]),
    st.sampled_from([1, 20, 33, 64]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.sampled_from([1, 3]),
)
def test_pictures(n: int, h: int, w: int, ci: int, co: int, k: int, free: bool, cores: int) -> None:
    x, weight = normal(n, h + k - 1, w + k - 1, ci), normal(co, k, k, ci, seed=1)
    residual = normal(n, co, h, w, seed=2)
    expected = np.maximum(convolve(x, weight).transpose(0, 3, 1, 2) + residual, 0)
    dims = [("n", "h", "w", ci), weight.shape, ("n", co, "h", "w")] if free and k == 1 else None
    compare(conv(1, picture), [x, weight, residual], expected, dims, replace(ARCH, cores=cores))


@few
@given(
    st.integers(1, 2), st.integers(1, 9), st.integers(1, 17), st.sampled_from([2, 3]),
    st.sampled_from([16, 20, 24]), st.booleans(), st.sampled_from([1, 2])
)  # fmt: skip
def test_shuffles(n: int, h: int, w: int, groups: int, each: int, free: bool, cores: int) -> None:
    x, weight = normal(n, h, w, 8 * groups), normal(groups * each, 1, 1, 8, seed=1)
    made = convolve(x, weight, groups=groups) + 1
    expected = made.reshape(n, h, w, groups, each).swapaxes(3, 4)
    dims = [("n", "h", "w", 8 * groups), weight.shape] if free else None
    arch = replace(ARCH, cores=cores)
    compare(conv(groups, shuffled(groups)), [x, weight], expected, dims, arch)


def test_blocks_are_turned_where_they_were_made() -> None:
    x, weight, residual = normal(1, 28, 28, 16), normal(48, 1, 1, 16), normal(1, 48, 28, 28)
    expected = np.maximum(convolve(x, weight).transpose(0, 3, 1, 2) + residual, 0)
    selection = compare(conv(1, picture), [x, weight, residual], expected)
    assert selection.rule == "conv"
    assert [plan.mode for plan in selection.decision.turned] == ["transpose"]
    assert 0 < selection.decision.block_rows * 28 * 48 * 4 <= ARCH.l2_bytes // 4
    x, weight = normal(1, 28, 28, 24), normal(60, 1, 1, 8)
    expected = (convolve(x, weight, groups=3) + 1).reshape(1, 28, 28, 3, 20).swapaxes(3, 4)
    selection = compare(conv(3, shuffled(3)), [x, weight], expected)
    assert [plan.mode for plan in selection.decision.turned] == ["interleave"]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_machine_decides(family: str) -> None:
    made = composed(conv(1, picture), *_shapes())
    arch = replace(FAMILIES[family], cores=2)
    _, selection = select(replace(made, constant_args=frozenset([1])), arch, RULES)
    assert selection.decision.turned and selection.decision.parallel == "blocks"


def test_must_not_fire() -> None:
    """Results in the order of the sum, or a part of a split axis: nothing that blocks turn."""

    def plain(made: te.Tensor, _others: list[te.Tensor]) -> te.Tensor:
        return te.compute(made.shape, lambda *at: made[at] + 1.0)

    def part(made: te.Tensor, _others: list[te.Tensor]) -> te.Tensor:
        """The second of the groups alone."""
        split = te.compute((1, 8, 8, 3, 20), lambda b, i, j, g, o: made[b, i, j, g * 20 + o])
        return te.compute((1, 8, 8, 20, 2), lambda b, i, j, o, g: split[b, i, j, g, o])

    x, weight = normal(1, 8, 8, 24), normal(60, 1, 1, 8)
    made = convolve(x, weight, groups=3)
    assert not compare(conv(3, plain), [x, weight], made + 1).decision.turned
    expected = made.reshape(1, 8, 8, 3, 20)[..., :2, :].swapaxes(3, 4)
    compare(conv(3, part), [x, weight], expected)


def test_a_join_that_would_lose_winograds_method_is_another_kind() -> None:
    def kind(consumer: Consumer, *others: tuple[Any, str]) -> str:
        shapes = [((1, 58, 58, 64), "float32"), ((64, 3, 3, 64), "float32"), *others]
        made = composed(conv(1, consumer), *shapes)
        return manner(replace(made, constant_args=frozenset([1])), ARCH, RULES)

    plain = kind(lambda made, _: te.compute(made.shape, lambda *at: made[at] + 1.0))
    assert (plain, kind(picture, ((1, 64, 56, 56), "float32"))) == ("conv, winograd", "conv")


def _shapes() -> list[tuple[Any, str]]:
    shapes = (1, 56, 56, 32), (64, 1, 1, 32), (1, 64, 56, 56)
    return [(shape, "float32") for shape in shapes]
