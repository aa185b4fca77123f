"""Quantize and dequantize in elementwise operators, which every pass and layout knows.

quantize(x, s, z)    =  clip(round(x / s) + z)         halves to even
dequantize(v, s, z)  =  (v - z) * s                    exact: bytes are, in float32
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.frontends.reshape import reshape

from ..constants import constant
from ..rewrite import rewrite
from .operand import called, limited, stored, value_of


@tvm.transform.module_pass(opt_level=0, name="DecomposeQuantize")
class DecomposeQuantize:
    """Replace every quantize and dequantize of integers up to 32 bits."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if called(call, "quantize") and "int" in str(call.attrs.out_dtype):
            return self._quantize(call)
        if called(call, "dequantize") and "int" in str(call.args[0].ty.dtype):
            return self._dequantize(call)
        return call

    def _quantize(self, call: relax.Call) -> relax.Expr:
        emit, (x, scale, zero) = self.builder_.emit, call.args
        dtype = str(call.attrs.out_dtype)
        if str(x.ty.dtype) != "float32":
            x = emit(relax.op.astype(x, "float32"))
        units = emit(relax.op.divide(x, self._spread(call, scale, "float32")))
        known = value_of(zero, self.lookup_binding)
        if known is not None and known.size == 1:
            return stored(self.builder_, units, int(known.reshape(-1)[0]), dtype)
        whole = emit(relax.op.round(units))
        whole = emit(relax.op.add(whole, self._spread(call, zero, "float32")))
        limits = np.iinfo(dtype)
        clipped = limited(self.builder_, whole, float(limits.min), float(limits.max))
        return relax.op.astype(clipped, dtype)

    def _dequantize(self, call: relax.Call) -> relax.Expr:
        emit, (data, scale, zero) = self.builder_.emit, call.args
        between = "int32" if str(data.ty.dtype) == "int32" else "float32"
        exact = emit(relax.op.astype(data, between)) if between == "float32" else data
        if not self._is_zero(zero):
            exact = emit(relax.op.subtract(exact, self._spread(call, zero, between)))
        if between == "int32":
            exact = emit(relax.op.astype(exact, "float32"))
        real = relax.op.multiply(exact, self._spread(call, scale, "float32"))
        wanted = str(call.attrs.out_dtype)
        return real if wanted == "float32" else relax.op.astype(emit(real), wanted)

    def _is_zero(self, zero: relax.Expr) -> bool:
        known = value_of(zero, self.lookup_binding)
        return known is not None and not np.any(known)

    def _spread(self, call: relax.Call, term: relax.Expr, dtype: str) -> relax.Expr:
        """A scale or zero point against the data: a scalar, or a vector along the axis."""
        rank = call.ty.ndim
        shape = [1] * rank
        known = value_of(term, self.lookup_binding)
        if known is not None:
            if known.size == 1:
                return constant(known.astype(dtype).reshape(()))
            shape[int(call.attrs.axis)] = -1
            return constant(known.astype(dtype).reshape(shape))
        if str(term.ty.dtype) != dtype:
            term = self.builder_.emit(relax.op.astype(term, dtype))
        if term.ty.ndim == 0:
            return term
        length = term.ty.shape[0]
        one = getattr(length, "value", 0) == 1
        if not one:
            shape[int(call.attrs.axis)] = length
        return self.builder_.emit(reshape(term, [] if one else shape))
