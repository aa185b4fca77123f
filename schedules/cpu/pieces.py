"""What elementary functions are made of: constants, scalars computed once, bits of floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, PrimType, Var

Body = Callable[[Expr], Expr]


def f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def i32(value: int) -> Expr:
    return tirx.const(value, "int32")


def let(value: Expr, body: Body, name: str = "t") -> Expr:
    """``body(value)`` with the value computed once."""
    if isinstance(value, Var | tirx.FloatImm):
        return body(value)
    var = Var(name, PrimType(value.ty.dtype))
    return tirx.Let(var, value, body(var))


def polynomial(coefficients: Sequence[float], x: Expr) -> Expr:
    """Horner's rule, lowest power first."""
    result = f32(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result * x + f32(coefficient)
    return result


def within(x: Expr, low: float, high: float) -> Expr:
    """`x` limited to low .. high; NaN stays NaN, because the limits come first."""
    return tirx.min(f32(high), tirx.max(f32(low), x))


def as_bits(x: Expr) -> Expr:
    return tirx.reinterpret("int32", x)


def as_float(bits: Expr) -> Expr:
    return tirx.reinterpret("float32", bits)


def rounded(value: Expr) -> Expr:
    """`value`, such that TVM's simplifier does not cancel it: (x + c) - c rounds x on purpose."""
    return as_float(as_bits(value))


def unlet(expr: Expr) -> tuple[list[tuple[Var, Expr]], Expr]:
    """The scalars that `expr` computes once, in order, and the value in terms of them."""
    binds: list[tuple[Var, Expr]] = []

    def bind(let: tirx.Let) -> Expr:
        binds.append((let.var, inside(let.value)))
        return inside(let.body)

    def inside(expr: Expr) -> Expr:
        return tvm_ffi.structural_map(expr, (tirx.Let, bind), order="pre")

    return binds, inside(expr)
