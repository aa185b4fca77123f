"""Lowerings of our own give the values that the operator is defined to give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes import modules
from tests.passes.modules import assert_same, build, random
from tvmext.passes.legalize import LEGALIZE

NAN, INF = np.nan, np.inf
SPECIAL = np.array([NAN, -1, 0, 2, INF, -INF, NAN], np.float32)


def lowered(inputs: list, body: Callable[..., relax.Expr]) -> Callable[..., np.ndarray]:
    """The function of arrays that a network becomes; TVM's own operators are gone."""
    mod = relax.transform.LegalizeOps(LEGALIZE)(build(inputs, body))
    assert all(name.startswith("relax.call_tir") for name in modules.operators(mod))
    run = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())["main"]
    return lambda *arrays: run(*map(tvm.runtime.tensor, arrays)).numpy()


@pytest.mark.parametrize("size", [7, "n"])
@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (op.nn.relu, np.maximum(SPECIAL, 0)),
        (lambda x: op.clip(x, 0, 6), np.clip(SPECIAL, 0, 6)),
        (lambda x: op.maximum(x, relax.const(1.0)), np.maximum(SPECIAL, 1)),
        (lambda x: op.minimum(x, relax.const(1.0)), np.minimum(SPECIAL, 1)),
    ],
)
def test_nan_is_kept(size: int | str, operator: Any, expected: np.ndarray) -> None:
    dim = tirx.Var(size, "int64") if isinstance(size, str) else size
    run = lowered([("x", [dim], "float32")], lambda _, x: operator(x))
    np.testing.assert_array_equal(run(SPECIAL), expected)


@pytest.mark.parametrize("size", [7, "n"])
@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (lambda x, y: op.logical_not(op.less(x, y)), lambda x, y: ~(x < y)),
        (lambda x, y: op.logical_not(op.greater(x, y)), lambda x, y: ~(x > y)),
        (lambda x, y: op.logical_not(op.less_equal(x, y)), lambda x, y: ~(x <= y)),
        (lambda x, y: op.logical_not(op.greater_equal(x, y)), lambda x, y: ~(x >= y)),
        (lambda x, y: op.logical_not(op.equal(x, y)), lambda x, y: ~(x == y)),
        (op.not_equal, np.not_equal),
        (lambda x, y: op.logical_not(op.not_equal(x, y)), np.equal),
        (lambda x, y: op.equal(x, x), lambda x, y: x == x),
        (lambda x, y: op.not_equal(x, x), lambda x, y: x != x),
        (lambda x, y: op.astype(x, "bool"), lambda x, y: x != 0),
        (lambda x, y: op.equal(y, x), np.equal),
    ],
)
def test_nan_is_neither_less_nor_more_nor_equal(
    size: int | str, operator: Any, expected: Any
) -> None:
    dim = tirx.Var(size, "int64") if isinstance(size, str) else size
    inputs = [("x", [dim], "float32"), ("y", [dim], "float32")]
    run = lowered(inputs, lambda _, x, y: operator(x, y))
    other = np.array([1, NAN, 0, NAN, INF, INF, NAN], np.float32)
    np.testing.assert_array_equal(run(SPECIAL, other), expected(SPECIAL, other))


