"""Elementary functions of float32 as arithmetic that vectorizes.

LLVM calls the scalar math library for each lane of exp, log, erf, tanh, ...; the expressions here
are straight-line code of tens of instructions for a whole vector. Errors against the exact value
(tests/schedules/cpu/test_math.py samples all float32 bit patterns):

| function        | relative error below | holds for                                               |
|-----------------|----------------------|---------------------------------------------------------|
| exp, exp2       | 2e-7, 3e-7           | every x; denormal results within one denormal step      |
| sigmoid         | 4e-7                 | every x with a normal result                            |
| log, log2, log10| 3e-7                 | every x, denormals included (absolute 1e-7 beside 1)    |
| log1p           | 4e-7                 | every x                                                 |
| tanh            | 5e-7                 | every x                                                 |
| erf             | 5e-7                 | every x                                                 |
| rsqrt           | 2e-7                 | every x                                                 |
| pow(x, c)       | 4e-7                 | c a small integer or +-1/2; any other power is libm's   |

Infinities, zeros and NaN give what IEEE 754 and C say. sin and cos stay with libm: their argument
reduction over the whole range does not fit in a few instructions.

Coefficients: minimax fits in float64 by iteratively reweighted least squares (Lawson's algorithm),
made for this file. Range reductions: Cody and Waite, Software Manual for the Elementary Functions,
1980, chapters 5 and 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, PrimType, Var

from tvmext.arch import dtype_bits

from ..analysis import substitute

LOG2_E = math.log2(math.e)
# ln 2 in two parts: the first has zeros at its end, so that n * LN2_HIGH is exact.
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4

# exp(r) = 1 + r + r^2 EXP(r) on |r| <= ln(2)/2, relative error 3e-9
EXP = (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.008368735201656818,
       0.001381455920636654)  # fmt: skip
# log(1 + f) = f - f^2/2 + f^3 LOG(f) on sqrt(1/2) <= 1 + f <= sqrt(2), relative error 8e-10
LOG = (0.3333331346511841, -0.25000008940696716, 0.2000211924314499, -0.1666799634695053,
       0.14219552278518677, -0.1240558922290802, 0.11888162791728973, -0.11675651371479034,
       0.0674663856625557)  # fmt: skip
# erf(x) = x ERF_P(x^2) / ERF_Q(x^2) on |x| <= 3.92, relative error 2e-8; erf(3.92) is 1 - 3e-8
ERF_END = 3.92
ERF_P = (1.1283791065216064, 0.19038785994052887, 0.05274631455540657, 0.0037648435682058334,
         0.000284869282040745, 2.0502725419646595e-06)  # fmt: skip
ERF_Q = (1.0, 0.5020595788955688, 0.11410146951675415, 0.014967651106417179,
         0.0011623563477769494, 3.809295958490111e-05)  # fmt: skip
# tanh(x) = x TANH_P(x^2) / TANH_Q(x^2) on |x| <= 9.02, relative error 3e-8; tanh(9.02) rounds to 1
TANH_END = 9.02
TANH_P = (1.0, 0.13379739224910736, 0.003494059666991234, 2.0583858713507652e-05,
          1.3319523262111943e-08)  # fmt: skip
TANH_Q = (1.0, 0.46713054180145264, 0.025871170684695244, 0.0003283132391516119,
          7.762220093354699e-07)  # fmt: skip

Body = Callable[[Expr], Expr]


def approximate(expr: Expr) -> tuple[list[tuple[Var, Expr]], Expr]:
    """`expr` with calls of elementary functions on floats of at most 32 bits written out.

    Returns scalars to bind first, in order, and the value in terms of them. What is inside of a
    conditional expression stays as it is: bound outside, it would run unconditionally.
    """
    conditionals: dict[Var, Expr] = {}
    binds: list[tuple[Var, Expr]] = []

    def hide(call: Call) -> Expr:
        if getattr(call.op, "name", "") != "prim.if_then_else":
            return call
        hidden = Var("conditional", call.ty)
        conditionals[hidden] = call
        return hidden

    def bind(let: tirx.Let) -> Expr:
        binds.append((let.var, unlet(let.value)))
        return unlet(let.body)

    def unlet(expr: Expr) -> Expr:
        return tvm_ffi.structural_map(expr, (tirx.Let, bind), order="pre")

    expr = tvm_ffi.structural_map(expr, (Call, hide), order="pre")
    expr = unlet(tvm_ffi.structural_map(expr, (Call, _rewrite)))
    restored = [(var, substitute(value, conditionals)) for var, value in binds]
    return restored, substitute(expr, conditionals)


def _rewrite(call: Call) -> Expr:
    name = getattr(call.op, "name", "")
    if name == "tirx.pow":
        return _power(call)
    if name == "tirx.isnan":
        return isnan(call.args[0])
    function = FUNCTIONS.get(name)
    if function is None:
        return call
    dtype = str(call.args[0].ty.dtype)
    if dtype == "float32":
        return function(call.args[0])
    if dtype in ("float16", "bfloat16"):
        return function(call.args[0].astype("float32")).astype(call.ty.dtype)
    return call


# ------------------------------------------------------------------ pieces


def _f(value: float) -> Expr:
    return tirx.const(value, "float32")


def _i(value: int) -> Expr:
    return tirx.const(value, "int32")


def _let(value: Expr, body: Body, name: str = "t") -> Expr:
    """``body(value)`` with the value computed once."""
    if isinstance(value, Var | tirx.FloatImm):
        return body(value)
    var = Var(name, PrimType(value.ty.dtype))
    return tirx.Let(var, value, body(var))


def _polynomial(coefficients: Sequence[float], x: Expr) -> Expr:
    """Horner's rule, lowest power first."""
    result = _f(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result * x + _f(coefficient)
    return result


def _within(x: Expr, low: float, high: float) -> Expr:
    """`x` limited to low .. high; NaN stays NaN, because the limits come first."""
    return tirx.min(_f(high), tirx.max(_f(low), x))


def _bits(x: Expr) -> Expr:
    return tirx.reinterpret("int32", x)


def _float(bits: Expr) -> Expr:
    return tirx.reinterpret("float32", bits)


def _rounded(value: Expr) -> Expr:
    """`value`, such that TVM's simplifier does not cancel it: (x + c) - c rounds x on purpose."""
    return _float(_bits(value))


# Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits of the sum.
ROUND = 12582912.0
ROUND_BITS = 0x4B400000


def _scaled(value: Expr, shifted: Expr) -> Expr:
    """``value * 2^n`` where `shifted` is ROUND + n, -150 <= n <= 128, in two exact steps."""

    def power(n: Expr) -> Expr:
        return _float((n + _i(127)) << _i(23))

    def scale(n: Expr) -> Expr:
        return _let(n >> _i(1), lambda half: value * power(half) * power(n - half), "half")

    return _let(_bits(shifted) - _i(ROUND_BITS), scale, "n")


# ------------------------------------------------------------------ functions


def exp(x: Expr) -> Expr:
    """``exp(x) = 2^n exp(r)``, n the integer nearest to x / ln 2 and r = x - n ln 2."""

    def reduced(x: Expr) -> Expr:
        def at(shifted: Expr) -> Expr:
            def rest(n: Expr) -> Expr:
                r = x - n * _f(LN2_HIGH) - n * _f(LN2_LOW)
                return _let(r, lambda r: _scaled(_exp_near_zero(r), shifted), "r")

            return _let(shifted - _f(ROUND), rest, "n")

        return _let(_rounded(x * _f(LOG2_E) + _f(ROUND)), at, "shifted")

    def kept(x: Expr) -> Expr:
        # A product that underflows costs a hundred cycles: what is masked with -1e9 must not try.
        vanishes = x < _f(-104.0)
        limited = tirx.Select(vanishes, _f(0.0), tirx.min(_f(88.8), x))
        return tirx.Select(vanishes, _f(0.0), _let(limited, reduced, "x"))

    return _let(x, kept, "x")


def exp2(x: Expr) -> Expr:
    """``2^x = 2^n exp((x - n) ln 2)``, n the integer nearest to x."""

    def reduced(x: Expr) -> Expr:
        def at(shifted: Expr) -> Expr:
            r = (x - (shifted - _f(ROUND))) * _f(math.log(2))
            return _let(r, lambda r: _scaled(_exp_near_zero(r), shifted), "r")

        return _let(_rounded(x + _f(ROUND)), at, "shifted")

    return _let(_within(x, -150.0, 128.0), reduced, "x")


def _exp_near_zero(r: Expr) -> Expr:
    return _polynomial(EXP, r) * (r * r) + r + _f(1.0)


def sigmoid(x: Expr) -> Expr:
    """``1 / (1 + e)`` or ``e / (1 + e)`` with e = exp(-|x|), which never overflows."""

    def at(x: Expr) -> Expr:
        def divided(e: Expr) -> Expr:
            return tirx.Select(x < _f(0.0), e, _f(1.0)) / (e + _f(1.0))

        return _let(exp(_f(0.0) - tirx.abs(x)), divided, "e")

    return _let(x, at, "x")


def log(x: Expr) -> Expr:
    """``log(2^e m) = e ln 2 + log(m)`` with m between sqrt(1/2) and sqrt(2)."""
    return _log_with(x, lambda e, m: e * _f(LN2_LOW) + m + e * _f(LN2_HIGH))


def log2(x: Expr) -> Expr:
    """``log2(2^e m) = e + log(m) / ln 2``."""
    return _log_with(x, lambda e, m: m * _f(LOG2_E) + e)


def log10(x: Expr) -> Expr:
    """``log10(2^e m) = e log10(2) + log(m) / ln 10``."""
    return _log_with(x, lambda e, m: m * _f(math.log10(math.e)) + e * _f(math.log10(2)))


def _log_with(x: Expr, join: Callable[[Expr, Expr], Expr]) -> Expr:
    """``join(e, log(m))`` for x = 2^e m, and what is defined for numbers that are not positive."""
    smallest_normal, shift = 2.0**-126, 2.0**23

    def split(x: Expr) -> Expr:
        small = x < _f(smallest_normal)

        def of(bits: Expr) -> Expr:
            # From sqrt(1/2) up the exponent counts one more.
            def parts(moved: Expr) -> Expr:
                exponent = (moved >> _i(23)).astype("float32") - tirx.Select(
                    small, _f(23.0), _f(0.0)
                )
                mantissa = _float((moved & _i(0x7FFFFF)) + _i(SQRT_HALF_BITS)) - _f(1.0)
                return _let(mantissa, lambda f: join(exponent, _log_near_one(f)), "f")

            return _let(bits - _i(SQRT_HALF_BITS), parts, "moved")

        finite = _let(_bits(tirx.Select(small, x * _f(shift), x)), of, "bits")
        undefined = tirx.Select(x > _f(0.0), x, x * _f(math.nan))
        special = tirx.Select(x.equal(_f(0.0)), _f(-math.inf), undefined)
        return tirx.Select(tirx.And(x > _f(0.0), x < _f(math.inf)), finite, special)

    return _let(x, split, "x")


SQRT_HALF_BITS = 0x3F3504F3


def _log_near_one(f: Expr) -> Expr:
    """log(1 + f)"""
    return _let(f * f, lambda square: f + (_polynomial(LOG, f) * f - _f(0.5)) * square, "square")


def log1p(x: Expr) -> Expr:
    """``log(u) + (x - (u - 1)) / u`` with u = 1 + x rounded: the second term is what u lost."""

    def at(x: Expr) -> Expr:
        def with_u(u: Expr) -> Expr:
            lost = (x - (u - _f(1.0))) / u
            usual = tirx.And(x > _f(-1.0), x < _f(2.0**60))
            return log(u) + tirx.Select(usual, lost, _f(0.0))

        return tirx.Select(tirx.abs(x) < _f(2.0**-24), x, _let(_rounded(x + _f(1.0)), with_u, "u"))

    return _let(x, at, "x")


def tanh(x: Expr) -> Expr:
    """A rational function of the limited argument."""
    return _rational(x, TANH_END, TANH_P, TANH_Q)


def erf(x: Expr) -> Expr:
    """A rational function of the limited argument."""
    return _rational(x, ERF_END, ERF_P, ERF_Q)


def _rational(x: Expr, end: float, p: Sequence[float], q: Sequence[float]) -> Expr:
    """``x P(x^2) / Q(x^2)``, and plus or minus one from `end` on."""

    def at(x: Expr) -> Expr:
        def of(square: Expr) -> Expr:
            return x * _polynomial(p, square) / _polynomial(q, square)

        inside = _let(x * x, of, "square")
        return tirx.Select(x > _f(end), _f(1.0), tirx.Select(x < _f(-end), _f(-1.0), inside))

    return _let(x, at, "x")


def rsqrt(x: Expr) -> Expr:
    """One over the root, by the instructions for both."""
    return _f(1.0) / tirx.sqrt(x)


def nearbyint(x: Expr) -> Expr:
    """Round half to even: floats from 2^23 on are integers, below the sum with 2^23 is rounded."""
    limit = 2.0**23

    def at(x: Expr) -> Expr:
        positive = _rounded(x + _f(limit)) - _f(limit)
        negative = _rounded(x - _f(limit)) + _f(limit)
        rounded = tirx.Select(x < _f(0.0), negative, positive)
        return tirx.Select(tirx.abs(x) < _f(limit), rounded, x)

    return _let(x, at, "x")


def isnan(x: Expr) -> Expr:
    """The bits of NaN, but for the sign, are a larger number than those of infinity.

    TVM's simplifier takes ``x != x``, the usual test, to be false.
    """
    bits = dtype_bits(str(x.ty.dtype))
    kind = f"int{bits}"
    magnitude = tirx.reinterpret(kind, x) & tirx.const((1 << (bits - 1)) - 1, kind)
    return magnitude > tirx.reinterpret(kind, tirx.const(math.inf, x.ty.dtype))


def _power(call: Call) -> Expr:
    """Small integer and half powers by multiplication and roots."""
    x, exponent = call.args
    dtype = str(x.ty.dtype)
    if not isinstance(exponent, tirx.FloatImm) or dtype not in ("float32", "float64"):
        return call
    value = float(exponent.value)
    one = tirx.const(1.0, dtype)
    if abs(value) == 0.5:
        root = _let(x, _root, "x")
        return root if value > 0 else one / root
    if value.is_integer() and 1 <= abs(value) <= 4:
        power = _let(x, lambda x: _product(x, int(abs(value))), "x")
        return power if value > 0 else one / power
    return call


def _root(x: Expr) -> Expr:
    """sqrt(x), but infinity at -infinity, and 0.0 at -0.0, as pow(x, 0.5) has it."""
    dtype = str(x.ty.dtype)
    least = tirx.const(-math.inf, dtype)
    return tirx.Select(x.equal(least), tirx.abs(x), tirx.sqrt(x) + tirx.const(0.0, dtype))


def _product(x: Expr, count: int) -> Expr:
    if count == 4:
        return _let(x * x, lambda square: square * square, "square")
    result = x
    for _ in range(count - 1):
        result = result * x
    return result


FUNCTIONS: dict[str, Body] = {
    "tirx.exp": exp,
    "tirx.exp2": exp2,
    "tirx.sigmoid": sigmoid,
    "tirx.log": log,
    "prim.log2": log2,
    "tirx.log10": log10,
    "tirx.log1p": log1p,
    "tirx.tanh": tanh,
    "tirx.erf": erf,
    "tirx.rsqrt": rsqrt,
    "tirx.nearbyint": nearbyint,
}
