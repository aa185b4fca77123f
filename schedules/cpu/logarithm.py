"""Logarithms of float32 from a polynomial on sqrt(1/2) .. sqrt(2)."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr

from .exponential import LN2_HIGH, LN2_LOW, LOG2_E
from .pieces import as_bits, as_float, f32, i32, let, polynomial, rounded

# log(1 + f) = f - f^2/2 + f^3 LOG(f) on sqrt(1/2) <= 1 + f <= sqrt(2), relative error 8e-10
LOG = (0.3333331346511841, -0.25000008940696716, 0.2000211924314499, -0.1666799634695053,
       0.14219552278518677, -0.1240558922290802, 0.11888162791728973, -0.11675651371479034,
       0.0674663856625557)  # fmt: skip


def log(x: Expr) -> Expr:
    """``log(2^e m) = e ln 2 + log(m)`` with m between sqrt(1/2) and sqrt(2)."""
    return _log_with(x, lambda e, m: e * f32(LN2_LOW) + m + e * f32(LN2_HIGH))


def log2(x: Expr) -> Expr:
    """``log2(2^e m) = e + log(m) / ln 2``."""
    return _log_with(x, lambda e, m: m * f32(LOG2_E) + e)


def log10(x: Expr) -> Expr:
    """``log10(2^e m) = e log10(2) + log(m) / ln 10``."""
    return _log_with(x, lambda e, m: m * f32(math.log10(math.e)) + e * f32(math.log10(2)))


def _log_with(x: Expr, join: Callable[[Expr, Expr], Expr]) -> Expr:
    """``join(e, log(m))`` for x = 2^e m, and what is defined for numbers that are not positive."""
    smallest_normal, shift = 2.0**-126, 2.0**23

    def split(x: Expr) -> Expr:
        small = x < f32(smallest_normal)

        def of(bits: Expr) -> Expr:
            # From sqrt(1/2) up the exponent counts one more.
            def parts(moved: Expr) -> Expr:
                exponent = (moved >> i32(23)).astype("float32") - tirx.Select(
                    small, f32(23.0), f32(0.0)
                )
                mantissa = as_float((moved & i32(0x7FFFFF)) + i32(SQRT_HALF_BITS)) - f32(1.0)
                return let(mantissa, lambda f: join(exponent, _log_near_one(f)), "f")

            return let(bits - i32(SQRT_HALF_BITS), parts, "moved")

        finite = let(as_bits(tirx.Select(small, x * f32(shift), x)), of, "bits")
        undefined = tirx.Select(x > f32(0.0), x, x * f32(math.nan))
        special = tirx.Select(x.equal(f32(0.0)), f32(-math.inf), undefined)
        return tirx.Select(tirx.And(x > f32(0.0), x < f32(math.inf)), finite, special)

    return let(x, split, "x")


SQRT_HALF_BITS = 0x3F3504F3


def _log_near_one(f: Expr) -> Expr:
    """log(1 + f)"""
    return let(f * f, lambda square: f + (polynomial(LOG, f) * f - f32(0.5)) * square, "square")


def log1p(x: Expr) -> Expr:
    """``log(u) + (x - (u - 1)) / u`` with u = 1 + x rounded: the second term is what u lost."""

    def at(x: Expr) -> Expr:
        def with_u(u: Expr) -> Expr:
            lost = (x - (u - f32(1.0))) / u
            usual = tirx.And(x > f32(-1.0), x < f32(2.0**60))
            return log(u) + tirx.Select(usual, lost, f32(0.0))

        return tirx.Select(tirx.abs(x) < f32(2.0**-24), x, let(rounded(x + f32(1.0)), with_u, "u"))

    return let(x, at, "x")
