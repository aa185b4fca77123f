"""A compiler with a pass that is wrong, as the child process of a compilation runs it."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext import api
from tvmext.passes import pipeline


@mutator
class _Negate(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if getattr(call.op, "name", "") != "relax.nn.relu":
            return call
        return relax.op.nn.relu(self.builder_.emit(relax.op.negative(call.args[0])))


@tvm.transform.module_pass(opt_level=0, name="FoldAffine")
class Planted:
    """``relu(x)`` becomes ``relu(-x)``."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        rewriter = _Negate(mod)
        rewriter.builder_.update_func(mod.get_global_var("main"), rewriter.visit_expr(mod["main"]))
        return rewriter.builder_.get()


def compile_here(*arguments: Any) -> None:
    pipeline.FoldAffine = Planted
    api.compile_here(*arguments)
