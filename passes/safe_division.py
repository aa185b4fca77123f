"""No integer division ends the process.

    a / b    becomes    a / max(b, 1)                                        b is not negative
                        a / where(b == 0, 1, b)                              b a size
                        where(b == -1, 0 - a, a / where(b is 0 or -1, 1, b))        b data

A processor traps on a division by 0, and on that of the smallest integer by -1. ONNX does not say
what a division by 0 is, and ONNX Runtime stops with an error; here it is one by 1, so that a
remainder is 0. Where neither side is negative, the quotient is the processor's: TVM writes one that
rounds down out by cases of signs, and an operand that is a quotient itself once for each of them.
Runs after all that reasons about indices, on kernels and on the functions that compute shapes.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var

from .rewrite import rewrite_bodies
from .signs import Signs

QUOTIENTS = (tirx.Div, tirx.FloorDiv)
REMAINDERS = (tirx.Mod, tirx.FloorMod)


@tvm.transform.module_pass(opt_level=0, name="SafeDivision")
class SafeDivision:
    """Rewrites the integer divisions of every PrimFunc by what is not a constant."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite_bodies(mod, _safe)


def _safe(func: tirx.PrimFunc) -> tirx.Stmt:
    divisions: list[Any] = []
    tvm_ffi.structural_walk(func.body, ((*QUOTIENTS, *REMAINDERS), divisions.append))
    return _Divisions(func).safe() if any(map(_may_trap, divisions)) else func.body


def _may_trap(division: Any) -> bool:
    is_integer = str(division.ty.dtype).startswith(("int", "uint"))
    return is_integer and not isinstance(division.b, tirx.IntImm)


class _Divisions:
    """The divisions of one function."""

    def __init__(self, func: tirx.PrimFunc) -> None:
        self.body = func.body
        self.bound: set[Var] = set()
        tvm_ffi.structural_walk(func.body, (tirx.Bind, lambda bind: self.bound.add(bind.var)))
        self.not_negative = Signs(func)

    def safe(self) -> tirx.Stmt:
        """The body with divisions that do not trap."""
        return tvm_ffi.structural_map(self.body, ((*QUOTIENTS, *REMAINDERS), self._division))

    def _division(self, node: Any) -> Expr:
        if not _may_trap(node):
            return node
        dtype = str(node.ty.dtype)
        zero, one = tirx.const(0, dtype), tirx.const(1, dtype)
        if self.not_negative(node.b):
            kind = type(node)
            if self.not_negative(node.a):
                kind = tirx.Div if kind in QUOTIENTS else tirx.Mod
            return kind(node.a, tirx.Max(node.b, one))
        if dtype.startswith("uint") or not self._is_data(node.b):
            return type(node)(node.a, tirx.Select(node.b.equal(zero), one, node.b))
        minus = node.b.equal(tirx.const(-1, dtype))
        result = type(node)(node.a, tirx.Select(tirx.Or(node.b.equal(zero), minus), one, node.b))
        return tirx.Select(minus, zero - node.a, result) if isinstance(node, QUOTIENTS) else result

    def _is_data(self, expr: Expr) -> bool:
        found: list[Any] = []
        tvm_ffi.structural_walk(expr, (TensorLoad, found.append))
        tvm_ffi.structural_walk(
            expr, (Var, lambda var: found.append(var) if var in self.bound else None)
        )
        return bool(found)
