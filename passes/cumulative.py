"""Write cumulative sums and products as the reductions that they are, for GPUs.

cumsum(x)[i, k]   =   sum of x[i, r] for r <= k          (r < k where it is exclusive)

A schedule rule sees that one follows from the other (schedules/cuda/scan.py). TVM's own kernel for
sums along the last axis lets threads of a warp read what others are writing, without a barrier.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.ir import Expr
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.frontends.reshape import reshape

from .rewrite import rewrite

_OPS: dict[str, tuple[Callable[[Expr, Expr], Expr], int]] = {
    "relax.cumsum": (lambda a, b: a + b, 0),
    "relax.cumprod": (lambda a, b: a * b, 1),
}
"""{operator: (what combines, what it begins with)}"""


@tvm.transform.module_pass(opt_level=0, name="CumulativeReductions")
class CumulativeReductions:
    """Lower every `cumsum` and `cumprod` over a tensor of known rank."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        name = getattr(call.op, "name", "")
        if name not in _OPS or not isinstance(call.args[0].ty.shape, relax.ShapeExpr):
            return call
        tensor, axis = call.args[0], call.attrs.axis
        if axis is None:
            sizes = list(tensor.ty.shape.values)
            flat = reshape(tensor, [prod(sizes, start=tirx.IntImm("int64", 1))])
            tensor, axis = self.builder_.emit(flat), 0
        dtype = str(call.ty.dtype)
        attrs = int(axis), dtype, bool(call.attrs.exclusive)
        hint = name.removeprefix("relax.")
        return self.builder_.call_te(_running, tensor, name, *attrs, primfunc_name_hint=hint)


def _running(x: te.Tensor, name: str, axis: int, dtype: str, exclusive: bool) -> te.Tensor:
    combine, identity = _OPS[name]
    reducer = te.comm_reducer(combine, lambda kind: tirx.const(identity, kind), name="running")
    axis %= x.ndim

    def element(*at: Expr) -> Expr:
        count = at[axis] if exclusive else at[axis] + 1
        before = te.reduce_axis((0, count), "before")
        return reducer(x(*at[:axis], before, *at[axis + 1 :]).astype(dtype), axis=before)

    return te.compute(x.shape, element, name="running")
