"""What passes that rewrite every function of a module have in common."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator
from tvm.tirx import PrimFunc, Stmt


def rewrite(mod: tvm.IRModule, rewriter: PyExprMutator) -> tvm.IRModule:
    """`mod` with every Relax function as `rewriter`, made for this module, rewrites it."""
    for var, function in mod.functions_items():
        if isinstance(function, relax.Function):
            rewriter.builder_.update_func(var, rewriter.visit_expr(function))
    return rewriter.builder_.get()


def rewrite_bodies(mod: tvm.IRModule, body: Callable[[PrimFunc], Stmt]) -> tvm.IRModule:
    """`mod` with ``body(function)`` as the body of every PrimFunc; `mod` itself stays as it is."""
    functions = dict(mod.functions_items())
    for var, func in mod.functions_items():
        if isinstance(func, PrimFunc):
            new = body(func)
            if not new.same_as(func.body):
                functions[var] = PrimFunc(func.params, new, func.ret_type, func.attrs)
    return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)
