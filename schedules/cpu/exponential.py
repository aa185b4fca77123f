"""2^x of what is not positive, as a softmax needs it: half of the steps of `math.exp`.

    2^x = 2^n p(r)        n the integer nearest to x,  r = x - n

2^n is normal for every x that counts, so it is one factor, and nothing is limited from above. The
relative error is below 2e-7; results below 2^-126, 1e-38, are 0, and NaN stays NaN.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr, PrimType, Var

from .math import ROUND, ROUND_BITS

LEAST = -127.0
"""2^n is 0 from here on: its bits, those of an exponent of zero, are."""

# 2^r on |r| <= 1/2, relative error 1e-7
POWER = (1.0, 0.6931469776199699, 0.24022242162624582, 0.055507337754052755,
         0.009671507710107295, 0.0013264695031906676)  # fmt: skip


def exp2_of_negative(x: Expr) -> tuple[list[tuple[Var, Expr]], Expr]:
    """``2 ** x`` for a float32 x <= 0: scalars to bind first, in order, and the value."""
    binds: list[tuple[Var, Expr]] = []

    def named(name: str, value: Expr) -> Var:
        var = Var(name, PrimType(value.ty.dtype))
        binds.append((var, value))
        return var

    # In this order it is x where x is NaN.
    limited = named("limited", tirx.max(_f(LEAST), x))
    # Through integers, because TVM takes (x + c) - c for x.
    bits = named("bits", tirx.reinterpret("int32", limited + _f(ROUND)))
    r = named("r", limited - (tirx.reinterpret("float32", bits) - _f(ROUND)))
    power = tirx.reinterpret("float32", (bits + _i(127 - ROUND_BITS)) << _i(23))
    series: Expr = _f(POWER[-1])
    for coefficient in POWER[-2::-1]:
        series = series * r + _f(coefficient)
    return binds, series * power


def _f(value: float) -> Expr:
    return tirx.const(value, "float32")


def _i(value: int) -> Expr:
    return tirx.const(value, "int32")
