"""Functions of the library that call functions of the virtual machine get the machine itself.

    call_packed("tvmext_loop", body, ...)     becomes

    call_builtin_with_ctx("tvmext_loop", (body, ...))

Loops and choices are pure calls of packed functions up to here, so that they may stand among the
operators of a dataflow block; see tvmext/build/control_functions.py.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.frontends.machine import CHOOSE, LOOP

from .rewrite import rewrite


@tvm.transform.module_pass(opt_level=0, name="MachineCalls")
class MachineCalls:
    """Rewrite the calls of every function; purity must have been dealt with."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        name = call.op.global_symbol if isinstance(call.op, relax.ExternFunc) else ""
        if name not in (LOOP, CHOOSE):
            return call
        return relax.op.call_builtin_with_ctx(
            call.op, relax.Tuple(list(call.args)), ty_args=list(call.ty_args)
        )
