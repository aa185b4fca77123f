"""The bounds that the table in schedules/cpu/math.py states, over all float32 bit patterns."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tvm_ffi
from tvm import te, tirx

from tests.schedules.cpu.kernels import run, scheduled
from tvmext.schedules.cpu.math import approximate
from tvmext.schedules.rule import Kernel

COUNT = 1 << 18
SMALLEST_NORMAL, DENORMAL_STEP = 2.0**-126, 2.0**-149

_erf = np.vectorize(math.erf, otypes=["float64"])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


CASES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "exp": (np.exp, 3e-7),
    "exp2": (np.exp2, 3e-7),
    "sigmoid": (_sigmoid, 4e-7),
    "log": (np.log, 3e-7),
    "log2": (np.log2, 3e-7),
    "log10": (np.log10, 3e-7),
    "log1p": (np.log1p, 4e-7),
    "tanh": (np.tanh, 5e-7),
    "erf": (_erf, 5e-7),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 2e-7),
    "nearbyint": (np.rint, 0),
}


def samples() -> np.ndarray:
    """Numbers from every part of the range: bit patterns, the usual range, around one, specials."""
    rng = np.random.default_rng(0)
    step = (1 << 32) // (COUNT // 2)
    bits = np.arange(COUNT // 2, dtype="uint64") * step + rng.integers(0, step, COUNT // 2)
    specials = [0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1, -1, 88.72, 88.73, -87.4, -103.9]
    halves = np.arange(-40, 40) / 2
    usual = rng.uniform(-20, 20, COUNT // 4)
    near_one = 1 + rng.standard_normal(COUNT // 4 - len(specials) - len(halves)) / 4
    rest = np.concatenate([specials, halves, usual, near_one]).astype("float32")
    return np.concatenate([bits.astype("uint32").view("float32"), rest])


def evaluate(function: Callable[[tirx.Expr], tirx.Expr], x: np.ndarray) -> np.ndarray:
    source = te.placeholder((COUNT,), str(x.dtype), "x0")
    result = te.compute((COUNT,), lambda i: function(source[i]), "y")
    after, _ = scheduled(Kernel("kernel", te.create_prim_func([source, result])))
    assert "vectorized" in after.script()
    return run(after, {"x0": x})[0]


@pytest.mark.parametrize("name", CASES)
def test_error_bound_over_the_whole_range(name: str) -> None:
    reference, bound = CASES[name]
    x = samples()
    with np.errstate(all="ignore"):
        exact = reference(x.astype("float64"))
        rounded = exact.astype("float32")
    result = evaluate(getattr(tirx, name), x)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(rounded))
    infinite = np.isinf(rounded)
    np.testing.assert_array_equal(result[infinite], rounded[infinite])
    assert not np.isinf(result[~infinite]).any()
    usual = np.isfinite(rounded) & (np.abs(exact) >= SMALLEST_NORMAL)
    error = np.abs(result[usual] - exact[usual]) / np.abs(exact[usual])
    worst = error.argmax()
    assert error[worst] <= bound, f"{name}({x[usual][worst]!r}) is off by {error[worst]:.1e}"
    tiny = np.isfinite(exact) & (np.abs(exact) < SMALLEST_NORMAL)
    step = SMALLEST_NORMAL if name == "sigmoid" else 2 * DENORMAL_STEP
    assert np.abs(result[tiny] - exact[tiny]).max(initial=0) <= step


@pytest.mark.parametrize("exponent", [0.5, -0.5, 1.0, 2.0, 3.0, 4.0, -1.0, -2.0])
def test_powers(exponent: float) -> None:
    x = samples()
    with np.errstate(all="ignore"):
        # An array, because NumPy takes the root for a scalar 0.5, which differs at -infinity.
        exact = np.power(x.astype("float64"), np.full(COUNT, exponent))
        rounded = exact.astype("float32")
    result = evaluate(lambda v: tirx.power(v, tirx.const(exponent, "float32")), x)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(rounded))
    usual = np.isfinite(rounded) & (np.abs(exact) >= 2.0**-120) & (np.abs(exact) < 2.0**120)
    np.testing.assert_allclose(result[usual], exact[usual], rtol=4e-7)


def test_half_precision_goes_through_single() -> None:
    x = np.linspace(-8, 8, COUNT).astype("float16")
    np.testing.assert_allclose(
        evaluate(tirx.tanh, x), np.tanh(x.astype("float32")), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_isnan(dtype: str) -> None:
    x = np.resize(np.array([np.nan, 1, np.inf, -np.nan, -np.inf, 0, 6e4], dtype), COUNT)
    np.testing.assert_array_equal(evaluate(tirx.isnan, x), np.isnan(x))


def test_conditional_code_stays_conditional() -> None:
    x = tirx.Var("x", "float32")
    guarded = tirx.if_then_else(x > 0, tirx.exp(x), x)
    binds, value = approximate(guarded + tirx.exp(x))
    assert binds
    assert "if_then_else" in str(value)
    assert sum("tirx.exp" in str(part) or "T.exp" in str(part) for _, part in binds) == 0


def test_double_precision_and_other_calls_are_left_alone() -> None:
    x = tirx.Var("x", "float64")
    for expr in (tirx.exp(x), tirx.power(tirx.Var("y", "float32"), tirx.Var("z", "float32"))):
        binds, value = approximate(expr)
        assert not binds
        assert tvm_ffi.structural_equal(value, expr)
