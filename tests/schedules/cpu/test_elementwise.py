"""Kernels without a reduction, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, te, tirx

from tests.schedules.cpu.kernels import ARCH, check, composed, kernel, normal, run, scheduled
from tvmext.schedules.cpu.elementwise import Elementwise
from tvmext.schedules.rule import Declined

op = relax.op
SIZES = st.sampled_from([0, 1, 2, 3, 7, 13, 16, 17, 31, 64, 67])
few = settings(max_examples=15, deadline=None)


def test_fires_on_a_chain_and_leaves_one_store_per_output() -> None:
    function, selection = scheduled(
        kernel(lambda x, y: op.nn.relu(op.add(x, y)), ((8, 64), "float32"), ((64,), "float32"))
    )
    assert selection.rule == "elementwise"
    assert function.script().count("T.vectorized") == 1
    assert "alloc_buffer" not in function.script()


def test_declines_a_reduction() -> None:
    answer = Elementwise().match(kernel(lambda x: op.sum(x, 1), ((4, 5), "float32")))
    assert isinstance(answer, Declined)
    assert "reduction" in answer.reason


@few
@given(SIZES, SIZES, SIZES)
def test_broadcast_chain(a: int, b: int, c: int) -> None:
    x, y, z = normal(a, b, c), normal(b, 1, seed=1), normal(c, seed=2)
    check(
        lambda x, y, z: op.multiply(op.nn.relu(op.add(x, y)), z),
        [x, y, z],
        np.maximum(x + y, 0) * z,
        rule="elementwise",
    )


@pytest.mark.parametrize("size", [0, 1, 5, 16, 35])
def test_symbolic_dims(size: int) -> None:
    x, y = normal(3, size, 20), normal(size, 20, seed=1)
    check(
        lambda x, y: op.tanh(op.add(x, y)),
        [x, y],
        np.tanh(x + y),
        dims=[("b", "n", 20), ("n", 20)],
        rule="elementwise",
    )


@few
@given(st.permutations(range(4)), st.tuples(SIZES, SIZES, st.sampled_from([1, 2, 5]), SIZES))
def test_transpose(order: list[int], shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    check(lambda x: op.permute_dims(x, order), [x], x.transpose(order))


@few
@given(st.lists(SIZES, min_size=2, max_size=4), st.integers(0, 2))
def test_concat_has_no_condition_inside(sizes: list[int], axis: int) -> None:
    parts = [
        normal(*(size if a == axis else 5 + a for a in range(3)), seed=i)
        for i, size in enumerate(sizes)
    ]
    check(lambda *xs: op.concat(list(xs), axis), parts, np.concatenate(parts, axis))
    if all(sizes):
        inputs = [(part.shape, "float32") for part in parts]
        function, _ = scheduled(kernel(lambda *xs: op.concat(list(xs), axis), *inputs))
        assert "if_then_else" not in function.script()


def test_concat_of_symbolic_parts() -> None:
    x, y = normal(2, 5, 24), normal(2, 3, 24, seed=1)
    check(
        lambda x, y: op.concat([x, y], 1),
        [x, y],
        np.concatenate([x, y], 1),
        dims=[(2, "past", 24), (2, "now", 24)],
    )


@few
@given(st.integers(0, 4), st.integers(0, 4), SIZES)
def test_pad(before: int, after: int, size: int) -> None:
    x = normal(3, size)
    check(
        lambda x: op.nn.pad(x, [1, 0, before, after], pad_mode="constant", pad_value=2.5),
        [x],
        np.pad(x, [(1, 0), (before, after)], constant_values=2.5),
    )


def test_pad_of_symbolic_sizes() -> None:
    x = normal(3, 5, 9)
    check(
        lambda x: op.nn.pad(x, [0, 0, 1, 1, 1, 1], pad_mode="constant", pad_value=2.5),
        [x],
        np.pad(x, [(0, 0), (1, 1), (1, 1)], constant_values=2.5),
        dims=[(3, "height", "width")],
    )


@few
@given(st.integers(0, 6), st.integers(1, 3), st.integers(7, 40))
def test_strided_slice(begin: int, step: int, size: int) -> None:
    x = normal(4, size)
    check(
        lambda x: op.strided_slice(x, [1], [begin], [size], [step]),
        [x],
        x[:, begin:size:step],
    )


@few
@given(SIZES, SIZES)
def test_gather(rows: int, width: int) -> None:
    x = normal(9, width)
    index = np.random.default_rng(0).integers(0, 9, (2, rows))
    check(lambda x, i: op.take(x, i, 0), [x, index], x[index])


def test_reshape_splits_and_joins_heads() -> None:
    x = normal(10, 48)
    check(
        lambda x: op.permute_dims(op.reshape(x, (10, 4, 12)), (1, 0, 2)),
        [x],
        x.reshape(10, 4, 12).transpose(1, 0, 2),
    )
    y = normal(4, 10, 12)
    check(
        lambda y: op.reshape(op.permute_dims(y, (1, 0, 2)), (10, 48)),
        [y],
        y.transpose(1, 0, 2).reshape(10, 48),
    )


def test_where_and_one_hot() -> None:
    x, y = normal(7, 33), normal(7, 33, seed=1)
    check(lambda x, y: op.where(op.greater(x, y), x, y), [x, y], np.maximum(x, y))
    index = np.arange(12) % 5
    check(
        lambda i: op.one_hot(i, tirx.const(1.0, "float32"), tirx.const(0.0, "float32"), 5),
        [index],
        np.eye(5, dtype="float32")[index],
    )


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "int64", "uint8"])
def test_other_types(dtype: str) -> None:
    x = (normal(5, 37) * 10).astype(dtype)
    check(lambda x: op.maximum(x, op.multiply(x, x)), [x], np.maximum(x, x * x), tolerance=1e-2)


def test_truth_values_as_numbers() -> None:
    """A cast of one that is read twice, and so has a name, in vectors."""
    x = normal(40)

    def build(x: relax.Expr) -> relax.Expr:
        number = op.astype(op.greater(x, relax.const(0.5, "float32")), "float32")
        return op.add(op.multiply(number, x), op.exp(number))

    number = (x > 0.5).astype("float32")
    check(build, [x], number * x + np.exp(number))


def test_mixed_types() -> None:
    x = np.arange(70, dtype="int8").reshape(2, 35)
    check(
        lambda x: op.astype(op.add(op.astype(x, "float32"), op.astype(x, "float32")), "int32"),
        [x],
        x.astype("int32") * 2,
    )


def test_shared_values_are_computed_once() -> None:
    def gelu_twice(x: relax.Expr) -> relax.Expr:
        y = x
        for _ in range(6):
            y = op.add(op.multiply(y, y), y)
        return y

    function, _ = scheduled(kernel(gelu_twice, ((64,), "float32")))
    assert function.script().count("x0[") == 3  # the first step of the chain
    x = normal(64) / 8
    y = x.astype("float64")
    for _ in range(6):
        y = y * y + y
    check(gelu_twice, [x], y.astype("float32"), tolerance=1e-4)


@pytest.mark.parametrize("shape", [(64, 48), (37, 50), (16, 16), (5, 70)])
def test_turned_tiles_with_a_prologue(shape: tuple[int, int]) -> None:
    x = normal(3, *shape)

    def build(x: relax.Expr) -> relax.Expr:
        return op.permute_dims(op.nn.relu(x), (0, 2, 1))

    _, selection = scheduled(kernel(build, (x.shape, "float32")))
    fits = min(shape) >= ARCH.vector_lanes("float32")
    assert selection.decision[0].plans[0].mode == ("transpose" if fits else "interleave")
    check(build, [x], np.maximum(x, 0).transpose(0, 2, 1))
    check(build, [x], np.maximum(x, 0).transpose(0, 2, 1), dims=[("b", "m", "n")])
    check(build, [x], np.maximum(x, 0).transpose(0, 2, 1), arch=replace(ARCH, cores=4))


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "bfloat16", "float64"])
def test_elements_of_any_type_are_turned(dtype: str) -> None:
    x = (normal(40, 50) * 20).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    check(op.permute_dims, [x], x.T)


@pytest.mark.parametrize("shape", [(64, 48), (37, 50), (5, 70)])
def test_only_what_lies_across_the_store_is_turned(shape: tuple[int, int]) -> None:
    m, n = shape
    x, y, bias, scale = normal(2, m, n), normal(2, n, m, seed=1), normal(n, 1), normal(m, seed=2)

    def build(x: relax.Expr, y: relax.Expr, bias: relax.Expr, scale: relax.Expr) -> relax.Expr:
        turned = op.multiply(op.permute_dims(x, (0, 2, 1)), scale)
        return op.nn.relu(op.add(op.add(turned, bias), y))

    inputs = [x, y, bias, scale]
    _, selection = scheduled(kernel(build, *((a.shape, "float32") for a in inputs)))
    fits = min(shape) >= ARCH.vector_lanes("float32")
    assert selection.decision[0].plans[0].mode == ("transpose" if fits else "map")
    expected = np.maximum(x.transpose(0, 2, 1) * scale + bias + y, 0)
    check(build, inputs, expected)
    check(build, inputs, expected, dims=[("b", "m", "n"), ("b", "n", "m"), ("n", 1), ("m",)])


def test_a_load_at_an_index_that_is_computed_on_the_way_is_not_turned() -> None:
    table = normal(16, 24)
    shift, start = (np.arange(40 * 20, dtype="int32").reshape(40, 20) % 5 + k for k in (0, 3))

    def build(table: te.Tensor, shift: te.Tensor, start: te.Tensor) -> te.Tensor:
        at = te.compute((40, 20), lambda i, j: tirx.min(shift[i, j], start[i, j]) + start[i, j])
        return te.compute((24, 40, 20), lambda h, i, j: table[at[i, j] % 16, h])

    specs = ((a.shape, str(a.dtype)) for a in (table, shift, start))
    function, _ = scheduled(composed(build, *specs))
    (result,) = run(function, {"x0": table, "x1": shift, "x2": start})
    rows = (np.minimum(shift, start) + start) % 16
    np.testing.assert_array_equal(result, table[rows].transpose(2, 0, 1))


def test_each_part_of_a_transposed_concat_is_turned() -> None:
    x, y = normal(48, 35), normal(32, 35, seed=1)

    def build(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        return te.compute(
            (35, 80),
            lambda i, j: tirx.if_then_else(
                j < 48, x[tirx.min(j, 47), i], y[tirx.max(j, 48) - 48, i]
            ),
        )

    function, selection = scheduled(composed(build, *((a.shape, "float32") for a in (x, y))))
    assert [nest.plans[0].mode for nest in selection.decision] == ["transpose", "transpose"]
    (result,) = run(function, {"x0": x, "x1": y})
    np.testing.assert_array_equal(result, np.concatenate([x, y]).T)


def test_unknown_sizes_decide_when_they_run() -> None:
    arch = replace(ARCH, cores=4)
    function, _ = scheduled(kernel(op.nn.relu, (("n", 64), "float32")), arch)
    assert function.script().count("T.parallel") == 1
    assert "if n" in function.script()
    for rows in (0, 3, 5000):
        x = normal(rows, 64)
        check(op.nn.relu, [x], np.maximum(x, 0), dims=[("n", 64)], arch=arch)


@pytest.mark.parametrize("width", [5, 40])
def test_divisions_by_sizes_have_no_vectors(width: int) -> None:
    """Elements of each row of `x` at `places`, counted over all rows."""

    def taken(x: te.Tensor, places: te.Tensor) -> te.Tensor:
        cols, rows = x.shape[1], x.shape[0]

        def at(i: tirx.Var, j: tirx.Var) -> tirx.Expr:
            place = te.indexmod(places[j] + i * cols, rows * cols)
            return x[te.indexdiv(place, cols), te.indexmod(place, cols)] + 1

        return te.compute([rows, places.shape[0]], at, name="taken")

    x, places = normal(3, width), np.arange(2, width * 2)
    dims: list[tuple] = [("n", "m"), ("k",)]
    expected = x.ravel()[(places + width * np.arange(3)[:, None]) % x.size] + 1
    check(taken, [x, places], expected, dims=dims, how=composed, rule="elementwise")

    def lanes(build: Callable[..., te.Tensor], *shapes: tuple) -> int:
        _, selection = scheduled(composed(build, *shapes))
        return selection.decision[0].plans[0].lanes

    index = ((96,), "int64")
    assert lanes(taken, (("n", "m"), "float32"), index) == 1
    assert lanes(taken, ((8, 64), "float32"), index) > 1  # constants are multiplied with

    def joined(x: te.Tensor) -> te.Tensor:
        rows, cols = x.shape
        return te.compute(
            [rows * cols], lambda i: x[te.indexdiv(i, cols), te.indexmod(i, cols)] + 1
        )

    def with_exponentials(x: te.Tensor, places: te.Tensor) -> te.Tensor:
        return te.compute(places.shape, lambda j: te.exp(x[te.indexmod(places[j], x.shape[0])]))

    assert lanes(with_exponentials, (("n",), "float32"), index) > 1
    assert lanes(joined, (("n", "m"), "float32")) > 1  # one offset, no division


def test_parallel_only_where_it_pays() -> None:
    arch = replace(ARCH, cores=4)
    small, _ = scheduled(kernel(lambda x: op.nn.relu(x), ((64, 64), "float32")), arch)
    large, _ = scheduled(kernel(lambda x: op.nn.relu(x), ((4096, 512), "float32")), arch)
    assert "T.parallel" not in small.script()
    assert "T.parallel" in large.script()
    x = normal(1024, 700)
    check(lambda x: op.nn.gelu(op.permute_dims(x, (1, 0))), [x], _gelu(x.T), arch=arch)


def _gelu(x: np.ndarray) -> np.ndarray:
    from math import erf

    return (x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2).astype("float32")


@pytest.mark.parametrize("shape", [(5, 37), (), (33,)])
def test_a_long_chain_of_functions_is_compiled_in_a_moment(shape: tuple[int, ...]) -> None:
    """Each sigmoid uses its argument several times: written out, the code grows exponentially.

    So it does for an element that is left over of all vectors.
    """

    def build(x: relax.Expr) -> relax.Expr:
        for _ in range(40):
            x = op.sigmoid(op.tanh(x))
        return x

    x = expected = normal(*shape)
    for _ in range(40):
        expected = 1 / (1 + np.exp(-np.tanh(expected)))
    check(build, [x], expected)
