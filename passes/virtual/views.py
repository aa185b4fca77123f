"""Reshapes that no kernel took in become views of their operand.

    y = call_tir(view, (x,))     becomes     y = reshape(x, shape)

which the virtual machine runs without copying. TVM's RewriteDataflowReshape does this for whatever
looks like a reshape; it proves that anew for every kernel, and some symbolic shapes make it fail.
Only variables of a dataflow block: outside, the memory may be somebody else's.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from .emit import VIEW


@tvm.transform.module_pass(opt_level=0, name="Views")
class Views:
    """Rewrite the calls of functions that VirtualTensors marked as views, after fusion."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        views = {var for var, func in mod.functions_items() if (func.attrs or {}).get(VIEW, 0)}
        rewriter = _Rewriter(mod, views)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                rewriter.builder_.update_func(var, rewriter.visit_expr(func))
        return relax.transform.DeadCodeElimination()(rewriter.builder_.get())


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, views: set[tvm.ir.GlobalVar]) -> None:
        super().__init__(mod)
        self.views = views

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var, value = binding.var, binding.value
        if isinstance(var, relax.DataflowVar) and self._is_view(value):
            source = self.visit_expr(value.args[1].fields[0])
            reshaped = relax.op.reshape(source, var.ty.shape)
            self.set_var_remap(var, self.builder_.emit(reshaped, var.name))
        else:
            super().visit_var_binding_(binding)

    def _is_view(self, value: relax.Expr) -> bool:
        called = isinstance(value, relax.Call) and value.op.same_as(_CALL_TIR)
        return called and value.args[0] in self.views


_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
