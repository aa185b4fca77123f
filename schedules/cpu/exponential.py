"""exp and what is made of it, for float32.

    exp(x) = 2^n exp(r)        n the integer nearest to x / ln 2,  r = x - n ln 2

Where 2^n is normal for every x that counts it is one factor; over the whole range it takes two.
"""

from __future__ import annotations

import math

from tvm import tirx
from tvm.ir import Expr, Var

from .pieces import as_bits, as_float, f32, i32, let, polynomial, rounded, unlet, within

LOG2_E = math.log2(math.e)
# ln 2 in two parts: the first has zeros at its end, so that n * LN2_HIGH is exact.
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4

# exp(r) = 1 + r + r^2 (...) on |r| <= ln(2)/2, relative error 1.1e-7
EXP = (1.0, 1.0, 0.4999922513961792, 0.16667118668556213, 0.041890986263751984,
       0.00831243023276329)  # fmt: skip

# 2^r on |r| <= 1/2, relative error 1e-7
POWER = (1.0, 0.6931469776199699, 0.24022242162624582, 0.055507337754052755,
         0.009671507710107295, 0.0013264695031906676)  # fmt: skip

# Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits of the sum.
ROUND = 12582912.0
BIAS = 127
"""The exponent of 1.0 as the bits have it."""


def exp(x: Expr) -> Expr:
    """``2^n exp(r)``, limited to where n is -254 (0, without products that underflow) to 128."""
    return let(
        within(x, -2 * BIAS / LOG2_E, 88.8),
        lambda x: let(
            rounded(x * f32(LOG2_E) + f32(ROUND + 2 * BIAS)),
            lambda shifted: let(
                _remainder(x, shifted - f32(ROUND + 2 * BIAS)),
                lambda r: _scaled(polynomial(EXP, r), shifted),
                "r",
            ),
            "shifted",
        ),
        "x",
    )


def exp2(x: Expr) -> Expr:
    """``2^x = 2^n 2^r``, n the integer nearest to x."""

    def at(x: Expr, shifted: Expr) -> Expr:
        r = x - (shifted - f32(ROUND + 2 * BIAS))
        return let(r, lambda r: _scaled(polynomial(POWER, r), shifted), "r")

    def limited(x: Expr) -> Expr:
        return let(rounded(x + f32(ROUND + 2 * BIAS)), lambda shifted: at(x, shifted), "shifted")

    return let(within(x, -2.0 * BIAS, 128.0), limited, "x")


def exp2_of_negative(x: Expr) -> tuple[list[tuple[Var, Expr]], Expr]:
    """``2^x`` for x <= 0: scalars to bind first, in order, and the value.

    As a softmax needs it: results below 2^-126 are 0, and NaN stays NaN.
    """

    def at(x: Expr, shifted: Expr) -> Expr:
        r = x - (shifted - f32(ROUND + BIAS))
        return let(r, lambda r: polynomial(POWER, r) * _power(shifted), "r")

    def limited(x: Expr) -> Expr:
        return let(rounded(x + f32(ROUND + BIAS)), lambda shifted: at(x, shifted), "shifted")

    return unlet(let(tirx.max(f32(-BIAS), x), limited, "x"))


def exp_of_negative(x: Expr) -> Expr:
    """exp(x) for x <= 0, as a softmax needs it: results below 2^-126 are 0, and NaN stays NaN."""
    return _normal_exp(tirx.max(f32(-BIAS / LOG2_E), x))


def sigmoid(x: Expr) -> Expr:
    """``1 / (1 + exp(-x))``; exp(-x) may be infinite."""
    return f32(1.0) / (f32(1.0) + _normal_exp(f32(0.0) - within(x, -88.8, BIAS / LOG2_E)))


def _normal_exp(x: Expr) -> Expr:
    """exp(x) for -127 ln 2 <= x <= 128 ln 2: where 2^n is not normal it is 0 or infinity."""

    def at(x: Expr, shifted: Expr) -> Expr:
        r = _remainder(x, shifted - f32(ROUND + BIAS))
        return let(r, lambda r: polynomial(EXP, r) * _power(shifted), "r")

    return let(
        x,
        lambda x: let(
            rounded(x * f32(LOG2_E) + f32(ROUND + BIAS)), lambda shifted: at(x, shifted), "shifted"
        ),
        "x",
    )


def _power(shifted: Expr) -> Expr:
    """2^n where `shifted` is ROUND + 127 + n: the bits of ROUND are shifted out."""
    return as_float(as_bits(shifted) << i32(23))


def _remainder(x: Expr, n: Expr) -> Expr:
    return let(n, lambda n: x - n * f32(LN2_HIGH) - n * f32(LN2_LOW), "n")


def _scaled(value: Expr, shifted: Expr) -> Expr:
    """``value * 2^n`` in two steps; `shifted` is ROUND + 254 + n, -254 <= n <= 128.

    The bits of ROUND are shifted out. The halves are exact, so that the result is rounded once.
    """

    def scale(biased: Expr) -> Expr:
        half = biased >> i32(1)
        powers = [as_float(part << i32(23)) for part in (half, biased - half)]
        return value * powers[0] * powers[1]

    return let(as_bits(shifted), scale, "biased")
