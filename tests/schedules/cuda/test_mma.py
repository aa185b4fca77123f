"""Products by matrix instructions: every type, layout and size, ragged edges, parts of the sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, te, tirx, topi

from tests.schedules.cpu.kernels import composed, kernel, normal
from tvmext.arch.cuda import from_name
from tvmext.schedules.cuda.gemv import Gemv
from tvmext.schedules.cuda.mma import Mma, Product
from tvmext.schedules.cuda.mma_choice import ByRows, Decision, Workload, candidates, choose
from tvmext.schedules.cuda.tile import swizzle
from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import Declined, Kernel

from .kernels import ARCH, ORDERS, check, machine_code, run, runs, scheduled, source

op = relax.op
BFLOAT16 = ml_dtypes.bfloat16


def matmul(out: str) -> Callable[..., relax.Expr]:
    return lambda a, b: op.matmul(a, b, out_dtype=out)


def transposed(out: str) -> Callable[..., te.Tensor]:
    """A product with both operands the other way around: columns of lhs, rows of rhs."""

    def build(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        return topi.nn.matmul(a, b, out_dtype=out, transpose_a=True, transpose_b=True)

    return build


def applied(made: Kernel, decision: Decision, arch: Any = ARCH, tf32: bool = False) -> Any:
    rule = Mma(arch, tf32=tf32)
    workload = rule.match(made)
    assert isinstance(workload, Product), workload
    return rule.apply(made, workload, decision, arch).func


def numbers(dtype: Any, *shape: int, seed: int = 0) -> np.ndarray:
    if np.dtype(dtype).kind in "iu":
        return np.random.default_rng(seed).integers(-100, 100, shape).astype(dtype)
    return normal(*shape, seed=seed).astype(dtype)


@settings(max_examples=4, deadline=None)
@given(
    st.sampled_from([3, 17, 40]),
    st.sampled_from([3, 33, 48]),
    st.sampled_from([8, 41, 72]),
    st.sampled_from(["float16", BFLOAT16]),
    st.booleans(),
)
def test_any_size(m: int, n: int, k: int, dtype: Any, known: bool) -> None:
    a, b = numbers(dtype, m, k), numbers(dtype, k, n, seed=1)
    exact = a.astype("float32") @ b.astype("float32")
    dims = None if known else [("m", k), (k, "n")]
    check(matmul("float32"), [a, b], exact, dims=dims, rule="mma", orders=(7,), tolerance=1e-3)


DECISIONS = [
    Decision(64, 32, 32, 32, 16, 3),
    Decision(32, 64, 64, 16, 64, 2),
    Decision(64, 64, 64, 64, 32, 4, splits=2),
]


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("how", ["straight", "transposed"])
def test_tiles(decision: Decision, how: str) -> None:
    a, b = numbers("float16", 70, 200), numbers("float16", 200, 56, seed=1)
    exact = a.astype("float32") @ b.astype("float32")
    if how == "transposed":
        a, b = a.T.copy(), b.T.copy()
        made = composed(transposed("float32"), (a.shape, "float16"), (b.shape, "float16"))
    else:
        made = kernel(matmul("float32"), (a.shape, "float16"), (b.shape, "float16"))
    function = applied(made, decision)
    for order in ORDERS:
        (result,) = run(function, {"x0": a, "x1": b}, order)
        np.testing.assert_allclose(result, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(33, 64, 40), (20, 37, 18)])
def test_bytes_are_exact(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = numbers("int8", m, k), numbers("int8", k, n, seed=1)
    exact = a.astype("int32") @ b.astype("int32")
    check(matmul("int32"), [a, b], exact, rule="mma", orders=(1,), tolerance=0)
    check(
        lambda a, b: topi.nn.matmul(a, b, out_dtype="int32", transpose_b=True),
        [a, b.T.copy()],
        exact,
        how=composed,
        rule="mma",
        orders=(7,),
        tolerance=0,
    )


def test_float32_stays_exact_unless_tf32_is_allowed() -> None:
    a, b = normal(33, 36), normal(36, 40, seed=1)
    made = kernel(op.matmul, (a.shape, "float32"), (b.shape, "float32"))
    assert scheduled(made)[1].rule == "contract"
    function, selection = scheduled(made, tf32=True)
    assert selection.rule == "mma"
    (result,) = run(function, {"x0": a, "x1": b}, 7)
    rounded = [round_to_tf32(x).astype("float64") for x in (a, b)]
    np.testing.assert_allclose(result, rounded[0] @ rounded[1], rtol=1e-5, atol=1e-5)


E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2


@pytest.mark.parametrize(
    ("left", "right", "known"),
    [(E4M3, E4M3, True), (E4M3, E5M2, False), (E5M2, E4M3, True), (E5M2, E5M2, False)],
)
def test_floats_of_8_bits(left: Any, right: Any, known: bool) -> None:
    """Either kind by either, in runs of 16 bytes and one by one, edges on all sides."""
    deep = 80 if known else 46
    a, b = numbers(left, 21, deep), numbers(right, deep, 19, seed=1)
    exact = a.astype("float32") @ b.astype("float32")
    dims = None if known else [("m", deep), (deep, "n")]
    arch = from_name("sm_89")
    check(
        matmul("float32"), [a, b], exact, dims=dims, rule="mma", orders=(7,), arch=arch,
        tolerance=1e-4,
    )  # fmt: skip
    made = kernel(matmul("float32"), (a.shape, str(a.dtype)), (b.shape, str(b.dtype)))
    assert scheduled(made)[1].rule == "contract"  # sm_80 has no such instruction


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_weights_are_turned_at_compile_time(dtype: str) -> None:
    out = "int32" if dtype == "int8" else dtype
    a, b = numbers(dtype, 20, 48), numbers(dtype, 48, 24, seed=1)
    made = kernel(matmul(out), (a.shape, dtype), (b.shape, dtype))
    rule = Mma(ARCH, tf32=True)
    workload = rule.match(replace(made, constant_args=frozenset({1})))
    assert isinstance(workload, Product)
    assert workload.sizes.copies == (16, 16)
    result = rule.apply(made, workload, rule.choose(workload, ARCH), ARCH)
    (got,) = run(result.func, {"x0": a, "x1": relayout(b, result.layouts[1])}, 7)
    np.testing.assert_allclose(got, a.astype(out) @ b.astype(out), rtol=1e-2, atol=2e-2)


def round_to_tf32(x: np.ndarray) -> np.ndarray:
    return ((x.view("uint32") + 0x1000) & np.uint32(0xFFFFE000)).view("float32")


@pytest.mark.parametrize("channels", [16, 3])
def test_convolution_reads_through_its_window(channels: int) -> None:
    x = numbers("float16", 2, 9, 9, channels)
    w = numbers("float16", 16, 3, 3, channels, seed=1)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    check(
        lambda x, w: op.nn.conv2d(
            x, w, 2, 1, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC"
        ),
        [x, w],
        np.einsum("nhwcij,oijc->nhwo", windows, w.astype("float32")),
        rule="mma",
        orders=(0, 1),
        tolerance=1e-2,
    )


def test_batches_and_epilogue() -> None:
    a, b = numbers("float16", 3, 20, 24), numbers("float16", 3, 40, 24, seed=1)
    bias, more = normal(40, seed=2), normal(3, 20, 40, seed=3)
    exact = a.astype("float32") @ b.astype("float32").transpose(0, 2, 1)

    def build(a: te.Tensor, b: te.Tensor, c: te.Tensor, d: te.Tensor) -> te.Tensor:
        product = topi.nn.batch_matmul(a, b, out_dtype="float32")
        return topi.add(topi.nn.relu(topi.add(product, c)), d)

    expected = np.maximum(exact + bias, 0) + more
    check(build, [a, b, bias, more], expected, how=composed, rule="mma", tolerance=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rows", [1, 20])
def test_no_batches(dtype: str, rows: int) -> None:
    """Of an empty grid there is one block, which must not read or write."""
    made = kernel(matmul("float32"), (("b", rows, 24), dtype), (("b", 24, 40), dtype))
    function, selection = scheduled(made)
    assert selection.rule == ("gemv" if rows == 1 else "mma" if dtype == "float16" else "contract")
    cases = [
        {"x0": numbers(dtype, batch, rows, 24), "x1": numbers(dtype, batch, 24, 40, seed=1)}
        for batch in (0, 2)
    ]
    for feeds, (got,) in zip(cases, runs(function, [(feeds, 7) for feeds in cases]), strict=True):
        exact = feeds["x0"].astype("float32") @ feeds["x1"].astype("float32")
        np.testing.assert_allclose(got, exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("turn", [False, True])
def test_weights_of_bytes_with_a_scale(rows: int, turn: bool) -> None:
    a, b = numbers("float16", rows, 40), numbers("int8", *((24, 40) if turn else (40, 24)), seed=1)
    scale = np.abs(numbers("float16", *((24, 1) if turn else (24,)), seed=2)) / 16

    def build(a: te.Tensor, b: te.Tensor, scale: te.Tensor) -> te.Tensor:
        weight = topi.multiply(topi.cast(b, "float16"), scale)
        return topi.nn.matmul(a, weight, out_dtype="float32", transpose_b=turn)

    weight = (b.astype("float16") * scale).astype("float32")
    exact = a.astype("float32") @ (weight.T if turn else weight)
    made = composed(build, *((x.shape, str(x.dtype)) for x in (a, b, scale)))
    workload = (Mma(ARCH) if rows > 2 else Gemv()).match(made)
    assert not isinstance(workload, Declined)
    assert workload.sources[1].run == 8
    assert workload.sources[1].inward == turn
    rule = "mma" if rows > 2 else "gemv"
    check(build, [a, b, scale], exact, how=composed, rule=rule, orders=(7,), tolerance=1e-2)


def test_sm_75_has_smaller_instructions_and_no_copies() -> None:
    arch = from_name("sm_75")
    for dtype, out in (("float16", "float32"), ("int8", "int32")):
        a, b = numbers(dtype, 20, 64), numbers(dtype, 64, 24, seed=1)
        made = kernel(matmul(out), (a.shape, dtype), (b.shape, dtype))
        function, selection = scheduled(made, arch)
        assert selection.rule == "mma"
        (result,) = run(function, {"x0": a, "x1": b}, 1)
        np.testing.assert_allclose(result, a.astype(out) @ b.astype(out), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("shapes", "dtype"),
    [(((1, 64), (64, 32)), "float16"), (((8, 64), (64, 32)), "float32")],
)
def test_declines(shapes: Any, dtype: str) -> None:
    made = kernel(op.matmul, *((shape, dtype) for shape in shapes))
    assert isinstance(Mma(ARCH).match(made), Declined)


def test_old_generations_have_no_such_instructions() -> None:
    made = kernel(matmul("float32"), ((32, 32), "float16"), ((32, 32), "float16"))
    assert isinstance(Mma(from_name("sm_70")).match(made), Declined)


@pytest.mark.parametrize("rows", [5, 150])
def test_few_and_many_rows_have_kernels_of_their_own(rows: int) -> None:
    a, b = numbers("float16", rows, 24), numbers("float16", 24, 256, seed=1)
    exact = a.astype("float32") @ b.astype("float32")
    dims = [("m", 24), (24, 256)]
    decision = check(
        matmul("float32"), [a, b], exact, dims=dims, rule="mma", orders=(7,), tolerance=1e-3
    )
    assert isinstance(decision, ByRows)
    assert decision.few.rows < decision.many.rows


def test_large_products_have_large_tiles() -> None:
    large = choose(Workload(1, 4096, 4096, 4096, "float16", (16, 16)), ARCH)
    assert isinstance(large, Decision)
    assert large.rows * large.cols >= 128 * 128
    assert large.stages > 2


def test_few_tiles_split_the_sum_and_unknown_rows_do_not() -> None:
    few = Workload(1, 64, 64, 8192, "float16", (16, 16))
    plan = choose(few, ARCH)
    assert isinstance(plan, Decision)
    assert plan.splits > 1
    assert all(one.splits == 1 for one in candidates(ARCH, replace(few, rows=None)))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_the_largest_share_of_operands_beside_results_compiles(arch: str) -> None:
    """Results are laid over the operands, which TVM does only where those are not much larger."""
    machine = from_name(arch)
    sizes = Workload(1, 512, 32, 512, "bfloat16", (16, 16))
    shares = {one.tiles("bfloat16") / one.results: one for one in candidates(machine, sizes)}
    made = kernel(matmul("float32"), ((512, 512), "bfloat16"), ((512, 32), "bfloat16"))
    assert "tiles" in source(applied(made, shares[max(shares)], machine), machine)


@pytest.mark.parametrize("chunks", [2, 4, 8, 16])
def test_swizzle_uses_all_banks(chunks: int) -> None:
    def place(row: int, chunk: int) -> int:
        values = (tirx.const(value, "int64") for value in (row, chunk))
        return row * chunks + int(swizzle(*values, chunks))

    for chunk in range(chunks):
        assert len({place(row, chunk) % 8 for row in range(8)}) == 8
    for row in range(8):
        assert sorted(place(row, c) for c in range(chunks)) == [
            row * chunks + c for c in range(chunks)
        ]


def without_barrier(number: int, code: str) -> str:
    parts = code.split("__syncthreads();")
    parts[number : number + 2] = ["".join(parts[number : number + 2])]
    return "__syncthreads();".join(parts)


def waits_for_less(code: str) -> str:
    return code.replace("cp.async.wait_group 1;", "cp.async.wait_group 2;")


@pytest.mark.parametrize(
    "mutation", [partial(without_barrier, 0), partial(without_barrier, 1), waits_for_less]
)
def test_what_is_missing_is_noticed(mutation: Callable[[str], str]) -> None:
    a, b = numbers("float16", 32, 160), numbers("float16", 160, 64, seed=1)
    made = kernel(matmul("float32"), (a.shape, "float16"), (b.shape, "float16"))
    function = applied(made, Decision(32, 64, 32, 16, 32, 3))
    exact = a.astype("float32") @ b.astype("float32")
    wrong = [run(function, {"x0": a, "x1": b}, order, mutation)[0] for order in ORDERS]
    assert not all(np.allclose(w, exact, atol=1e-2) for w in wrong)


@pytest.mark.parametrize(
    ("dtype", "out", "instruction"),
    [
        ("float16", "float16", "HMMA.16816.F32"),
        ("int8", "int32", "IMMA.16832.S8.S8"),
        ("float8_e4m3fn", "float16", "QMMA.16832.F32.E4M3.E4M3"),
    ],
)
def test_machine_code(dtype: str, out: str, instruction: str) -> None:
    """Matrix instructions, wide copies, no register in memory."""
    arch = from_name("sm_89") if "float8" in dtype else ARCH
    made = kernel(matmul(out), ((512, 512), dtype), ((512, 512), dtype))
    words = machine_code(applied(made, Decision(128, 128, 64, 64, 64, 3), arch), arch)
    assert instruction in words
    assert "LDGSTS.E.BYPASS.128" in words
    assert not {word for word in words if word.startswith(("LDL", "STL"))}
