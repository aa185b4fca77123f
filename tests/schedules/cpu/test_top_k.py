"""The k largest or smallest elements, against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, tirx

from tests.schedules.cpu.kernels import ARCH, kernel, normal, run, scheduled
from tvmext.arch import CpuArch
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.top_k import TopK
from tvmext.schedules.rule import Declined, Kernel
from tvmext.schedules.select import manner

op = relax.op


def top_k(
    shape: tuple[int | str, ...], dtype: str, k: int, axis: int = -1, largest: bool = True
) -> Kernel:
    """The kernel of ``topk``, values and indices."""
    dims = [tirx.Var(d, "int64") if isinstance(d, str) else d for d in shape]
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(dims, dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            call = op.topk(x, k, axis, "both", largest, "int64")
            result = builder.emit_output(builder.normalize(call))
        builder.emit_func_output(result)
    with tvm.target.Target("llvm"):
        functions = relax.backend.DispatchSortScan()(builder.get()).functions.values()
    (function,) = (f for f in functions if isinstance(f, tirx.PrimFunc))
    return Kernel("top k", function)


def compare(
    x: np.ndarray,
    k: int,
    axis: int = -1,
    largest: bool = True,
    shape: tuple[int | str, ...] | None = None,
    arch: CpuArch = ARCH,
) -> None:
    before = top_k(shape or x.shape, str(x.dtype), k, axis, largest)
    function, selection = scheduled(before, arch)
    assert selection.rule == "top k"
    values, where = run(function, {before.func.params[0].name: x}, arch)
    # Ascending, NaN last and the first of equal ones first; or the other way round, but for these.
    order = np.argsort(x, axis, kind="stable")
    if largest:
        backwards = np.argsort(np.flip(x, axis), axis, kind="stable")
        order = x.shape[axis] - 1 - np.flip(backwards, axis)
    order = np.take(order, range(min(k, x.shape[axis])), axis)
    expected = np.take_along_axis(x, order, axis)
    found = [np.take(a, range(order.shape[axis]), axis) for a in (values, where)]
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], order)
    assert not np.take(where, range(order.shape[axis], where.shape[axis]), axis).any()


def test_nothing_stores_or_loads_through_it() -> None:
    """Indices alone and a gather by them were tried as one kernel, which TVM cannot make."""
    assert manner(top_k((4, 9), "float32", 2), ARCH, RULES) == ""


def test_declines_other_kernels() -> None:
    assert isinstance(TopK().match(kernel(lambda x: op.sum(x, 1), ((4, 9), "float32"))), Declined)
    assert isinstance(TopK().match(top_k((4, 9), "float64", 2)), Declined)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([1, 2, 5, 31, 64]),
    st.sampled_from([1, 2, 7, 50, 200]),
    st.sampled_from([1, 3, 1000]),
    st.sampled_from([0, 1, 20]),
    st.booleans(),
)
def test_ties_infinities_and_nan(k: int, n: int, levels: int, holes: int, largest: bool) -> None:
    x = np.round(normal(3, n) * levels) * np.float32(1.0)
    random = np.random.default_rng(k + n)
    for special in (np.nan, np.inf, -np.inf, -0.0):
        x[random.integers(0, 3, holes), random.integers(0, n, holes)] = special
    compare(x, min(k, n), largest=largest)


def test_along_another_axis() -> None:
    compare(normal(3, 40, 5), 4, axis=1)
    compare(normal(90, 5), 7, axis=0, largest=False, arch=replace(ARCH, cores=4))


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint16", "int32"])
def test_other_types(dtype: str) -> None:
    x = (normal(4, 150) * 1000 % 250).astype(dtype)
    compare(x, 9)
    compare(x, 150, largest=False)


@pytest.mark.parametrize("size", [0, 1, 5, 6, 300])
def test_symbolic_sizes(size: int) -> None:
    compare(normal(2, size), 5, shape=("b", "n"))


def test_parallel_only_where_it_pays() -> None:
    arch = replace(ARCH, cores=4)
    assert not TopK().choose(TopK().match(top_k((4, 9), "float32", 2)), arch).parallel
    assert TopK().choose(TopK().match(top_k((64, 9000), "float32", 2)), arch).parallel
    compare(normal(16, 3000), 20, arch=arch)
