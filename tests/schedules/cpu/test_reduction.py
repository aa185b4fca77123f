"""Kernels with one reduction, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, te, topi

from tests.schedules.cpu.kernels import ARCH, check, composed, kernel, normal, scheduled
from tvmext.schedules.cpu.reduction import Reduction
from tvmext.schedules.rule import Declined

op = relax.op
SIZES = st.sampled_from([0, 1, 2, 3, 7, 13, 16, 17, 31, 64, 67, 131])
few = settings(max_examples=20, deadline=None)
AXES = st.sets(st.integers(0, 2), min_size=1)


def test_fires_on_a_sum_and_keeps_partial_sums_in_lanes() -> None:
    function, selection = scheduled(kernel(lambda x: op.sum(x, 1), ((3, 512), "float32")))
    assert selection.rule == "reduction"
    assert selection.decision[0].plans[0].mode == "lanes"
    assert "T.vectorized" in function.script()


def test_reduces_columns_in_lanes_of_the_contiguous_axis() -> None:
    _, selection = scheduled(kernel(lambda x: op.mean(x, [1]), ((2, 49, 256), "float32")))
    assert selection.decision[0].plans[0].mode == "columns"


def test_declines_what_is_not_one_reduction() -> None:
    for build in (op.nn.relu, lambda x: op.nn.softmax(x, 1)):
        answer = Reduction().match(kernel(build, ((4, 5), "float32")))
        assert isinstance(answer, Declined)


@few
@given(st.tuples(SIZES, SIZES, SIZES), AXES, st.booleans())
def test_sum(shape: tuple[int, ...], axes: set[int], keep: bool) -> None:
    x = normal(*shape)
    axis = tuple(sorted(axes))
    check(
        lambda x: op.sum(x, list(axis), keepdims=keep),
        [x],
        x.astype("float64").sum(axis, keepdims=keep).astype("float32"),
        # half a unit in the last place of the largest partial sum
        tolerance=max(1e-5, 2**-24 * float(np.abs(x).sum(axis).max(initial=0))),
    )


@few
@given(st.tuples(SIZES, SIZES, SIZES).filter(all), AXES, st.sampled_from(["max", "min"]))
def test_extrema(shape: tuple[int, ...], axes: set[int], name: str) -> None:
    x = normal(*shape)
    axis = tuple(sorted(axes))
    check(lambda x: getattr(op, name)(x, list(axis)), [x], getattr(np, name)(x, axis))


def test_product() -> None:
    x = 1 + normal(5, 67) / 20
    check(lambda x: op.prod(x, 1), [x], x.astype("float64").prod(1), tolerance=1e-4)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 77, 257])
@pytest.mark.parametrize("axis", [0, 1])
def test_symbolic_dims(size: int, axis: int) -> None:
    x = normal(size, 19) if axis == 0 else normal(19, size)
    dims = ("n", 19) if axis == 0 else (19, "n")
    check(
        lambda x: op.sum(op.exp(x), axis),
        [x],
        np.exp(x).sum(axis),
        dims=[dims],
        rule="reduction",
        tolerance=1e-4,
    )


@few
@given(SIZES.filter(bool), SIZES.filter(bool), st.integers(0, 1), st.sampled_from([1, 100]))
def test_argmax(rows: int, columns: int, axis: int, levels: int) -> None:
    x = np.round(normal(rows, columns) * levels)
    check(lambda x: op.argmax(x, axis), [x], x.argmax(axis))
    check(lambda x: op.argmin(x, axis), [x], x.argmin(axis))


def test_integers() -> None:
    x = np.random.default_rng(0).integers(-50, 50, (6, 133)).astype("int32")
    check(lambda x: op.sum(x, 1), [x], x.sum(1))
    check(lambda x: op.max(x, 0), [x], x.max(0))


def test_lanes_are_joined_by_halves_but_for_products_of_integers() -> None:
    """One by one every lane has a statement of its own, the last one too."""

    def script(build: Callable[[relax.Expr], relax.Expr]) -> tuple[str, str]:
        function, selection = scheduled(kernel(build, (("n", 133), "int32")))
        ((how,),) = (nest.plans for nest in selection.decision)
        assert how.mode == "lanes"
        return function.script(), f"[T.int64({how.lanes * how.unroll - 1})]"

    text, last = script(lambda x: op.sum(x, 1))
    assert last not in text
    text, last = script(lambda x: op.sum(op.multiply(x, x), 1))
    assert last in text


def test_prologue_and_epilogue_share_the_loop() -> None:
    def norm(x: te.Tensor) -> te.Tensor:
        return topi.sqrt(topi.sum(topi.multiply(x, x), 1))

    _, selection = scheduled(composed(norm, ((6, 200), "float32")))
    assert selection.rule == "reduction"
    assert len(selection.workload.stages) == 1
    x = normal(6, 200)
    check(norm, [x], np.sqrt((x * x).sum(1)), how=composed)


def test_parallel() -> None:
    x = normal(300, 1000)
    arch = replace(ARCH, cores=4)
    check(lambda x: op.sum(x, 1), [x], x.sum(1), arch=arch, tolerance=1e-4)
    check(lambda x: op.sum(x, 0), [x], x.sum(0), arch=arch, tolerance=1e-4)
