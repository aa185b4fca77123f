"""Recurrent networks whose initial states are zeros write them by themselves.

    h0 = zeros(..);  y, hn = gru(x, r, h0)        becomes        y, hn = gru'(x, r)

Known sizes make the zeros a constant; where the batch is free, a kernel would have to fill them in
at every run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst, GlobalVar
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.frontends.recurrence import FORM, Form, kernel

from .rewrite import rewrite

MOVES = frozenset(
    f"relax.{name}"
    for name in (
        "broadcast_to",
        "dynamic_strided_slice",
        "expand_dims",
        "permute_dims",
        "reshape",
        "squeeze",
        "strided_slice",
    )
)
"""Operators that make no value: of zeros they make zeros."""


@tvm.transform.module_pass(opt_level=0, name="ZeroStates")
class ZeroStates:
    """Drop the initial states of recurrent kernels where all are zeros."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        changed = rewrite(mod, _Rewriter(mod))
        return relax.transform.DeadCodeElimination()(changed)


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.mod = mod
        self.functions: dict[GlobalVar, GlobalVar] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        form = self._form(call)
        if form is None or form.from_zero:
            return call
        args = dict(zip(form.operands, call.args[1].fields))
        if not all(self._is_zero(args[start]) for start in form.starts.values()):
            return call
        zeroed = replace(form, from_zero=True)
        function = self._function(call.args[0], zeroed)
        operands = relax.Tuple([args[name] for name in zeroed.operands])
        return relax.Call(call.op, [function, operands, *call.args[2:]], call.attrs, call.ty_args)

    def _form(self, call: relax.Call) -> Form | None:
        if getattr(call.op, "name", "") != "relax.call_tir":
            return None
        text = (self.mod[call.args[0]].attrs or {}).get(FORM)
        return None if text is None else Form.from_json(str(text))

    def _function(self, old: GlobalVar, form: Form) -> GlobalVar:
        """The kernel of a form in place of `old`, which differs in its initial states."""
        if old not in self.functions:
            x = self.mod[old].params[0]
            steps, batch, _, _, hidden = (
                int(n.value) if isinstance(n, tvm.tirx.IntImm) else None for n in x.shape
            )
            assert hidden is not None
            made = kernel(form, steps, batch, hidden, str(x.dtype))
            self.functions[old] = self.builder_.add_func(made, old.name_hint)
        return self.functions[old]

    def _is_zero(self, expr: relax.Expr) -> bool:
        """Whether a tensor is known to hold zeros only."""
        while isinstance(expr, relax.Var):
            bound = self.lookup_binding(expr)
            if bound is None:
                return False
            expr = bound
        if isinstance(expr, GenericConst):
            return not np.any(expr.value.numpy())
        name = getattr(getattr(expr, "op", None), "name", "")
        if name == "relax.full":
            return self._is_zero(expr.args[1])
        return name == "relax.zeros" or (name in MOVES and self._is_zero(expr.args[0]))
