"""Write `stack`, which TVM's layout conversion crashes on, with the operators that it knows.

stack((x, y, ...), axis)   =   concat((expand_dims(x, axis), expand_dims(y, axis), ...), axis)
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax import op
from tvm.relax.expr_functor import PyExprMutator, mutator

from .rewrite import rewrite


@tvm.transform.module_pass(opt_level=0, name="DecomposeStack")
class DecomposeStack:
    """Replace every `stack` of a tuple of tensors."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        is_stack = getattr(call.op, "name", "") == "relax.stack"
        if not is_stack or not isinstance(call.args[0], relax.Tuple):
            return call
        parts = call.args[0].fields
        axis = int(call.attrs.axis or 0)
        axis += len(parts[0].ty.shape) + 1 if axis < 0 else 0
        return op.concat([self.builder_.emit(op.expand_dims(x, axis)) for x in parts], axis)
