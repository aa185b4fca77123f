"""Cumulative sums and products on a GPU: rows shared by a block, or one of them per thread."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.schedules.cpu.kernels import normal
from tvmext.passes.cumulative import CumulativeReductions
from tvmext.schedules.cuda.scan import Scan
from tvmext.schedules.rule import Declined, Kernel

from .kernels import ORDERS, run, scheduled
from .test_ordered import legalized
from .test_rows import without_barriers, without_shuffles


def cumulative(op: relax.Expr, shape: tuple, dtype: str = "float32", **attrs: object) -> Kernel:
    return legalized(lambda x: op(x, **attrs), (shape, dtype), before=[CumulativeReductions()])


@pytest.mark.parametrize(
    ("shape", "axis", "dims", "shared"),
    [
        ((3, 2), 1, None, False),
        ((2, 700), 1, None, True),
        ((1, 1025), 1, ("n", "m"), True),
        ((2, 130, 3), 1, None, True),
        ((300, 7), 1, None, False),
        ((0, 5), 1, ("n", "m"), True),
        ((4, 0), 1, ("n", "m"), True),
    ],
)
def test_cumulative_sums(shape: tuple, axis: int, dims: tuple | None, shared: bool) -> None:
    x = normal(*shape)
    function, selection = scheduled(cumulative(relax.op.cumsum, dims or shape, axis=axis))
    assert selection.rule == "scan" and selection.decision.shared == shared
    for order in ORDERS:
        (result,) = run(function, {"x0": x}, order)
        np.testing.assert_allclose(result, x.cumsum(axis), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 300), (2, 9)])
def test_exclusive_products(shape: tuple[int, int]) -> None:
    x = 1 + normal(*shape) / 20
    function, _ = scheduled(cumulative(relax.op.cumprod, shape, axis=1, exclusive=True))
    (result,) = run(function, {"x0": x}, 7)
    np.testing.assert_allclose(result[:, 1:], x.cumprod(1)[:, :-1], rtol=1e-4)
    np.testing.assert_array_equal(result[:, 0], 1)


def test_a_missing_barrier_and_a_missing_shuffle_are_noticed() -> None:
    function, _ = scheduled(cumulative(relax.op.cumsum, (1, 2500), "int32", axis=1))
    x = np.arange(2500, dtype="int32").reshape(1, -1)
    np.testing.assert_array_equal(run(function, {"x0": x}, 1)[0], x.cumsum(1))
    for mutation in (without_barriers, without_shuffles):
        wrong = [run(function, {"x0": x}, order, mutation)[0] for order in ORDERS]
        assert not all(np.array_equal(w, x.cumsum(1)) for w in wrong)


def test_declines_sums_over_whole_rows() -> None:
    whole = legalized(lambda x: relax.op.sum(x, 1), ((4, 50), "float32"))
    assert isinstance(Scan().match(whole), Declined)


def test_the_lowering_is_a_reduction_that_any_target_runs() -> None:
    made = cumulative(relax.op.cumsum, (3, 5), axis=0).func.with_attr("global_symbol", "main")
    x, out = normal(3, 5), tvm.runtime.empty((3, 5), "float32")
    tvm.tirx.build(tvm.IRModule({"main": made}), "llvm")["main"](tvm.runtime.tensor(x), out)
    np.testing.assert_allclose(out.numpy(), x.cumsum(0), rtol=1e-5)
