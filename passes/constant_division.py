"""Divisions by the constant 0, which TVM refuses to write down.

x / 0 = x * inf    x mod 0 = x * NaN        floats, as IEEE 754 has it
x / 0 = x          x mod 0 = x * 0          integers, as in safe_division.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from tvm import relax
from tvm.ir import GenericConst, Op

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


LOWERINGS = {
    "relax.divide": _lowering("relax.divide", math.inf, 1),
    "relax.floor_divide": _lowering("relax.floor_divide", math.inf, 1),
    "relax.mod": _lowering("relax.mod", math.nan, 0),
    "relax.floor_mod": _lowering("relax.floor_mod", math.nan, 0),
}
"""{operator: lowering}."""
