"""Exponentials of a softmax: their error bound, what vanishes, and what is no number."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from tvm import tirx
from tvm.ir import Expr, Var

from tests.schedules.cpu.kernels import ARCH, run
from tvmext.schedules.cpu.exponential import exp2_of_negative
from tvmext.schedules.cpu.math import approximate
from tvmext.schedules.kernel.emit import VECTORIZED, block, loop

LANES = 16
Exponential = Callable[[Expr], tuple[list[tuple[Var, Expr]], Expr]]


def exp_below_zero(x: Expr) -> tuple[list[tuple[Var, Expr]], Expr]:
    return approximate(tirx.exp(tirx.min(x, tirx.const(0.0, "float32"))))


BOTH = pytest.mark.parametrize(
    "function, base", [(exp2_of_negative, 2.0), (exp_below_zero, math.e)]
)


def evaluate(function: Exponential, x: np.ndarray) -> np.ndarray:
    source, out = (tirx.decl_buffer([x.size], "float32", name) for name in ("x0", "y"))

    def element(i: tirx.Var) -> tirx.Stmt:
        names, value = function(source[i])
        binds = (tirx.Bind(var, expr) for var, expr in names)
        return block(*binds, tirx.BufferStore(out, value, [i]))

    body = loop(
        x.size // LANES, lambda v: loop(LANES, lambda lane: element(v * LANES + lane), VECTORIZED)
    )
    return run(tirx.PrimFunc([source, out], body), {"x0": x}, ARCH)[0]


@BOTH
def test_error_bound(function: Exponential, base: float) -> None:
    end = 126 / math.log2(base)
    x = -np.concatenate([np.geomspace(1e-38, end, 1 << 16), np.linspace(0, end, 1 << 16)])
    x = x.astype("float32")
    exact = base ** x.astype("float64")
    assert np.abs(evaluate(function, x) / exact - 1).max() < 3e-7


@BOTH
def test_specials(function: Exponential, base: float) -> None:
    x = np.resize(np.array([0, -0.0, -126.6, -127.5, -1e9, -3e38, -np.inf, np.nan], "float32"), 64)
    expected = np.resize(np.array([1, 1, 0, 0, 0, 0, 0, np.nan], "float32"), 64)
    np.testing.assert_array_equal(evaluate(function, x), expected)
    quiet = np.full(LANES, 0x7FC12345, "uint32").view("float32")
    assert np.isnan(evaluate(function, quiet)).all()
