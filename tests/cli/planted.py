"""A compiler with a pass that is wrong, as the child process of a compilation runs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext import api
from tvmext.passes import pipeline
from tvmext.schedules.cpu.gemm import Gemm
from tvmext.schedules.rule import Scheduled


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


def schedule_wrongly(*arguments: Any) -> None:
    """The rule for products makes kernels that double whatever they store."""
    right = Gemm.apply

    def double(store: tirx.BufferStore) -> tirx.BufferStore:
        return tirx.BufferStore(store.buffer, store.value + store.value, store.indices)

    def apply(rule: Gemm, *others: Any) -> Scheduled:
        found = right(rule, *others)
        body = tvm_ffi.structural_map(found.func.body, (tirx.BufferStore, double))
        return replace(found, func=found.func.with_body(body))

    Gemm.apply = apply
    api.compile_here(*arguments)


def compile_here(*arguments: Any) -> None:
    pipeline.FoldAffine = Planted
    api.compile_here(*arguments)
