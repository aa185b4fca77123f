"""Matrix products of every kind against NumPy."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, te, tirx

from tests.schedules.cpu.kernels import (
    ARCH,
    built,
    call,
    composed,
    kernel,
    normal,
    run,
    scheduled,
)
from tests.schedules.cpu.products import compare, schedule
from tvmext.arch import FAMILIES
from tvmext.passes.share_kernels import RANGES
from tvmext.schedules.cpu.gemm import Gemm, Workload
from tvmext.schedules.kernel.analysis import collect, constant
from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import OWN_ADDRESSES, Declined

op = relax.op
few = settings(max_examples=12, deadline=None)
sizes = st.sampled_from([0, 1, 2, 5, 13, 16, 31, 48, 67])


def test_a_weight_is_laid_out_in_panels() -> None:
    _, result, selection = schedule(
        op.matmul, ((8, 64), "float32"), ((64, 100), "float32"), weights=[1]
    )
    assert selection.rule == "gemm"
    panels, depth, width = result.layouts[1].shape
    assert depth == 64
    assert 100 <= panels * width < 100 + width
    assert tuple(result.func.params[1].shape) == (panels, depth, width)


@pytest.mark.parametrize("cols, full", [(96, True), (100, False)])
def test_addresses_of_full_panels_are_left_as_they_are(cols: int, full: bool) -> None:
    _, result, _ = schedule(op.matmul, ((8, 64), "float32"), ((64, cols), "float32"), weights=[1])
    assert (OWN_ADDRESSES in result.func.attrs) == full


def test_without_a_weight_the_interface_stays() -> None:
    before, result, selection = schedule(op.matmul, ((64, 64), "float32"), ((64, 64), "float32"))
    assert selection.decision.rhs in ("pack", "in place")
    assert not result.layouts and OWN_ADDRESSES not in result.func.attrs
    assert all(a.same_as(b) for a, b in zip(before.func.params, result.func.params))


@pytest.mark.parametrize(
    "build, shapes",
    [
        (lambda x: op.sum(x, 1), [(4, 5)]),
        (op.add, [(4, 5), (4, 5)]),
        (lambda x, w: op.nn.conv2d(x, w, padding=1, data_layout="NHWC", kernel_layout="OHWI"),
         [(1, 8, 8, 16), (16, 3, 3, 16)]),
        (op.matmul, [(1, 8), (8,)]),
    ],
    ids=["sum", "add", "window", "dot"],
)  # fmt: skip
def test_must_not_fire(build: object, shapes: list[tuple[int, ...]]) -> None:
    answer = Gemm().match(kernel(build, *((shape, "float32") for shape in shapes)))
    assert isinstance(answer, Declined)


@pytest.mark.parametrize(("side", "parallel"), [(56, True), (1, False)])
def test_what_is_known_of_the_rows_decides_whether_they_are_shared_out(
    side: int, parallel: bool
) -> None:
    """A layer on images of any number: the rows of a single one are known."""
    batch = tirx.Var("batch", "int64")
    image = (batch, side, side, 16), "float32"
    arch = replace(ARCH, cores=2)
    _, _, selection = schedule(op.matmul, image, ((16, 96), "float32"), weights=[1], arch=arch)
    assert selection.decision.parallel is parallel


@few
@given(sizes, sizes, sizes, st.booleans())
def test_static_sizes(m: int, n: int, k: int, weight: bool) -> None:
    x, w = normal(m, k), normal(k, n, seed=1)
    compare(op.matmul, [x, w], x @ w, weights=[1] if weight else [])


@pytest.mark.parametrize("m", [0, 1, 2, 7, 8, 9, 31, 100])
def test_symbolic_rows(m: int) -> None:
    x, w = normal(2, m, 24), normal(24, 50, seed=1)
    dims = [("batch", "seq", 24), (24, 50)]
    compare(op.matmul, [x, w], x @ w, weights=[1], dims=dims, rule="gemm")


def test_everything_symbolic() -> None:
    """One kernel for few rows, few columns, panels that are full and that are not, and nothing."""
    made = kernel(op.matmul, (("b", "m", "k"), "float32"), (("b", "k", "n"), "float32"))
    function, selection = scheduled(made)
    variants = (selection.decision, *selection.decision.others)
    assert {variant.rhs for variant in variants} == {"pack", "in place"}
    compiled = built(function)
    wide = selection.decision.tile.cols
    widths = (0, 1, 7, 16, 17, wide, wide + 1, 2 * wide + 33)
    for m, n, k in [*product((0, 1, 5, 40), widths, (9,)), (4, 5, 0), (33, 64, 16), (1, 1, 1)]:
        x, w = normal(3, m, k), normal(3, k, n, seed=1)
        (result,) = call(compiled, function, {"x0": x, "x1": w}, tvm.cpu())
        np.testing.assert_allclose(result, x @ w, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "ranges, kept",
    [
        ({}, {"pack", "in place"}),
        ({"m": [64, 4096]}, {"pack", "in place"}),
        ({"m": [1, 1]}, {"in place"}),
        ({"m": [1, 8], "n": [1, -1]}, {"in place"}),
    ],
    ids=["any", "many rows", "one row", "few rows"],
)
def test_a_declared_range_leaves_fewer_variants(
    ranges: dict[str, list[int]], kept: set[str]
) -> None:
    made = kernel(op.matmul, (("m", "k"), "float32"), (("k", "n"), "float32"))
    told = replace(made, func=made.func.with_attr(RANGES, ranges))
    decision = Gemm().choose(Gemm().match(told), FAMILIES["x86-64-v4"])
    assert {one.rhs for one in (decision, *decision.others)} == kept
    x, w = normal(130, 9), normal(9, 70, seed=1)  # sizes outside are right, too
    function, _ = scheduled(told)
    (result,) = run(function, {"x0": x, "x1": w})
    np.testing.assert_allclose(result, x @ w, rtol=1e-5, atol=1e-5)


def test_all_of_8192_sizes_of_rows() -> None:
    """MikPoly's count of valid runs; what is tuned for samples fails outside of their range."""
    x, w = normal(8192, 4), normal(4, 3, seed=1)
    _, result, _ = schedule(op.matmul, (("m", 4), "float32"), ((4, 3), "float32"), weights=[1])
    compiled = built(result.func)
    expected, weight = x @ w, tvm.runtime.tensor(relayout(w, result.layouts[1]))
    for m in range(8193):
        out = tvm.runtime.empty((m, 3), "float32")
        compiled(tvm.runtime.tensor(x[:m]), weight, out)
        assert np.abs(out.numpy() - expected[:m]).max(initial=0) < 1e-5, m


