"""Rows that are read and written 16 bytes at a time, and what lies otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax, topi

from tests.schedules.cpu.kernels import composed, kernel, normal
from tvmext.schedules.cuda.rows import ByLength

from .kernels import ORDERS, check, machine_code, run, runs, scheduled
from .test_rows import softmax

op = relax.op


def widths(decision: Any) -> list[int]:
    plans = decision.cut if isinstance(decision, ByLength) else decision
    return [width for plan in plans for width in getattr(plan, "widths", ())]


@pytest.mark.parametrize(
    ("shape", "dtype", "width"),
    [
        ((3, 1024), "float32", 4),
        ((2, 5, 512), "float16", 8),
        ((4, 100), "float32", 4),
        ((3, 260), "float16", 4),
        ((2, 333), "float32", 1),
        ((1, 777), "float16", 8),
    ],
)
def test_softmax(shape: tuple[int, ...], dtype: str, width: int) -> None:
    """As wide as the length of the rows allows; of one row, as wide as can be."""
    x = normal(*shape).astype(dtype)
    tolerance = 1e-5 if dtype == "float32" else 4e-3
    decision = check(lambda x: op.nn.softmax(x), [x], softmax(x, -1), tolerance=tolerance)
    assert max(widths(decision)) == width


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_of_unknown_length(dtype: str) -> None:
    """One kernel: rows that begin at multiples of 16 bytes, and those that do not."""
    made = kernel(lambda x: op.nn.softmax(x), (("n", "m"), dtype))
    function, selection = scheduled(made)
    assert set(widths(selection.decision)) == {16 // np.dtype(dtype).itemsize}
    inputs = [normal(n, m).astype(dtype) for n, m in [(3, 64), (5, 77), (2, 1032), (0, 8), (3, 0)]]
    results = runs(function, [({"x0": x}, order) for x in inputs for order in (0, 7)])
    for number, (result,) in enumerate(results):
        x = inputs[number // 2]
        if x.size:
            np.testing.assert_allclose(result, softmax(x, -1), rtol=4e-3, atol=1e-3)


def test_what_is_not_asked_and_what_is_not_aligned_is_noticed() -> None:
    made = kernel(lambda x: op.nn.softmax(x), (("n", "m"), "float32"))
    function, _ = scheduled(made)

    def without_question(code: str) -> str:
        return code.replace("(m % (int64_t)4) == (int64_t)0", "true")

    def beside(code: str) -> str:
        return code.replace("*(float4*)(x0_ptr + ", "*(float4*)(x0_ptr + 1 + ")

    for length, same in ((76, True), (77, False)):
        x = normal(2, length)
        (result,) = run(function, {"x0": x}, 0, without_question)
        assert np.allclose(result, softmax(x, -1), atol=1e-5) == same
    with pytest.raises(Exception, match="16 bytes at once that are not aligned"):
        run(function, {"x0": normal(2, 76)}, 0, beside)


@pytest.mark.parametrize("dims", [None, ("n", 384), ("n", "m")])
def test_norms_with_scales(dims: tuple | None) -> None:
    """Scales are aligned whatever the row, which begins elsewhere than they do."""
    x, scale, shift = normal(5, 384), normal(384, seed=1), normal(384, seed=2)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    of_row = None if dims is None else [dims, dims[1:], dims[1:]]
    decision = check(
        lambda x, g, b: op.nn.layer_norm(x, g, b, [-1]),
        [x, scale, shift],
        expected * scale + shift,
        dims=of_row,
        tolerance=1e-4,
    )
    assert set(widths(decision)) == {4}


def test_one_long_row_of_unknown_length_is_cut_at_multiples() -> None:
    made = kernel(lambda x: op.max(x), (("n",), "float16"))
    function, selection = scheduled(made)
    assert isinstance(selection.decision, ByLength) and max(widths(selection.decision)) == 8
    for size in (1, 7, 1001, 8000, 12345):
        x = normal(size).astype("float16")
        for order in (0, 7):
            np.testing.assert_array_equal(run(function, {"x0": x}, order)[0], x.max())


def test_part_of_a_row() -> None:
    """Of rows of 520 bytes only those parts are aligned that begin at a multiple."""
    x = normal(6, 130)
    for first, width in ((4, 2), (3, 1)):
        decision = check(
            lambda x, first=first: topi.sum(topi.strided_slice(x, [0, first], [6, first + 96]), 1),
            [x],
            x[:, first : first + 96].sum(1),
            how=composed,
            tolerance=1e-4,
        )
        assert set(widths(decision)) == {width}


def test_windows_that_do_not_join_and_indices_of_the_largest() -> None:
    """Two axes of a reduction that lie apart; of equal elements the first is found."""
    x = normal(3, 6, 40)
    decision = check(
        lambda x: topi.sum(topi.strided_slice(x, [0, 0, 0], [3, 6, 32]), (1, 2)),
        [x],
        x[:, :, :32].sum((1, 2)),
        how=composed,
        tolerance=1e-4,
    )
    assert set(widths(decision)) == {4}
    y = np.random.default_rng(0).integers(0, 9, (4, 512)).astype("float32")
    assert max(widths(check(lambda x: op.argmax(x, 1), [y], y.argmax(1), orders=ORDERS))) == 4


@pytest.mark.parametrize("dims", [(64, 2048), ("n", "m")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_machine_code(dims: tuple, dtype: str) -> None:
    function, _ = scheduled(kernel(lambda x: op.nn.softmax(x), (dims, dtype)))
    words = machine_code(function)
    assert {"LDG.E.128.CONSTANT", "STG.E.128"} <= words
    if dims[0] == 64:
        assert not any(word.startswith(("LDG.E.C", "LDG.E.U16", "STG.E.U16")) for word in words)
