"""Move elements while they are bytes: dequantize goes below operators that only move or select.

move(dequantize(v))                  =   dequantize(move(v))
quantize(dequantize(v, s, z), s, z)  =   v
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..rewrite import rewrite
from .operand import bound, called, value_of

_MOVES = frozenset(
    f"relax.{name}"
    for name in (
        "broadcast_to",
        "expand_dims",
        "flatten",
        "nn.max_pool1d",
        "nn.max_pool2d",
        "nn.max_pool3d",
        "permute_dims",
        "reshape",
        "squeeze",
        "strided_slice",
        "take",
    )
)
"""Operators that move or select elements of their first argument; scales are positive."""


@tvm.transform.module_pass(opt_level=1, name="SinkDequantize")
class SinkDequantize:
    """Sink every dequantize of one scale; those of a vector through transpositions."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if called(call, "concat") and isinstance(call.args[0], relax.Tuple):
            return self._concat(call)
        if not call.args or not isinstance(call.args[0], relax.Expr):
            return call
        below = bound(call.args[0], self.lookup_binding)
        if not called(below, "dequantize"):
            return call
        if called(call, "quantize"):
            return below.args[0] if self._inverse(call, below) else call
        axis = self._axis(call, below)
        if axis is None:
            return call
        args = [below.args[0], *call.args[1:]]
        moved = self.builder_.emit(relax.Call(call.op, args, call.attrs, call.ty_args))
        return relax.op.dequantize(moved, *below.args[1:], axis, below.attrs.out_dtype)

    def _axis(self, call: relax.Call, below: relax.Call) -> int | None:
        """The axis of the parameters after `call`, or None if it is not to be exchanged."""
        if getattr(call.op, "name", "") not in _MOVES:
            return None
        scale = value_of(below.args[1], self.lookup_binding)
        zero = value_of(below.args[2], self.lookup_binding)
        if scale is None or zero is None or np.any(scale <= 0):
            return None
        if scale.size == zero.size == 1:
            return 0
        rank, axis = below.ty.ndim, int(below.attrs.axis)
        if called(call, "permute_dims"):
            axes = call.attrs.axes
            order = [int(a) for a in axes] if axes is not None else list(range(rank))[::-1]
            return order.index(axis % rank)
        long = [i for i, dim in enumerate(call.ty.shape) if getattr(dim, "value", 0) != 1]
        return long[0] if called(call, "reshape") and rank == 1 and len(long) == 1 else None

    def _inverse(self, call: relax.Call, below: relax.Call) -> bool:
        """Whether quantizing gives back what was dequantized."""
        if str(call.attrs.out_dtype) != str(below.args[0].ty.dtype):
            return False
        return self._parameters(call) == self._parameters(below) is not None

    def _parameters(self, call: relax.Call) -> tuple[bytes, int] | None:
        """One scale and one zero point, to compare them."""
        scale, zero = (value_of(arg, self.lookup_binding) for arg in call.args[1:3])
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return None
        return scale.astype(np.float32).tobytes(), int(zero.reshape(-1)[0])

    def _concat(self, call: relax.Call) -> relax.Expr:
        parts = [bound(part, self.lookup_binding) for part in call.args[0].fields]
        if not all(called(part, "dequantize") for part in parts):
            return call
        kinds = {(self._parameters(part), str(part.args[0].ty.dtype)) for part in parts}
        if len(kinds) != 1 or (None, str(parts[0].args[0].ty.dtype)) in kinds:
            return call
        joined = relax.op.concat([part.args[0] for part in parts], call.attrs.axis)
        first = parts[0]
        return relax.op.dequantize(
            self.builder_.emit(joined), *first.args[1:], 0, first.attrs.out_dtype
        )
