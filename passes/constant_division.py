"""Divisions by the constant 0, which TVM refuses to write down, and products with it.

x / 0 = x * inf    x mod 0 = x * NaN        floats, as IEEE 754 has it
x / 0 = x          x mod 0 = x * 0          integers, as in safe_division.py
x * 0 = 0 of the sign of x, or NaN          floats: TVM makes 0 of what is not finite, too
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr, GenericConst, Op

from tvmext.arch import dtype_bits

Lowering = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]


def _lowering(name: str, of_floats: float, of_integers: int) -> Lowering:
    original: Lowering = Op.get(name).get_attr("FLegalize")

    def lower(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        x, divisor = call.args
        if not isinstance(divisor, GenericConst) or divisor.ty.ndim:
            return original(builder, call)
        value, dtype = divisor.value.numpy(), str(divisor.ty.dtype)
        if value != 0:
            return original(builder, call)
        if dtype.startswith(("float", "bfloat")):
            factor = math.copysign(of_floats, float(value))
        else:
            factor = of_integers
        product = relax.op.multiply(x, relax.const(np.asarray(factor, value.dtype), dtype))
        return builder.normalize(product)

    return lower


def _multiply(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Floats by a zero: TVM would drop the other factor, and find a division by 0 behind it."""
    dtype, zeros = str(call.ty.dtype), list(map(_is_zero, call.args))
    if not dtype.startswith("float") or True not in zeros:
        return Op.get("relax.multiply").get_attr("FLegalize")(builder, call)
    x, zero = call.args if zeros[1] else call.args[::-1]
    bits, integer = dtype_bits(dtype), f"uint{dtype_bits(dtype)}"
    sign = tirx.const(1 << (bits - 1), integer)
    turned = bool(np.signbit(zero.value.numpy()))
    limit, nan = tirx.max_value(dtype), tirx.const(math.nan, dtype)

    def element(value: Expr) -> Expr:
        own = tirx.bitwise_and(tirx.reinterpret(integer, value), sign)
        result = tirx.reinterpret(dtype, tirx.bitwise_xor(own, sign) if turned else own)
        finite = tirx.And(value <= limit, value >= -limit)
        return tirx.Select(finite, result, nan)

    def product(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *at: element(x(*at)), name="multiply")

    return builder.call_te(product, x, primfunc_name_hint="multiply")


def _is_zero(expr: relax.Expr) -> bool:
    return isinstance(expr, GenericConst) and not expr.ty.ndim and not np.any(expr.value.numpy())


LOWERINGS = {
    "relax.divide": _lowering("relax.divide", math.inf, 1),
    "relax.floor_divide": _lowering("relax.floor_divide", math.inf, 1),
    "relax.mod": _lowering("relax.mod", math.nan, 0),
    "relax.multiply": _multiply,
    "relax.floor_mod": _lowering("relax.floor_mod", math.nan, 0),
}
"""{operator: lowering}."""
