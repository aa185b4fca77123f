"""exp of what is not positive, as a softmax needs it: two thirds of the steps of `math.exp`.

    exp(x) = 2^n exp(r)        n the integer nearest to x / ln 2,  r = x - n ln 2

2^n is normal for every x that counts, so it is one factor, and nothing is limited from above. The
relative error is below 3e-7; results below exp(-87), 2e-38, are 0, and NaN stays NaN.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr, PrimType, Var

from .math import EXP, LN2_HIGH, LN2_LOW, LOG2_E, ROUND, ROUND_BITS

LEAST = -87.0


def exp_of_negative(x: Expr) -> tuple[list[tuple[Var, Expr]], Expr]:
    """``exp(x)`` for a float32 x <= 0: scalars to bind first, in order, and the value."""
    binds: list[tuple[Var, Expr]] = []

    def named(name: str, value: Expr) -> Var:
        var = Var(name, PrimType(value.ty.dtype))
        binds.append((var, value))
        return var

    x = named("x", x)
    # Products that underflow cost a hundred cycles: scores masked with -1e9 must not try.
    limited = named("limited", tirx.max(_f(LEAST), x))
    bits = named("bits", tirx.reinterpret("int32", limited * _f(LOG2_E) + _f(ROUND)))
    n = named("n", tirx.reinterpret("float32", bits) - _f(ROUND))
    r = named("r", limited - n * _f(LN2_HIGH) - n * _f(LN2_LOW))
    power = tirx.reinterpret("float32", (bits + _i(127 - ROUND_BITS)) << _i(23))
    series: Expr = _f(EXP[-1])
    for coefficient in EXP[-2::-1]:
        series = series * r + _f(coefficient)
    value = (series * (r * r) + r + _f(1.0)) * power
    return binds, tirx.Select(x < _f(LEAST), _f(0.0), value)


def _f(value: float) -> Expr:
    return tirx.const(value, "float32")


def _i(value: int) -> Expr:
    return tirx.const(value, "int32")