@pytest.mark.parametrize("kind", ["float32", "float64", "float16"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_times_what_is_not_finite(kind: str, zero: float) -> None:
    """Also that TVM finds no division by 0 behind it, and the signs of zeros."""
    factor = relax.const(np.array(zero, kind), kind)
    run = lowered([("x", [7], kind)], lambda _, x: op.multiply(x, factor))
    values = SPECIAL.astype(kind)
    with np.errstate(invalid="ignore"):
        expected = values * np.array(zero, kind)
    np.testing.assert_array_equal(run(values), expected)
    np.testing.assert_array_equal(np.signbit(run(values))[1:4], np.signbit(expected)[1:4])

    one = relax.const(np.array(1, kind), kind)
    inverse = lowered([("x", [7], kind)], lambda _, x: op.divide(one, op.multiply(factor, x)))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(inverse(values), 1 / expected)


def test_numbers_that_are_no_floats_are_compared_as_before() -> None:
    inputs = [("x", [4], "int64"), ("y", [4], "int64")]
    run = lowered(inputs, lambda _, x, y: op.logical_not(op.not_equal(x, y)))
    one, other = np.array([1, 2, 3, -4]), np.array([1, 3, 3, 4])
    np.testing.assert_array_equal(run(one, other), one == other)


@pytest.mark.parametrize(
    ("operator", "expected"), [(op.maximum, np.maximum), (op.minimum, np.minimum)]
)
def test_nan_on_either_side_is_kept(operator: Any, expected: Any) -> None:
    inputs = [("x", [7], "float32"), ("y", [7], "float32")]
    run = lowered(inputs, lambda _, x, y: operator(x, y))
    other = np.array([1, NAN, -0.5, NAN, -INF, INF, NAN], np.float32)
    np.testing.assert_array_equal(run(SPECIAL, other), expected(SPECIAL, other))


@pytest.mark.parametrize(
    ("operator", "rows", "expected"),
    [
        (op.max, [[-INF, -INF], [-INF, 3]], [-INF, 3]),
        (op.min, [[INF, INF], [INF, -3]], [INF, -3]),
        (op.argmax, [[-INF, -INF], [-INF, 3]], [0, 1]),
        (op.argmin, [[INF, INF], [3, 3]], [0, 0]),
    ],
)
def test_extremes_of_infinities(operator: Any, rows: list, expected: list) -> None:
    x = np.array(rows, np.float32)
    run = lowered([("x", [2, 2], "float32")], lambda _, x: operator(x, 1))
    np.testing.assert_array_equal(run(x), expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_index_of_an_extreme_passes_over_nan_unless_it_is_first(axis: int) -> None:
    rows = [[NAN, 5, 1], [1, NAN, 5], [5, NAN, 1], [NAN] * 3, [-INF, NAN, -INF], [INF, NAN, INF]]
    x = np.array(rows, np.float32) if axis else np.array(rows, np.float32).T.copy()
    for operator, expected in ((op.argmax, [0, 2, 0, 0, 0, 0]), (op.argmin, [0, 0, 2, 0, 0, 0])):
        run = lowered([("x", list(x.shape), "float32")], lambda _, x: operator(x, axis))  # noqa: B023
        np.testing.assert_array_equal(run(x), expected)


def test_argmax_of_the_smallest_integers() -> None:
    run = lowered([("x", [3], "int8")], lambda _, x: op.argmax(x, 0))
    assert run(np.full(3, -128, np.int8)) == 0


def test_a_dim_as_a_value_survives_fusion() -> None:
    past, seq = tirx.Var("past", "int64"), tirx.Var("seq", "int64")

    def body(bb: relax.BlockBuilder, x: relax.Var, y: relax.Var) -> relax.Expr:
        start = bb.emit(op.shape_to_tensor(relax.ShapeExpr([past])))
        start = bb.emit(op.reshape(start, []))
        return bb.emit(op.add(bb.emit(op.arange(0, seq, 1, "int64")), start))

    mod = build([("x", (past,), "float32"), ("y", (seq,), "float32")], body)
    fused = mod
    for step in (
        transform.LegalizeOps(LEGALIZE),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ):
        fused = step(fused)
    assert_same(mod, fused, random(3), random(4))


@pytest.mark.parametrize(
    ("operator", "dtype", "expected"),
    [
        (op.divide, "float32", [-INF, NAN, INF]),
        (op.floor_mod, "float32", [NAN, NAN, NAN]),
        (op.divide, "int32", [-2, 0, 3]),
        (op.floor_mod, "int32", [0, 0, 0]),
    ],
)
def test_a_division_by_the_constant_0(operator: Any, dtype: str, expected: list) -> None:
    zero = relax.const(np.zeros((), dtype), dtype)
    run = lowered([("x", [3], dtype)], lambda _, x: operator(x, zero))
    np.testing.assert_array_equal(run(np.array([-2, 0, 3], dtype)), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_truth_value_becomes_a_number(dtype: str) -> None:
    run = lowered([("x", [2], "bool")], lambda _, x: op.astype(x, dtype))
    np.testing.assert_array_equal(run(np.array([True, False])), np.array([1, 0], dtype))


@pytest.mark.parametrize("count", [9, 1 << 20, (1 << 31) - 1])
def test_many_numbers_in_a_row_are_no_constant(count: int) -> None:
    mod = build(
        [("x", (1,), "int64")],
        lambda bb, x: bb.emit(op.take(bb.emit(op.arange(3, 3 + 2 * count, 2, "int64")), x, 0)),
    )
    lowered_mod = relax.transform.LegalizeOps(LEGALIZE)(mod)
    names = {var.name_hint for var in lowered_mod.functions}
    assert ("arange" in names) == (count > 9)
    if count < 1 << 30:
        run = relax.VirtualMachine(tvm.compile(lowered_mod, "llvm"), tvm.cpu())["main"]
        assert run(tvm.runtime.tensor(np.array([count - 1]))).numpy() == 1 + 2 * count


def test_nothing_is_read_from_an_empty_tensor() -> None:
    inputs = [("x", [0, 2], "float32"), ("at", [3], "int64")]
    run = lowered(inputs, lambda _, x, at: op.take(x, at, 0, mode="wrap"))
    np.testing.assert_array_equal(run(np.zeros((0, 2), np.float32), np.arange(3)), np.zeros((3, 2)))
