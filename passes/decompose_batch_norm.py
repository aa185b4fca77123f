"""Write an inference-time batch norm with known statistics as one scale and one shift.

batch_norm(x)[0] = s * x + t,   s = gamma / sqrt(variance + epsilon),   t = beta - s * mean
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from .constants import constant, constant_values
from .rewrite import rewrite


@tvm.transform.module_pass(opt_level=0, name="DecomposeBatchNorm")
class DecomposeBatchNorm:
    """Replace the first result of every batch norm whose parameters are constants."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_tuple_getitem_(self, item: TupleGetItem) -> relax.Expr:
        item = self.visit_expr_post_order(item)
        norm = item.tuple_value
        if isinstance(norm, relax.Var):
            norm = self.lookup_binding(norm)
        if item.index != 0 or not _is_inference_batch_norm(norm):
            return item
        parameters = constant_values(norm.args[1:5], self.lookup_binding)
        if parameters is None:
            return item
        gamma, beta, mean, variance = parameters
        scale = 1 / np.sqrt(variance + np.asarray(norm.attrs.epsilon, variance.dtype))
        scale = scale * gamma if norm.attrs.scale else scale
        shift = (beta if norm.attrs.center else 0) - scale * mean
        x = norm.args[0]
        shape = [1] * x.ty.ndim
        shape[int(norm.attrs.axis)] = -1
        scaled = self.builder_.emit(relax.op.multiply(x, constant(scale.reshape(shape))))
        return relax.op.add(scaled, constant(shift.reshape(shape)))


def _is_inference_batch_norm(expr: relax.Expr | None) -> bool:
    if not isinstance(expr, relax.Call) or getattr(expr.op, "name", "") != "relax.nn.batch_norm":
        return False
    return not expr.attrs.training
