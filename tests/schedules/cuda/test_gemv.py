"""Products with few rows: both layouts of the large operand, parts of the sum, any size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tvm import relax, te, topi

from tests.schedules.cpu.kernels import composed, kernel, normal
from tvmext.schedules.cuda.gemv import Gemv
from tvmext.schedules.cuda.gemv_kernel import Thin
from tvmext.schedules.rule import Declined

from .kernels import ARCH, check, machine_code, run, scheduled

op = relax.op


def halves(*shape: int, seed: int = 0) -> np.ndarray:
    return normal(*shape, seed=seed).astype("float16")


def by_rows(a: te.Tensor, b: te.Tensor) -> te.Tensor:
    return topi.nn.matmul(a, b, out_dtype="float32", transpose_b=True)


@pytest.mark.parametrize(
    ("m", "n", "k", "known"),
    [(1, 72, 96, True), (2, 40, 512, True), (1, 37, 41, True), (1, 48, 40, False)],
)
def test_weights_contiguous_along_columns(m: int, n: int, k: int, known: bool) -> None:
    a, b = halves(m, k), halves(k, n, seed=1)
    check(
        lambda a, b: op.matmul(a, b, out_dtype="float32"),
        [a, b],
        a.astype("float32") @ b.astype("float32"),
        dims=None if known else [(m, "k"), ("k", n)],
        rule="gemv",
        orders=(7,),
        tolerance=2e-3,
    )


@pytest.mark.parametrize(("m", "n", "k"), [(1, 40, 512), (2, 33, 72), (1, 19, 37)])
def test_weights_contiguous_along_the_sum(m: int, n: int, k: int) -> None:
    a, b = halves(m, k), halves(n, k, seed=1)
    exact = a.astype("float32") @ b.astype("float32").T
    check(by_rows, [a, b], exact, how=composed, rule="gemv", orders=(0, 7), tolerance=2e-3)


def test_few_columns_are_rows_of_the_other_operand() -> None:
    a, b = normal(50, 64), normal(64, 2, seed=1)
    check(op.matmul, [a, b], a @ b, rule="gemv", orders=(7,), tolerance=1e-4)
    check(op.matmul, [a, b[:, 0].copy()], a @ b[:, 0], rule="gemv", orders=(1,), tolerance=1e-4)


def test_one_query_of_many_heads_with_a_cache_of_any_length() -> None:
    q, k = normal(6, 1, 16), normal(6, 21, 16, seed=1)
    check(
        lambda q, k: topi.multiply(topi.nn.batch_matmul(q, k), te.const(0.5, "float32")),
        [q, k],
        q @ k.transpose(0, 2, 1) * 0.5,
        dims=[(6, 1, 16), (6, "n", 16)],
        how=composed,
        rule="gemv",
        orders=(7,),
        tolerance=1e-4,
    )


def test_parts_of_the_sum_for_several_blocks() -> None:
    a, b = halves(1, 1024), halves(1024, 32, seed=1)
    made = kernel(op.matmul, (a.shape, "float16"), (b.shape, "float16"))
    workload = Gemv().match(made)
    assert isinstance(workload, Thin)
    decision = Gemv().choose(workload, ARCH)
    assert decision.splits > 1
    function = Gemv().apply(made, workload, replace(decision, splits=3), ARCH).func
    (result,) = run(function, {"x0": a, "x1": b}, 7)
    exact = a.astype("float32") @ b.astype("float32")
    np.testing.assert_allclose(result, exact, rtol=2e-3, atol=0.1)


@pytest.mark.parametrize("shapes", [((8, 64), (64, 32)), ((1, 64), (64, 2))])
def test_declines(shapes: Any) -> None:
    made = kernel(op.matmul, *((shape, "float32") for shape in shapes))
    assert isinstance(Gemv().match(made), Declined)


def test_declines_a_depthwise_convolution() -> None:
    made = kernel(
        lambda x, w: op.nn.conv2d(
            x, w, 1, 1, groups=8, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC"
        ),
        ((1, 9, 9, 8), "float32"),
        ((8, 3, 3, 1), "float32"),
    )
    assert isinstance(Gemv().match(made), Declined)


def test_machine_code_reads_sixteen_bytes() -> None:
    for build in (op.matmul, None):
        a, b = ((1, 4096), "float16"), ((4096, 4096), "float16")
        made = kernel(build, a, b) if build else composed(by_rows, a, b)
        words = machine_code(scheduled(made)[0])
        assert any(word.startswith("LDG.E.128") for word in words), words
