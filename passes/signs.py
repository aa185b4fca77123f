"""Which integers of a function are never negative.

A dim of a tensor is not, nor what sums, products, quotients, maxima and the like make of such: a
loop over them, a scalar, a buffer of the function's own if nothing negative is stored there.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var
from tvm.tirx import PrimFunc

_OF_BOTH = (tirx.Add, tirx.Mul, tirx.Min, tirx.FloorDiv, tirx.Div, tirx.FloorMod, tirx.Mod)
_OF_EITHER = (tirx.Max, tirx.BitwiseAnd)
_DEFINING = (tirx.Bind, tirx.For, tirx.IterVar)


class Signs:
    """The signs of the integers of one function."""

    def __init__(self, func: PrimFunc) -> None:
        self._sizes = _dims(func)
        self._values = _values(func.body)
        # What follows from itself holds: nothing is negative before something negative is stored.
        self._assumed = set(self._values)
        while wrong := {var for var in self._assumed if not all(map(self, self._values[var]))}:
            self._assumed -= wrong

    def __call__(self, expr: Expr) -> bool:
        """Whether an integer expression of the function is known not to be negative."""
        if isinstance(expr, tirx.IntImm):
            return int(expr.value) >= 0
        if isinstance(expr, Var):
            return expr in self._sizes or expr in self._assumed
        if isinstance(expr, TensorLoad):
            return expr.source in self._assumed
        if isinstance(expr, _OF_BOTH):
            return self(expr.a) and self(expr.b)
        if isinstance(expr, _OF_EITHER):
            return self(expr.a) or self(expr.b)
        if isinstance(expr, tirx.RShift):
            return self(expr.a)
        if isinstance(expr, tirx.Cast):
            wider = (str(expr.value.ty.dtype), str(expr.ty.dtype)) == ("int32", "int64")
            return wider and self(expr.value)
        if isinstance(expr, tirx.Select):
            return self(expr.true_value) and self(expr.false_value)
        return False


def _dims(func: PrimFunc) -> set[Var]:
    """The variables that are dims of tensors."""
    buffers = [param for param in func.params if tirx.is_buffer_var(param)]
    return {dim for buffer in buffers for dim in buffer.shape if isinstance(dim, Var)}


def _values(body: tirx.Stmt) -> dict[Var, list[Expr]]:
    """What scalars hold, loops begin with, and what is stored in the function's own buffers."""
    values: dict[Var, list[Expr]] = defaultdict(list)
    own: set[Var] = set()
    found: list[Any] = []
    tvm_ffi.structural_walk(body, (tirx.AllocBuffer, lambda made: own.add(made.buffer)))
    tvm_ffi.structural_walk(body, ((*_DEFINING, tirx.BufferStore, Call), found.append))
    for node in found:
        if isinstance(node, tirx.Bind):
            values[node.var].append(node.value)
        elif isinstance(node, tirx.For):
            values[node.loop_var].append(node.min)
        elif isinstance(node, tirx.IterVar):
            values[node.var].append(node.dom.min if node.dom else tirx.IntImm("int64", -1))
        elif isinstance(node, tirx.BufferStore):
            values[node.buffer].append(node.value)
        else:  # it may keep the address of a buffer, and store there
            tvm_ffi.structural_walk(list(node.args), (Var, own.discard))
    return {var: kept for var, kept in values.items() if not tirx.is_buffer_var(var) or var in own}
