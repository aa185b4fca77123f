"""Quantize to uint8 instead of int8: what processors multiply fastest, with zeros where ReLUs end.

    quantize(x, s, z) -> int8        becomes    quantize(x, s, z + 128) -> uint8, moved by -128
    dequantize(v moved by -128, s, z)           dequantize(v, s, z + 128)

The move is dead code between the two, which is where quantized networks in QDQ form have nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..constants import constant
from ..rewrite import rewrite
from .operand import bound, called, moved, value_of


@tvm.transform.module_pass(opt_level=1, name="UnsignedActivations")
class UnsignedActivations:
    """Rewrite every pair of quantize and dequantize with known zero points."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        lookup = self.lookup_binding
        if called(call, "quantize") and str(call.attrs.out_dtype) == "int8":
            zero = value_of(call.args[2], lookup)
            if zero is not None:
                args = (*call.args[:2], _raised(zero), call.attrs.axis, "uint8")
                return moved(self.builder_, self.builder_.emit(relax.op.quantize(*args)), "int8")
        if called(call, "dequantize") and str(call.args[0].ty.dtype) == "int8":
            zero, source = value_of(call.args[2], lookup), self._unmoved(call.args[0])
            if zero is not None and source is not None:
                return relax.op.dequantize(
                    source, call.args[1], _raised(zero), call.attrs.axis, call.attrs.out_dtype
                )
        return call

    def _unmoved(self, data: relax.Expr) -> relax.Expr | None:
        """``v`` if `data` is what ``moved(v, "int8")`` emits."""
        cast = bound(data, self.lookup_binding)
        if not called(cast, "astype"):
            return None
        turned = bound(cast.args[0], self.lookup_binding)
        if not called(turned, "bitwise_xor"):
            return None
        bits = value_of(turned.args[1], self.lookup_binding)
        return turned.args[0] if bits is not None and bits.size == 1 and bits == 128 else None


def _raised(zero: np.ndarray) -> relax.Expr:
    return constant((zero.astype(np.int16) + 128).astype(np.uint8))
