"""Reshapes that no kernel took in become views of their operand.

    y = call_tir(view, (x,))     becomes     y = reshape(x, shape)

which the virtual machine runs without copying. TVM's RewriteDataflowReshape does this for whatever
looks like a reshape; it proves that anew for every kernel, and fails on some symbolic shapes, and
on dims of 0, which it takes for those of the operand.
What leaves its dataflow block is a view only of what a kernel wrote for nobody else: an output must
not be the memory of an input, of a weight or of another output.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.frontends.reshape import reshape

from .emit import VIEW


@tvm.transform.module_pass(opt_level=0, name="Views")
class Views:
    """Rewrite the calls of functions that are marked as views, after fusion."""

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
        self.values: dict[relax.Var, relax.Expr] = {}
        self.left: set[relax.Var] = set()

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var, value = binding.var, binding.value
        self.values[var] = value
        inside = isinstance(var, relax.DataflowVar)
        if not self._is_view(value) or not (inside or self._may_leave(value)):
            super().visit_var_binding_(binding)
            return
        source = self.visit_expr(value.args[1].fields[0])
        reshaped = reshape(source, var.ty.shape)
        emit = self.builder_.emit if inside else self.builder_.emit_output
        self.set_var_remap(var, emit(reshaped, var.name))

    def _may_leave(self, view: relax.Call) -> bool:
        """Whether the memory of a view may be an output's, and be no other one's."""
        root = self._root(view)
        value = self.values.get(root)
        own = isinstance(root, relax.DataflowVar) and root not in self.left
        made = isinstance(value, relax.Call) and value.op.same_as(_CALL_TIR)
        if not (own and made and self.builder_.current_block_is_dataflow()):
            return False
        self.left.add(root)
        return True

    def _root(self, view: relax.Call) -> relax.Expr:
        """What a view is a view of in the end."""
        source = view.args[1].fields[0]
        value = self.values.get(source)
        return self._root(value) if self._is_view(value) else source

    def _is_view(self, value: Any) -> bool:
        called = isinstance(value, relax.Call) and value.op.same_as(_CALL_TIR)
        return called and value.args[0] in self.views


_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
