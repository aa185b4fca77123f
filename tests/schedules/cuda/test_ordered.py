"""Scatters on a GPU: shared out among threads, equal indices in their order; sorting left alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tvm
from tvm import relax, te, topi

from tests.schedules.cpu.kernels import Build, normal
from tvmext.passes.indexing import LOWERINGS
from tvmext.schedules.cuda.ordered import Ordered
from tvmext.schedules.rule import Declined, Kernel

from .kernels import ORDERS, run, scheduled

op = relax.op


def legalized(build: Build, *inputs: tuple, before: Sequence = ()) -> Kernel:
    """The kernel that tvmext's own legalization makes, after the passes `before`."""
    dims: dict[str, tvm.tirx.Var] = {}
    builder = relax.BlockBuilder()
    params = [
        relax.Var(
            f"x{i}",
            relax.TensorType(
                [
                    dims.setdefault(d, tvm.tirx.Var(d, "int64")) if isinstance(d, str) else d
                    for d in shape
                ],
                dtype,
            ),
        )
        for i, (shape, dtype) in enumerate(inputs)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(build(*params)))
        builder.emit_func_output(result)
    passes = [*before, relax.transform.LegalizeOps(LOWERINGS)]
    mod = tvm.transform.Sequential(passes)(builder.get())
    (function,) = [f for f in mod.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]
    return Kernel("kernel", function)


def indices(*shape: int, below: int) -> np.ndarray:
    """Many equal ones, some counted from the end, some out of range."""
    drawn = np.random.default_rng(0).integers(-below, below, shape)
    drawn.reshape(-1)[::7] = below + 3
    return drawn


def expected(x: np.ndarray, at: np.ndarray, u: np.ndarray, reduction: str) -> np.ndarray:
    """ScatterElements along axis 0, one update after the other."""
    out = x.copy()
    for i, j in np.ndindex(*at.shape):
        row = at[i, j] + (len(x) if at[i, j] < 0 else 0)
        if 0 <= row < len(x):
            out[row, j] = u[i, j] if reduction == "update" else out[row, j] + u[i, j]
    return out


@pytest.mark.parametrize("reduction", ["update", "add"])
@pytest.mark.parametrize("columns", [1, 70])
@pytest.mark.parametrize("known", [True, False])
def test_equal_indices_keep_their_order(reduction: str, columns: int, known: bool) -> None:
    x, u = normal(9, columns), normal(40, columns, seed=1)
    at = indices(40, columns, below=9)
    shapes = [x.shape, at.shape, u.shape] if known else [("n", columns), ("k", columns)] * 2
    shapes = shapes if known else [shapes[0], shapes[1], shapes[1]]
    made = legalized(
        lambda x, i, u: op.scatter_elements(x, i, u, 0, reduction),
        *[(shape, str(array.dtype)) for shape, array in zip(shapes, (x, at, u))],
    )
    function, selection = scheduled(made)
    assert selection.rule == "ordered" and len(selection.decision.owners) == 2
    for order in ORDERS:
        (result,) = run(function, {"x0": x, "x1": at, "x2": u}, order)
        np.testing.assert_array_equal(result, expected(x, at, u, reduction))


def test_rows_of_a_tensor() -> None:
    x, u, at = normal(20, 3, 33), normal(12, 33, seed=1), indices(12, 2, below=3)
    made = legalized(
        lambda x, i, u: op.scatter_nd(x, i, u, "add"),
        *[(array.shape, str(array.dtype)) for array in (x, at, u)],
    )
    function, selection = scheduled(made)
    assert selection.decision.owners[1] > 1, "33 threads alone are few"
    right = x.copy()
    for (i, j), row in zip(at, u):
        if -20 <= i < 20 and -3 <= j < 3:
            right[i, j] += row
    np.testing.assert_array_equal(run(function, {"x0": x, "x1": at, "x2": u}, 7)[0], right)


def test_an_owner_that_takes_what_is_not_its_own_is_noticed() -> None:
    x, u, at = normal(5000, 1), normal(40, 1, seed=1), indices(40, 1, below=5000)
    made = legalized(
        lambda x, i, u: op.scatter_elements(x, i, u, 0, "add"),
        *[(array.shape, str(array.dtype)) for array in (x, at, u)],
    )
    function, selection = scheduled(made)
    assert 1 < selection.decision.owners[1] < 5000
    arrays, right = {"x0": x, "x1": at, "x2": u}, expected(x, at, u, "add")
    np.testing.assert_array_equal(run(function, arrays, 7)[0], right)
    own, others = ("& (int64_t)4095) ==", "& (int64_t)4095) <=")
    (wrong,) = run(function, arrays, 0, lambda code: code.replace(own, others))
    assert not np.allclose(wrong, right)


def test_declines_what_reads_other_elements_than_it_writes() -> None:
    x = te.placeholder((4, 8), "float32", "x0")
    shifted = te.compute((4, 8), lambda i, j: x[i, 7 - j], "shifted")
    assert isinstance(Ordered().match(Kernel("k", te.create_prim_func([x, shifted]))), Declined)


def test_a_kernel_with_threads_of_its_own_stays_as_it_is() -> None:
    with tvm.target.Target("nvidia/nvidia-a100"):
        x = te.placeholder((3, 100), "float32", "x0")
        sort = te.create_prim_func([x, topi.gpu.argsort(x, axis=1, dtype="int64")])
    function, selection = scheduled(Kernel("sort", sort))
    assert selection.rule == "fallback" and selection.decision.has_threads
    assert function.same_as(sort)
