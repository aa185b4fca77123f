"""Softmax and norms, against NumPy in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, te, tirx, topi

from tests.schedules.cpu.kernels import ARCH, check, composed, kernel, normal, run, scheduled
from tvmext.arch import FAMILIES
from tvmext.schedules.cpu.normalization import Normalization
from tvmext.schedules.rule import Declined

op = relax.op
SIZES = st.sampled_from([1, 2, 3, 7, 16, 17, 31, 64, 67, 131])
few = settings(max_examples=12, deadline=None)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x.astype("float64") - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def layer_norm(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    x = x.astype("float64")
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5)


def test_softmax_shares_the_row() -> None:
    made = kernel(lambda x: op.nn.softmax(x, 1), ((9, 64), "float32"))
    function, selection = scheduled(made, FAMILIES["x86-64-v4"])
    assert selection.rule == "normalization"
    assert len(selection.decision) == 1
    script = function.script()
    assert "T.exp" not in script
    assert "alloc_buffer((T.int64(64),))" in script  # a row, not the whole of it


def test_rows_at_positions_that_are_data_are_read_in_whole_vectors() -> None:
    """Vectors are as wide as data go, not as the numbers that say where a row lies."""

    def body(table: te.Tensor, at: te.Tensor) -> te.Tensor:
        shape = (at.shape[0], table.shape[1])
        return topi.nn.softmax(te.compute(shape, lambda i, j: table[at[i], j]), 1)

    function, selection = scheduled(composed(body, ((9, 64), "float32"), ((3,), "int64")))
    assert selection.rule == "normalization"
    widths = {how.lanes for nest in selection.decision for how in nest.plans}
    assert widths == {ARCH.vector_lanes("float32")}
    table, at = normal(9, 64), np.array([8, 0, 5])
    (result,) = run(function, {"x0": table, "x1": at})
    np.testing.assert_allclose(result, softmax(table[at], 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [3, "n"])
@pytest.mark.parametrize("width", [16, 21])
def test_a_row_of_pieces_is_put_together_once(rows: int | str, width: int) -> None:
    """Each piece in vectors, without conditions; the reductions read the row."""
    n = tirx.Var("n", "int64") if rows == "n" else rows

    def body(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        shape = (y.shape[0], tirx.const(2 * width, "int64"))
        joined = te.compute(
            shape, lambda i, j: te.if_then_else(j < width, x[i, j + 7], y[i, j - width])
        )
        return topi.nn.softmax(joined, 1)

    function, selection = scheduled(composed(body, ((n, 40), "float32"), ((n, width), "float32")))
    assert selection.rule == "normalization"
    assert len(selection.decision) == 1
    assert "if_then_else" not in function.script()
    x, y = normal(5 if rows == "n" else rows, 40), normal(5 if rows == "n" else rows, width, seed=1)
    (result,) = run(function, {"x0": x, "x1": y})
    expected = softmax(np.concatenate([x[:, 7 : 7 + width], y], 1), 1)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_declines_without_a_reduction() -> None:
    answer = Normalization().match(kernel(op.exp, ((4, 5), "float32")))
    assert isinstance(answer, Declined)


def test_exponentials_below_their_maximum_are_cheaper() -> None:
    def other(x: te.Tensor, m: te.Tensor) -> te.Tensor:
        top = topi.max(x, 1)
        e = te.compute(x.shape, lambda i, j: te.exp(m[i, j] - top[i]))
        return topi.divide(e, topi.sum(x, 1, keepdims=True))

    def shifts(function: tirx.PrimFunc) -> int:
        return function.script().count("<< 23")  # factors 2^n

    shapes = [((9, 64), "float32")] * 2
    masked = lambda x, m: topi.nn.softmax(topi.add(topi.multiply(x, 0.3), m), 1)  # noqa: E731
    assert shifts(scheduled(composed(masked, *shapes))[0]) == 1
    assert shifts(scheduled(composed(other, *shapes))[0]) == 2


@few
@given(SIZES, SIZES, SIZES, st.integers(0, 2))
def test_softmax(a: int, b: int, c: int, axis: int) -> None:
    x = normal(a, b, c) * 5
    check(lambda x: op.nn.softmax(x, axis), [x], softmax(x, axis))


@few
@given(SIZES, SIZES, st.integers(0, 1))
def test_log_softmax(a: int, b: int, axis: int) -> None:
    x = normal(a, b) * 5
    check(lambda x: op.nn.log_softmax(x, axis), [x], np.log(softmax(x, axis)))


@pytest.mark.parametrize("batch, seq", [(1, 1), (2, 16), (0, 5), (3, 37), (1, 130)])
def test_masked_softmax_of_symbolic_dims(batch: int, seq: int) -> None:
    x, mask = normal(batch, 3, seq, seq), np.triu(np.full((seq, seq), -1e9, "float32"), 1)
    expected = softmax(x + mask, 3) if batch else x
    check(
        lambda x, m: topi.nn.softmax(topi.add(x, m), 3),
        [x, mask],
        expected,
        how=composed,
        dims=[("b", 3, "s", "s"), ("s", "s")],
        rule="normalization",
    )


@few
@given(SIZES, SIZES)
def test_layer_norm(rows: int, width: int) -> None:
    x, gamma, beta = normal(rows, width), normal(width, seed=1), normal(width, seed=2)
    check(
        lambda x, g, b: op.nn.layer_norm(x, g, b, axes=-1),
        [x, gamma, beta],
        layer_norm(x, (1,)) * gamma + beta,
        tolerance=1e-4,
    )


def test_blocks_of_symbolic_rows_are_written_once() -> None:
    """The last one of fewer rows is the same code."""

    def norm(x: relax.Expr, g: relax.Expr) -> relax.Expr:
        return op.nn.layer_norm(x, g, g, axes=-1)

    function, selection = scheduled(kernel(norm, (("n", 96), "float32"), ((96,), "float32")))
    (nest,) = selection.decision
    assert nest.block == 4 and not nest.least_points
    assert function.script().count("T.sqrt") + function.script().count("T.rsqrt") == 1


@pytest.mark.parametrize("rows", [0, 1, 5, 33])
def test_norms_of_symbolic_rows(rows: int) -> None:
    x, gamma = normal(rows, 96), normal(96, seed=1)
    check(
        lambda x, g: op.nn.layer_norm(x, g, g, axes=-1),
        [x, gamma],
        layer_norm(x, (1,)) * gamma + gamma,
        dims=[("n", 96), (96,)],
        rule="normalization",
        tolerance=1e-4,
    )
    rms = x / np.sqrt((x.astype("float64") ** 2).mean(1, keepdims=True) + 1e-5)
    check(
        lambda x, g: op.nn.rms_norm(x, g, [-1], 1e-5),
        [x, gamma],
        rms * gamma,
        dims=[("n", 96), (96,)],
        tolerance=1e-4,
    )


@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (1, 8, 1, 1), (3, 4, 16, 16)])
def test_group_norm(shape: tuple[int, ...]) -> None:
    x, gamma, beta = normal(*shape), normal(shape[1], seed=1), normal(shape[1], seed=2)
    n = shape[0]
    expected = layer_norm(x.reshape(n, 4, -1), (2,)).reshape(shape)
    check(
        lambda x, g, b: op.nn.group_norm(x, g, b, 4, 1, [2, 3]),
        [x, gamma, beta],
        expected * gamma[:, None, None] + beta[:, None, None],
        tolerance=1e-4,
    )


@pytest.mark.parametrize("axes", [[2, 3], [1, 2]])
def test_instance_norm(axes: list[int]) -> None:
    x = normal(2, 9, 11, 20)

    def build(x: te.Tensor) -> te.Tensor:
        count = x.shape[axes[0]] * x.shape[axes[1]]
        mean = topi.divide(topi.sum(x, axes, keepdims=True), count.astype("float32"))
        centred = topi.subtract(x, mean)
        squares = topi.sum(topi.multiply(centred, centred), axes, keepdims=True)
        variance = topi.divide(squares, count.astype("float32"))
        return topi.multiply(centred, topi.rsqrt(topi.add(variance, 1e-5)))

    expected = layer_norm(x, tuple(axes))
    check(build, [x], expected, how=composed, rule="normalization", tolerance=1e-4)
    dims = [("n", "a", "b", "c")]
    check(build, [x], expected, dims=dims, how=composed, rule="normalization", tolerance=1e-4)


def test_what_follows_a_softmax_is_fused() -> None:
    x = normal(4, 70)
    check(lambda x: op.nn.relu(op.nn.softmax(x, 1)), [x], softmax(x, 1))


def test_parallel_rows() -> None:
    x = normal(500, 300)
    function, _ = scheduled(
        kernel(lambda x: op.nn.softmax(x, 1), (x.shape, "float32")), replace(ARCH, cores=4)
    )
    assert "T.parallel" in function.script()
    check(lambda x: op.nn.softmax(x, 1), [x], softmax(x, 1), arch=replace(ARCH, cores=4))
