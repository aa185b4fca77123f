"""Which results of a lowered model lie in memory that somebody knows: its weights, an input."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import Op

_VIEWS = ("vm.builtin.reshape",)


def results_in_weights(mod: tvm.IRModule) -> tuple[int, ...]:
    """The positions of main's results that may be weights, or views of them.

    Every other result is memory of its own or an input, which the runtime can tell by address.
    `mod` is lowered to VM calls; what comes from an operation not known here counts as a weight.
    """
    main = mod["main"]
    bound = {binding.var: binding.value for block in main.body.blocks for binding in block.bindings}
    result = _resolve(main.body.body, bound)
    fields = list(result.fields) if isinstance(result, relax.Tuple) else [result]
    params = set(main.params)
    return tuple(i for i, field in enumerate(fields) if not _is_own(field, bound, params))


def results_in_inputs(mod: tvm.IRModule) -> dict[int, int]:
    """The positions of main's results that are inputs, or views of them: {result: input}."""
    main = mod["main"]
    bound = {binding.var: binding.value for block in main.body.blocks for binding in block.bindings}
    places = {param: k for k, param in enumerate(main.params)}
    result = _resolve(main.body.body, bound)
    found = {}
    for k, field in enumerate(result.fields if isinstance(result, relax.Tuple) else [result]):
        field = _resolve(field, bound)
        while _is_view(field):
            field = _resolve(field.args[0], bound)
        if field in places:
            found[k] = places[field]
    return found


def _is_own(expr: relax.Expr, bound: dict[relax.Var, relax.Expr], params: set[relax.Var]) -> bool:
    expr = _resolve(expr, bound)
    if expr in params:
        return True
    if not isinstance(expr, relax.Call):
        return False
    if isinstance(expr.op, Op) and expr.op.name == "relax.vm.alloc_tensor":
        return True
    return _is_view(expr) and _is_own(expr.args[0], bound, params)


def _is_view(expr: relax.Expr) -> bool:
    called = isinstance(expr, relax.Call) and isinstance(expr.op, relax.ExternFunc)
    return called and expr.op.global_symbol in _VIEWS


def _resolve(expr: relax.Expr, bound: dict[relax.Var, relax.Expr]) -> relax.Expr:
    """What a variable is bound to, through any number of variables."""
    while isinstance(expr, relax.Var) and expr in bound:
        expr = bound[expr]
    return expr
