"""Reductions of few long rows, which several blocks share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from tvm import relax, te, topi

from tests.schedules.cpu.kernels import composed, kernel, normal
from tvmext.schedules.cuda.rows import ByLength, RowsPlan

from .kernels import ARCH, check, machine_code, run, scheduled
from .test_rows import softmax

op = relax.op
SMALL = dataclasses.replace(ARCH, sms=8)
"""So that rows are cut which the emulator walks through in time."""


def parts(decision: Any) -> list[int]:
    return [plan.parts for plan in decision if isinstance(plan, RowsPlan)]


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((20_000,), (0,)),
        ((2, 19_001), (1,)),
        ((9000, 4), (0,)),
        ((2, 3, 150, 150), (0, 2, 3)),
    ],
)
def test_sums_are_cut(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = normal(*shape)
    decision = check(
        lambda x: topi.multiply(topi.sum(x, axes), te.const(2.0, "float32")),
        [x],
        x.astype("float64").sum(axes) * 2,
        how=composed,
        orders=(0, 7),
        tolerance=2e-3,
        arch=SMALL,
    )
    first, second = parts(decision)
    assert first > 1 and second == 1


def test_of_equal_elements_the_first_is_found() -> None:
    x = np.random.default_rng(0).integers(0, 900, (2, 20_000)).astype("float32")
    decision = check(lambda x: op.argmax(x, 1), [x], x.argmax(1), orders=(0, 7), arch=SMALL)
    assert max(parts(decision)) > 1


def test_stages_that_share_a_long_row_are_launches_of_their_own() -> None:
    x = normal(1, 50_000)
    decision = check(
        lambda x: op.nn.softmax(x), [x], softmax(x, -1), orders=(7,), tolerance=1e-4, arch=SMALL
    )
    assert sum(n > 1 for n in parts(decision)) == 2


def test_a_normalization_of_a_long_row() -> None:
    x, scale, shift = normal(1, 30_000), normal(30_000, seed=1), normal(30_000, seed=2)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    decision = check(
        lambda x, g, b: op.nn.layer_norm(x, g, b, [-1]),
        [x, scale, shift],
        expected * scale + shift,
        orders=(7,),
        tolerance=1e-3,
        arch=SMALL,
    )
    assert max(parts(decision)) > 1


def test_the_launch_tells_long_rows_from_short_ones() -> None:
    function, selection = scheduled(kernel(lambda x: op.sum(x), (("n",), "float32")), SMALL)
    assert isinstance(selection.decision, ByLength)
    for size in (0, 1, 5, selection.decision.length - 1, selection.decision.length, 30_011):
        x = normal(size)
        (result,) = run(function, {"x0": x}, 7, arch=SMALL)
        np.testing.assert_allclose(result, x.astype("float64").sum(), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("shape", [(2, 1000), (4000, 5000), ("n", 50_000)])
def test_must_not_cut(shape: tuple) -> None:
    _, selection = scheduled(kernel(lambda x: op.sum(x, 1), (shape, "float32")))
    assert parts(selection.decision) == [1]


def test_machine_code_has_no_spills() -> None:
    for shape in ((1 << 24,), ("n",)):
        function, _ = scheduled(kernel(lambda x: op.sum(x), (shape, "float32")))
        assert machine_code(function)
