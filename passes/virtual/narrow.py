"""Compute only what is read: slices go up through products, norms and whatever works by rows.

    y = matmul(x, w)                       t = matmul(x[:, 0:1], w)
    z = y[:, 0]             becomes        y = broadcast_to(t, ..)
                                           z = y[:, 0]

What nobody reads of `y` may be anything; the movement that is added cancels when maps are composed
(virtualize.py). So the last layer of a network whose class token alone is read computes that one
token.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax import op
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..rewrite import rewrite
from .demand import Demand
from .rows import Box, operands
from .rules import rule_of


@tvm.transform.module_pass(opt_level=1, name="NarrowRows")
class NarrowRows:
    """Narrow every operator of which a part is read, unless that part is an epilogue's own.

    An elementwise operator on what one other makes for it alone is best done there: it is narrowed
    if that one is.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(rewrite(mod, _Rewriter(mod)))


@mutator
class _Rewriter(PyExprMutator):
    demand: Demand

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.parts: dict[relax.Var, tuple[Box, relax.Var]] = {}

    def visit_dataflow_block_(self, block: relax.DataflowBlock) -> relax.BindingBlock:
        self.demand = Demand(block)
        return super().visit_dataflow_block_(block)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var = binding.var
        box = self.demand.part(var) if isinstance(var, relax.DataflowVar) else None
        if box is None or any(map(self._computed_whole, binding.value.args)):
            super().visit_var_binding_(binding)
            return
        call, prims = binding.value, self.demand.prims
        args = [arg if isinstance(arg, relax.Var) else self.visit_expr(arg) for arg in call.args]
        for place, part in operands(call, box, prims) or ():
            args[place] = self._part(call.args[place], part)
        made = self.builder_.emit(relax.Call(call.op, args, call.attrs), var.name)
        self.parts[var] = box, made
        self.set_var_remap(var, self.builder_.emit(self._restored(made, box, var.ty), var.name))

    def _computed_whole(self, expr: relax.Expr) -> bool:
        """Whether an operand is computed for one reader, more of it than that reads."""
        value = self.demand.values.get(expr)
        if not isinstance(value, relax.Call) or self.demand.readers[expr] > 1:
            return False
        return self._computed_whole(value.args[0]) if rule_of(value) else expr not in self.parts

    def _part(self, expr: relax.Expr, box: Box) -> relax.Expr:
        """A box of an operand."""
        known, made = self.parts.get(expr, (None, None))
        if known == box:
            return made
        prims = self.demand.prims
        source, shape = self.visit_expr(expr), prims.shape(expr.ty)
        axes = [k for k, size in enumerate(shape) if box[k] != (0, size)]
        if not axes:
            return source
        begins = prims.prim_shape(box[k][0] for k in axes)
        ends = prims.prim_shape(box[k][0] + box[k][1] for k in axes)
        return self.builder_.emit(op.strided_slice(source, axes, begins, ends, assume_inbound=True))

    def _restored(self, part: relax.Var, box: Box, ty: relax.TensorType) -> relax.Expr:
        """A tensor of the type whose box is the part."""
        shape = self.demand.prims.shape(ty)
        widths = [
            width
            for (begin, extent), size in zip(box, shape)
            for width in ((0, 0) if extent in (1, size) else (begin, size - begin - extent))
        ]
        if any(widths):
            part = self.builder_.emit(op.nn.pad(part, widths))
        single = any(extent == 1 != size for (_, extent), size in zip(box, shape))
        return op.broadcast_to(part, ty.shape) if single else part
