"""The functions of one module in another."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax
from tvm.ir import GlobalVar
from tvm.relax.expr_functor import PyExprMutator, mutator

OUTERMOST = "outermost"
"""The function of a module that `merge` is about; it is called "body" from then on."""


def merge(builder: relax.BlockBuilder, mod: tvm.IRModule) -> GlobalVar:
    """Add all of `mod` to what is being built; returns what its function `OUTERMOST` is there.

    A function that is there already, under whatever name, is not added again.
    """
    renamed: dict[GlobalVar, GlobalVar] = {}
    for var, func in mod.functions_items():
        if not isinstance(func, relax.Function):
            renamed[var] = builder.add_func(func, var.name_hint)
    waiting = [(v, f) for v, f in mod.functions_items() if isinstance(f, relax.Function)]
    while waiting:  # callees first
        var, func = waiting.pop(0)
        if _calls(func) <= renamed.keys():
            func = _Renamer(renamed).visit_expr(func).without_attr("global_symbol")
            name = "body" if var.name_hint == OUTERMOST else var.name_hint
            renamed[var] = builder.add_func(func, name)
        else:
            waiting.append((var, func))
    return renamed[mod.get_global_var(OUTERMOST)]


def with_symbols(mod: tvm.IRModule) -> tvm.IRModule:
    """Each function under a symbol of its own: what nobody calls by name loses parameters that it
    does not use."""
    functions = {
        var: func.with_attr("global_symbol", var.name_hint)
        if isinstance(func, relax.Function)
        else func
        for var, func in mod.functions_items()
    }
    return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


def _calls(func: relax.Function) -> set[GlobalVar]:
    found: set[GlobalVar] = set()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, GlobalVar):
            found.add(expr)

    relax.analysis.post_order_visit(func, visit)
    return found


@mutator
class _Renamer(PyExprMutator):
    def __init__(self, names: Mapping[GlobalVar, GlobalVar]) -> None:
        super().__init__()
        self.names = names

    def visit_global_var_(self, var: GlobalVar) -> GlobalVar:
        return self.names.get(var, var)
