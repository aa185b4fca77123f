"""Kernels without a reduction on a GPU: vectors, transposes through shared memory, ragged edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tvm import relax, topi

from tests.schedules.cpu.kernels import composed, kernel, normal
from tvmext.schedules.cuda.elementwise import Elementwise
from tvmext.schedules.rule import Declined

from .kernels import check, machine_code, run, scheduled

op = relax.op
erf = np.vectorize(math.erf)


def test_vectors_of_sixteen_bytes() -> None:
    x, y = normal(8, 64), normal(64, seed=1)
    (plan,) = check(lambda x, y: op.nn.relu(op.add(x, y)), [x, y], np.maximum(x + y, 0))
    assert (plan.mode, plan.lanes) == ("vectors", 4)


def test_halves_take_eight() -> None:
    x = normal(8, 64).astype("float16")
    (plan,) = check(op.negative, [x], -x, orders=(0,))
    assert (plan.mode, plan.lanes) == ("vectors", 8)


def test_declines_a_reduction() -> None:
    answer = Elementwise().match(kernel(lambda x: op.sum(x, 1), ((4, 5), "float32")))
    assert isinstance(answer, Declined)


@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (op.nn.gelu, lambda x: x * (1 + erf(x * 0.5**0.5)) / 2),
        (lambda x: op.erf(op.rsqrt(op.abs(x))), lambda x: erf(1 / np.sqrt(abs(x)))),
    ],
)
def test_functions_that_tvm_takes_apart_are_called_for_vectors(make, reference) -> None:
    """Scalars that are bound on the way are not lost."""
    x = normal(16, 64)
    (plan,) = check(make, [x], reference(x), orders=(0,))
    assert (plan.mode, plan.lanes) == ("vectors", 4)


def test_functions_without_a_form_for_vectors_are_called_one_by_one() -> None:
    x = normal(16, 64)
    x[3, 5] = np.nan
    (plan,) = check(op.isnan, [x], np.isnan(x), orders=(0,))
    assert plan.mode == "strided" and plan.lanes > 1


@pytest.mark.parametrize("size", [0, 1, 3, 4, 1023, 1025])
def test_any_number_of_elements(size: int) -> None:
    x = normal(size)
    check(op.negative, [x], -x, dims=[("n",)], orders=(0,))


@pytest.mark.parametrize("shape", [(3, 100, 70), (1, 33, 31), (2, 5, 64), (2, 0, 64)])
def test_transpose(shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    expected = x.transpose(0, 2, 1)
    (plan,) = check(lambda x: op.permute_dims(x, [0, 2, 1]), [x], expected, dims=[("n", "h", "w")])
    assert plan.mode == "transpose"


def test_a_barrier_that_is_missing_is_noticed() -> None:
    function, _ = scheduled(kernel(lambda x: op.permute_dims(x), ((40, 50), "float32")))
    x = normal(40, 50)
    (right,) = run(function, {"x0": x}, 1)
    np.testing.assert_array_equal(right, x.T)
    (wrong,) = run(function, {"x0": x}, 1, lambda code: code.replace("__syncthreads();", ""))
    assert not np.array_equal(wrong, x.T)


def test_concat_slice_and_broadcast() -> None:
    x, y = normal(3, 5, 7), normal(3, 1, 7, seed=1)
    expected = np.concatenate([x[:, 1:4] * y, x], 1)
    check(
        lambda x, y: op.concat([op.multiply(op.strided_slice(x, [1], [1], [4]), y), x], 1),
        [x, y],
        expected,
    )


def test_truth_values_are_bytes_in_memory() -> None:
    """TVM's code for a vector of them would read and write two bytes for each."""
    x, y = normal(4, 64), normal(4, 64, seed=1)
    where = check(op.where, [x > 0, x, y], np.where(x > 0, x, y), orders=(0,))
    greater = check(op.greater, [x, y], x > y, orders=(0,))
    for (plan,) in (where, greater):
        assert (plan.mode, plan.lanes > 1) == ("strided", True)


@pytest.mark.parametrize(("dtype", "lanes"), [("float16", 8), ("int8", 16)])
def test_choices_among_more_neighbours_than_there_are_vectors_of_truth_values(
    dtype: str, lanes: int
) -> None:
    """Accesses stay 16 bytes wide; a branch guards the load below it."""
    x, y = (np.round(3 * normal(n, 64, seed=n)).astype(dtype) for n in (5, 3))

    def build(x: relax.Expr, y: relax.Expr) -> relax.Expr:
        both, zero = op.concat([x, y], 0), relax.const(0, dtype)
        return op.where(op.greater(both, zero), both, op.add(op.negative(both), both))

    both = np.concatenate([x, y])
    expected = np.where(both > 0, both, 0)
    (plan,) = check(build, [x, y], expected, orders=(0,))
    assert (plan.mode, plan.lanes) == ("vectors", lanes)
    made = composed(lambda x: topi.nn.leaky_relu(x, 0.5), ((64, 64), "float16"))
    words = machine_code(scheduled(made)[0])
    assert {"LDG.E.128.CONSTANT", "STG.E.128"} <= words


def test_choices_after_a_product() -> None:
    a, b = (normal(40, 40, seed=seed).astype("float16") for seed in (0, 1))
    exact = a.astype("float32") @ b.astype("float32")
    check(
        lambda a, b: topi.nn.leaky_relu(topi.nn.matmul(a, b, out_dtype="float16"), 0.25),
        [a, b],
        np.where(exact > 0, exact, exact / 4),
        how=composed,
        rule="mma",
        orders=(0,),
        tolerance=2e-2,
    )


def test_truth_values_in_a_product() -> None:
    x, w = normal(40, 64) > 0, normal(64, 40).astype("float16")
    check(
        lambda x, w: topi.nn.matmul(topi.cast(x, "float16"), w, out_dtype="float32"),
        [x, w],
        x.astype("float32") @ w.astype("float32"),
        how=composed,
        orders=(0,),
        tolerance=1e-2,
    )
