"""Products and convolutions on a GPU: any operand layout, ragged edges, fused epilogues."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, te, topi

from tests.schedules.cpu.kernels import composed, kernel, normal
from tvmext.schedules.cuda.contract import Contract
from tvmext.schedules.rule import Declined

from .kernels import ORDERS, check, run, scheduled

op = relax.op
SIZES = st.sampled_from([3, 16, 17, 33, 64, 65])


@settings(max_examples=8, deadline=None)
@given(SIZES, SIZES, SIZES, st.booleans())
def test_product(m: int, n: int, k: int, known: bool) -> None:
    a, b = normal(m, k), normal(k, n, seed=1)
    dims = None if known else [("m", k), (k, n)]
    check(op.matmul, [a, b], a @ b, dims=dims, rule="contract", orders=(0,), tolerance=1e-4)


def test_epilogue_and_transposed_operand() -> None:
    a, b, bias = normal(2, 40, 24), normal(2, 50, 24, seed=1), normal(50, seed=2)
    check(
        lambda a, b, c: topi.nn.relu(topi.add(topi.nn.batch_matmul(a, b), c)),
        [a, b, bias],
        np.maximum(a @ b.transpose(0, 2, 1) + bias, 0),
        how=composed,
        tolerance=1e-4,
    )


def test_halves_are_summed_in_float32() -> None:
    a, b = (normal(32, 512, seed=s).astype("float16") for s in (0, 1))
    exact = (a.astype("float32") @ b.T.astype("float32")).astype("float16")
    check(transposed, [a, b], exact, how=composed, orders=(0,), tolerance=2e-3)


def transposed(a: te.Tensor, b: te.Tensor) -> te.Tensor:
    return topi.nn.matmul(a, b, transpose_b=True)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_reads_through_its_window(stride: int) -> None:
    x, w = normal(2, 9, 9, 5), normal(12, 3, 3, 5, seed=1)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    expected = np.einsum("nhwcij,oijc->nhwo", windows[:, ::stride, ::stride], w)
    check(
        lambda x, w: op.nn.conv2d(
            x, w, stride, 1, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC"
        ),
        [x, w],
        expected,
        rule="contract",
        tolerance=1e-4,
    )


def test_declines_a_vector() -> None:
    answer = Contract().match(kernel(op.matmul, ((1, 64), "float32"), ((64, 32), "float32")))
    assert isinstance(answer, Declined)


def test_missing_barriers_are_noticed() -> None:
    a, b = normal(33, 40), normal(40, 40, seed=1)
    function, _ = scheduled(kernel(op.matmul, (a.shape, "float32"), (b.shape, "float32")))
    for which in (0, 1):
        mutation = partial(without_barrier, which)
        wrong = [run(function, {"x0": a, "x1": b}, order, mutation)[0] for order in ORDERS]
        assert not all(np.allclose(w, a @ b, atol=1e-3) for w in wrong)


def without_barrier(number: int, code: str) -> str:
    """The code without its `number`-th barrier."""
    parts = code.split("__syncthreads();")
    parts[number : number + 2] = ["".join(parts[number : number + 2])]
    return "__syncthreads();".join(parts)