@pytest.mark.parametrize("seq", [1, 3, 16, 45])
def test_attention_scores_and_values(seq: int) -> None:
    q, k = normal(2, 3, seq, 16), normal(2, 3, seq, 16, seed=1)
    scores = q @ k.transpose(0, 1, 3, 2)
    dims = [("b", 3, "s", 16)] * 2
    transposed = k.transpose(0, 1, 3, 2).copy()
    compare(op.matmul, [q, transposed], scores, dims=[dims[0], ("b", 3, 16, "s")], rule="gemm")
    compare(op.matmul, [scores, k], scores @ k, dims=[("b", 3, "s", "s"), dims[1]], rule="gemm")


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("cols, depth", [(40, 24), (70, 50), (5, 7)])
@pytest.mark.parametrize("symbolic", [False, True])
def test_an_operand_read_through_a_transpose(
    rows: int, cols: int, depth: int, symbolic: bool
) -> None:
    from tvmext.schedules.cpu import RULES
    from tvmext.schedules.select import select

    def build(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        moved = te.compute((w.shape[1], w.shape[0]), lambda k, n: w[n, k], "moved")
        axis = te.reduce_axis((0, w.shape[1]), "k")
        shape = (x.shape[0], w.shape[0])
        return te.compute(shape, lambda i, j: te.sum(x[i, axis] * moved[axis, j], axis))

    n, k = ("n", "k") if symbolic else (cols, depth)
    before = composed(build, ((rows, k), "float32"), ((n, k), "float32"))
    result, selection = select(before, ARCH, RULES)
    assert selection.rule == "gemm"
    x, w = normal(rows, depth), normal(cols, depth, seed=1)
    (got,) = run(result.func, {"x0": x, "x1": w})
    np.testing.assert_allclose(got, x @ w.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("batch", [2, "b"])
@pytest.mark.parametrize("heads, width", [(3, 24), (2, 7)])
def test_merged_heads_are_read_run_by_run(
    rows: int, batch: int | str, heads: int, width: int
) -> None:
    """No step of the sum divides, ``x[t, k // width, b, k % width]``, however rows lie."""

    def build(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        shape = (x.shape[0], x.shape[2], w.shape[0])
        merged = te.compute(
            shape, lambda t, b, k: x[t, tirx.floordiv(k, width), b, tirx.floormod(k, width)]
        )
        k = te.reduce_axis((0, w.shape[0]), "k")
        shape = (x.shape[0], x.shape[2], w.shape[1])
        return te.compute(shape, lambda t, b, j: te.sum(merged[t, b, k] * w[k, j], k))

    depth = heads * width
    shapes = (("t", heads, batch, width), "float32"), ((depth, 40), "float32")
    function, selection = scheduled(composed(build, *shapes))
    assert selection.rule == "gemm"
    module = tvm.tirx.transform.StmtSimplify()(tvm.IRModule({"main": function}))
    kinds = (tirx.FloorDiv, tirx.FloorMod)
    divisions = [n for kind in kinds for n in collect(module["main"].body, kind)]
    assert width not in {constant(node.b) for node in divisions}
    x, w = normal(rows, heads, 2, width), normal(depth, 40, seed=1)
    (got,) = run(function, {"x0": x, "x1": w})
    merged = x.transpose(0, 2, 1, 3).reshape(rows, 2, depth)
    np.testing.assert_allclose(got, merged @ w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("m", [1, 6, 17])
@pytest.mark.parametrize("n", [32, 50])
def test_epilogues(m: int, n: int) -> None:
    x, w, bias, skip = normal(m, 20), normal(20, n), normal(n), normal(m, n, seed=2)
    compare(
        lambda x, w, b, r: op.nn.relu(op.add(op.add(op.matmul(x, w), b), r)),
        [x, w, bias, skip],
        np.maximum(x @ w + bias + skip, 0),
        weights=[1],
        dims=[("m", 20), (20, n), (n,), ("m", n)],
        rule="gemm",
    )
    compare(
        lambda x, w, b: op.tanh(op.add(op.matmul(x, w), b)),
        [x, w, bias],
        np.tanh(x @ w + bias),
        weights=[1],
        rule="gemm",
    )


def test_vectors_and_single_columns() -> None:
    x, w = normal(30), normal(30, 20)
    compare(op.matmul, [x, w], x @ w, weights=[1])
    x, w = normal(9, 30), normal(30, 1)
    compare(op.matmul, [x, w], x @ w, weights=[1])


@pytest.mark.parametrize("dtype", ["float64", "int32"])
def test_other_types(dtype: str) -> None:
    x = (10 * normal(9, 20)).astype(dtype)
    w = (10 * normal(20, 33, seed=1)).astype(dtype)
    compare(op.matmul, [x, w], x @ w, weights=[1], rule="gemm")


def test_bytes_summed_in_32_bits() -> None:
    x = (10 * normal(9, 20)).astype("int8")
    w = (10 * normal(20, 33, seed=1)).astype("int8")
    expected = x.astype("int32") @ w.astype("int32")
    compare(lambda x, w: op.matmul(x, w, out_dtype="int32"), [x, w], expected, weights=[1])


def test_half_precision_is_right() -> None:
    x, w = normal(9, 20).astype("float16"), normal(20, 33, seed=1).astype("float16")
    compare(op.matmul, [x, w], x @ w, weights=[1], tolerance=1e-2)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_machine_has_a_tile_that_fits(family: str) -> None:
    arch = FAMILIES[family]
    for rows in (1, 7, 64, None):
        shape = ("m" if rows is None else rows, 64)
        before = kernel(op.matmul, (shape, "float32"), ((64, 96), "float32"))
        workload = Gemm().match(replace(before, constant_args=frozenset([1])))
        tile = Gemm().choose(workload, arch).tile
        assert tile.rows * tile.vectors + tile.vectors + 1 <= arch.vector_registers


def test_two_cores() -> None:
    x, w = normal(130, 256), normal(256, 300)
    selection = compare(op.matmul, [x, w], x @ w, weights=[1], arch=replace(ARCH, cores=2))
    assert selection.decision.parallel


@pytest.mark.parametrize("cols, lanes", [(24, 8), (48, 16), (20, 8)])
def test_half_vectors_where_they_waste_less(cols: int, lanes: int) -> None:
    zen4 = replace(FAMILIES["znver4"], mcpu=ARCH.mcpu)
    _, _, selection = schedule(
        op.matmul, ((64, 96), "float32"), ((96, cols), "float32"), weights=[1], arch=zen4
    )
    assert selection.decision.tile.lanes == lanes
    wide = replace(zen4, fma_units=2, unit_bits=0)
    assert Gemm().choose(_workload(cols), wide).tile.lanes == 16
    x, w = normal(67, 96), normal(96, cols, seed=1)
    for dims in (None, [("m", 96), w.shape]):
        compare(
            op.matmul, [x, w], x @ w, weights=[1], dims=dims, arch=replace(zen4, mcpu=ARCH.mcpu)
        )


def _workload(cols: int) -> Workload:
    before, *_ = schedule(op.matmul, ((64, 96), "float32"), ((96, cols), "float32"), weights=[1])
    found = Gemm().match(before)
    assert isinstance(found, Workload)
    return found


def pointwise(x: relax.Expr, w: relax.Expr, b: relax.Expr) -> relax.Expr:
    found = op.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI")
    return op.add(found, b)


def quotients(func: tirx.PrimFunc) -> int:
    """Divisions by what is not a constant."""
    kinds = (tirx.FloorDiv, tirx.FloorMod)
    return sum(constant(n.b) is None for kind in kinds for n in collect(func.body, kind))


def pictures(h: int, w: int) -> tuple[list[np.ndarray], np.ndarray]:
    x, weight, bias = normal(2, h, w, 24), normal(20, 1, 1, 24, seed=1), normal(20, seed=2)
    return [x, weight, bias], x @ weight[:, 0, 0].T + bias


@pytest.mark.parametrize("h, w", [(0, 3), (1, 1), (3, 5), (9, 7)])
def test_pixels_are_rows_without_a_quotient(h: int, w: int) -> None:
    """Nothing asks for the row and the column of a pixel."""
    inputs, wanted = pictures(h, w)
    dims = [("n", "h", "w", 24), (20, 1, 1, 24), (20,)]
    compare(pointwise, inputs, wanted, weights=[1], dims=dims, rule="gemm")
    typed = [(shape, "float32") for shape in dims]
    _, result, _ = schedule(pointwise, *typed, weights=[1])
    flat = quotients(result.func)
    _, result, _ = schedule(op.matmul, (("r", 24), "float32"), ((24, 20), "float32"), weights=[1])
    assert flat == quotients(result.func)


@pytest.mark.parametrize("h, w", [(0, 3), (1, 1), (3, 5), (9, 7)])
def test_pixels_whose_row_is_asked_for(h: int, w: int) -> None:
    (x, weight, _), _ = pictures(h, w)
    bias = normal(h, 1, 1)
    wanted = x @ weight[:, 0, 0].T + bias
    dims = [("n", "h", "w", 24), (20, 1, 1, 24), ("h", 1, 1)]
    compare(pointwise, [x, weight, bias], wanted, weights=[1], dims=dims, rule="gemm")


def _before_a_guard(array: np.ndarray) -> np.ndarray:
    """A copy that ends where a page begins which may be neither read nor written."""
    pages = -(-array.nbytes // mmap.PAGESIZE) + 1
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    end = (pages - 1) * mmap.PAGESIZE
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + end), mmap.PAGESIZE, 0) == 0
    copy = np.frombuffer(memory, "float32", array.size, end - array.nbytes).reshape(array.shape)
    copy[...] = array
    return copy


def test_nothing_past_the_last_column_is_touched() -> None:
    """Sizes that are 16 rows keep arrays aligned, whatever the number of columns."""
    made = kernel(op.matmul, (("m", "k"), "float32"), (("k", "n"), "float32"))
    function, _ = scheduled(made)
    compiled = built(function)
    for n in (1, 7, 8, 9, 15, 16, 17, 23, 31, 33, 47, 48, 49, 113, 1001):
        for m, k in ((1, 16), (16, 16), (96, 2048)):
            if m * n % 16 == 0:
                x, w = normal(m, k), normal(k, n, seed=1)
                arrays = [_before_a_guard(one) for one in (x, w, np.zeros((m, n), "float32"))]
                compiled(*map(tvm.runtime.from_dlpack, arrays))
                np.testing.assert_allclose(arrays[2], x @ w, rtol=1e-4, atol=1e-3)
