"""Cumulative sums and products on a GPU: rows shared by a block, or one of them per thread."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import tvm
from tvm import relax, te
from tvm.ir import Expr

from tests.schedules.cpu.kernels import composed, normal
from tvmext.passes.cumulative import CumulativeReductions
from tvmext.schedules.cuda.scan import Scan
from tvmext.schedules.rule import Declined, Kernel

from .kernels import ARCH, ORDERS, RACES, machine_code, run, runs, scheduled, source
from .test_contract import without_barrier
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


SMALL = dataclasses.replace(ARCH, sms=2)
"""So that rows are cut into few parts, which the emulator walks through in time."""


@pytest.mark.parametrize(
    ("shape", "axis", "dtype"),
    [((14_401,), 0, "float32"), ((2, 20_480), 1, "int32"), ((21_001, 2), 0, "float32")],
)
@pytest.mark.parametrize("exclusive", [False, True])
def test_rows_in_parts(shape: tuple, axis: int, dtype: str, exclusive: bool) -> None:
    x = (8 * normal(*shape)).astype(dtype)
    made = cumulative(relax.op.cumsum, shape, dtype, axis=axis, exclusive=exclusive)
    function, selection = scheduled(made, SMALL)
    assert selection.decision.parts == (4 if len(shape) == 1 else 2)
    expected = x.astype("float64").cumsum(axis)
    expected = expected - x if exclusive else expected
    for order in ORDERS:
        (result,) = run(function, {"x0": x}, order, arch=SMALL)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=5e-2)


def test_the_launch_tells_long_rows_from_short_ones() -> None:
    """Products too; the last parts of a row may be short, or empty."""
    function, selection = scheduled(cumulative(relax.op.cumprod, (2, "n"), axis=1), SMALL)
    least = selection.decision.length
    assert selection.decision.parts == 2
    inputs = [1 + normal(2, n) / 1000 for n in (0, 5, least - 1, least, least + 4099)]
    results = runs(function, [({"x0": x}, 7) for x in inputs], arch=SMALL)
    for x, (result,) in zip(inputs, results):
        np.testing.assert_allclose(result, x.cumprod(1), rtol=2e-3)


def test_backwards() -> None:
    """As CumSum with "reverse" reads its row."""

    def build(x: te.Tensor) -> te.Tensor:
        last = x.shape[0] - 1

        def element(i: Expr) -> Expr:
            before = te.reduce_axis((0, i + 1), "before")
            return te.sum(x[last - before], axis=before)

        return te.compute(x.shape, element)

    function, selection = scheduled(composed(build, (("n",), "int32")), SMALL)
    assert selection.rule == "scan" and selection.decision.parts == 4
    x = np.random.default_rng(0).integers(-99, 99, 15_000).astype("int32")
    np.testing.assert_array_equal(
        run(function, {"x0": x}, 7, arch=SMALL)[0], x[::-1].cumsum(dtype="int32")
    )


def test_every_barrier_is_needed_where_warps_race() -> None:
    """But for that after the sum of a part, which has nothing to protect: nothing follows."""
    function, _ = scheduled(cumulative(relax.op.cumsum, (14_400,), "int32", axis=0), SMALL)
    x = np.arange(14_400, dtype="int32")
    for order in (*ORDERS, *RACES):
        np.testing.assert_array_equal(run(function, {"x0": x}, order, arch=SMALL)[0], x.cumsum())

    def wrong(number: int) -> bool:
        mutation = partial(without_barrier, number)
        found = (run(function, {"x0": x}, order, mutation, SMALL)[0] for order in RACES)
        return not all(np.array_equal(result, x.cumsum()) for result in found)

    count = source(function, SMALL).count("__syncthreads();")
    assert [number for number in range(count) if not wrong(number)] == [1]


@pytest.mark.parametrize("shape", [(2, 8000), (300, 20_000), ("n", 50_000)])
def test_must_not_cut(shape: tuple) -> None:
    """Rows that are short, that are many, or of which only the run knows how many."""
    _, selection = scheduled(cumulative(relax.op.cumsum, shape, axis=1))
    assert selection.decision.parts == 1


@pytest.mark.parametrize("shape", [(1, 1 << 20), ("n",)])
def test_machine_code_has_no_spills(shape: tuple) -> None:
    function, selection = scheduled(cumulative(relax.op.cumsum, shape, axis=len(shape) - 1))
    assert selection.decision.parts > 1
    assert "LDG.E.128.CONSTANT" in machine_code(function)


def test_declines_sums_over_whole_rows() -> None:
    whole = legalized(lambda x: relax.op.sum(x, 1), ((4, 50), "float32"))
    assert isinstance(Scan().match(whole), Declined)


def test_the_lowering_is_a_reduction_that_any_target_runs() -> None:
    made = cumulative(relax.op.cumsum, (3, 5), axis=0).func.with_attr("global_symbol", "main")
    x, out = normal(3, 5), tvm.runtime.empty((3, 5), "float32")
    tvm.tirx.build(tvm.IRModule({"main": made}), "llvm")["main"](tvm.runtime.tensor(x), out)
    np.testing.assert_allclose(out.numpy(), x.cumsum(0), rtol=1e-5)
