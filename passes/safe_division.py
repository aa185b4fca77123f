"""No integer division ends the process.

    a / b    becomes    a / where(b == 0, 1, b)                                     b a size
                        where(b == -1, 0 - a, a / where(b is 0 or -1, 1, b))        b data

A processor traps on a division by 0, and on that of the smallest integer by -1. ONNX does not say
what a division by 0 is, and ONNX Runtime stops with an error; here it is one by 1, so that a
remainder is 0. Runs after all that reasons about indices, on kernels and on the functions that
compute shapes.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var

from .rewrite import rewrite_bodies

QUOTIENTS = (tirx.Div, tirx.FloorDiv)
REMAINDERS = (tirx.Mod, tirx.FloorMod)


@tvm.transform.module_pass(opt_level=0, name="SafeDivision")
class SafeDivision:
    """Rewrites the integer divisions of every PrimFunc by what is not a constant."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite_bodies(mod, lambda func: _safe(func.body))


def _safe(body: tirx.Stmt) -> tirx.Stmt:
    bound: set[Var] = set()
    tvm_ffi.structural_walk(body, (tirx.Bind, lambda bind: bound.add(bind.var)))

    def is_data(expr: Expr) -> bool:
        found: list[Any] = []
        tvm_ffi.structural_walk(expr, (TensorLoad, found.append))
        tvm_ffi.structural_walk(
            expr, (Var, lambda var: found.append(var) if var in bound else None)
        )
        return bool(found)

    def visit(node: Any) -> Expr:
        dtype = str(node.ty.dtype)
        if isinstance(node.b, tirx.IntImm) or not dtype.startswith(("int", "uint")):
            return node
        zero, one = tirx.const(0, dtype), tirx.const(1, dtype)
        if dtype.startswith("uint") or not is_data(node.b):
            return type(node)(node.a, tirx.Select(node.b.equal(zero), one, node.b))
        minus = node.b.equal(tirx.const(-1, dtype))
        result = type(node)(node.a, tirx.Select(tirx.Or(node.b.equal(zero), minus), one, node.b))
        return tirx.Select(minus, zero - node.a, result) if isinstance(node, QUOTIENTS) else result

    return tvm_ffi.structural_map(body, ((*QUOTIENTS, *REMAINDERS), visit))
