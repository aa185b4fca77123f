"""Elementary functions of float32 as arithmetic that vectorizes.

LLVM calls the scalar math library for each lane of exp, log, erf, tanh, ...; the expressions here
are straight-line code of tens of instructions for a whole vector. Errors against the exact value
(tests/schedules/cpu/test_math.py samples all float32 bit patterns):

| function        | relative error below | holds for                                               |
|-----------------|----------------------|---------------------------------------------------------|
| exp, exp2       | 3e-7                 | every x; denormal results within two denormal steps     |
| exp(min(x, 0))  | 3e-7                 | every x <= 0 (a softmax); results below 2^-126 are 0    |
| sigmoid         | 4e-7                 | every x with a normal result; those below that are 0    |
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
from collections.abc import Sequence

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, Var

from tvmext.arch import dtype_bits

from ..kernel.analysis import substitute
from .exponential import exp, exp2, exp_of_negative, sigmoid
from .logarithm import log, log1p, log2, log10
from .pieces import Body, f32, let, polynomial, rounded, unlet

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


def approximate(expr: Expr) -> tuple[list[tuple[Var, Expr]], Expr]:
    """`expr` with calls of elementary functions on floats of at most 32 bits written out.

    Returns scalars to bind first, in order, and the value in terms of them. What is inside of a
    conditional expression stays as it is: bound outside, it would run unconditionally.
    """
    conditionals: dict[Var, Expr] = {}

    def hide(call: Call) -> Expr:
        if getattr(call.op, "name", "") != "prim.if_then_else":
            return call
        hidden = Var("conditional", call.ty)
        conditionals[hidden] = call
        return hidden

    expr = tvm_ffi.structural_map(expr, (Call, hide), order="pre")
    binds, expr = unlet(tvm_ffi.structural_map(expr, (Call, _rewrite)))
    restored = [(var, substitute(value, conditionals)) for var, value in binds]
    return restored, substitute(expr, conditionals)


def vector_code(expr: Expr) -> list[Expr]:
    """The expressions that `expr` is computed with."""
    binds, value = approximate(expr)
    return [value, *(part for _, part in binds)]


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
        if name == "tirx.exp" and _at_most_zero(call.args[0]):
            return exp_of_negative(call.args[0].a)
        return function(call.args[0])
    if dtype in ("float16", "bfloat16"):
        return function(call.args[0].astype("float32")).astype(call.ty.dtype)
    return call


def _at_most_zero(x: Expr) -> bool:
    """Whether `x` is written as ``min(.., 0)``."""
    return isinstance(x, tirx.Min) and isinstance(x.b, tirx.FloatImm) and x.b.value == 0


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
            return x * polynomial(p, square) / polynomial(q, square)

        inside = let(x * x, of, "square")
        return tirx.Select(x > f32(end), f32(1.0), tirx.Select(x < f32(-end), f32(-1.0), inside))

    return let(x, at, "x")


def rsqrt(x: Expr) -> Expr:
    """One over the root, by the instructions for both."""
    return f32(1.0) / tirx.sqrt(x)


def nearbyint(x: Expr) -> Expr:
    """Round half to even: floats from 2^23 on are integers, below the sum with 2^23 is rounded."""
    limit = 2.0**23
    if _between(x, limit / 2):
        return rounded(x + f32(1.5 * limit)) - f32(1.5 * limit)

    def at(x: Expr) -> Expr:
        positive = rounded(x + f32(limit)) - f32(limit)
        negative = rounded(x - f32(limit)) + f32(limit)
        whole = tirx.Select(x < f32(0.0), negative, positive)
        return tirx.Select(tirx.abs(x) < f32(limit), whole, x)

    return let(x, at, "x")


def _between(x: Expr, limit: float) -> bool:
    """Whether `x` is written as something between ``-limit`` and ``limit``."""
    ends: dict[type, bool] = {}
    while isinstance(x, tirx.Max | tirx.Min) and isinstance(x.a, tirx.FloatImm):
        ends[type(x)] = abs(x.a.value) <= limit
        x = x.b
    return len(ends) == 2 and all(ends.values())


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
        root = let(x, _root, "x")
        return root if value > 0 else one / root
    if value.is_integer() and 1 <= abs(value) <= 4:
        power = let(x, lambda x: _product(x, int(abs(value))), "x")
        return power if value > 0 else one / power
    return call


def _root(x: Expr) -> Expr:
    """sqrt(x), but infinity at -infinity, and 0.0 at -0.0, as pow(x, 0.5) has it."""
    dtype = str(x.ty.dtype)
    least = tirx.const(-math.inf, dtype)
    return tirx.Select(x.equal(least), tirx.abs(x), tirx.sqrt(x) + tirx.const(0.0, dtype))


def _product(x: Expr, count: int) -> Expr:
    if count == 4:
        return let(x * x, lambda square: square * square, "square")
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
