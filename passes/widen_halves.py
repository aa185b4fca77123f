"""Half types store, float32 adds up: a product of halves keeps its sum in float32.

matmul(x, w) -> float16     =     astype(matmul(x, w) -> float32, float16)
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from .rewrite import rewrite

HALVES = ("float16", "bfloat16")


@tvm.transform.module_pass(opt_level=0, name="WidenHalves")
class WidenHalves:
    """Rewrite every matmul of float16 or bfloat16."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if getattr(call.op, "name", "") != "relax.matmul":
            return call
        kind = str(call.args[0].ty.dtype)
        if kind not in HALVES or str(call.args[1].ty.dtype) != kind:
            return call
        wide = self.builder_.emit(relax.op.matmul(*call.args, out_dtype="float32"))
        return relax.op.astype(wide, kind)
