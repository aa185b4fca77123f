"""Which results of a lowered model may lie in its weights, where a caller must not write."""

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


def _is_own(expr: relax.Expr, bound: dict[relax.Var, relax.Expr], params: set[relax.Var]) -> bool:
    expr = _resolve(expr, bound)
    if expr in params:
        return True
    if not isinstance(expr, relax.Call):
        return False
    if isinstance(expr.op, Op) and expr.op.name == "relax.vm.alloc_tensor":
        return True
    is_view = isinstance(expr.op, relax.ExternFunc) and expr.op.global_symbol in _VIEWS
    return is_view and _is_own(expr.args[0], bound, params)


def _resolve(expr: relax.Expr, bound: dict[relax.Var, relax.Expr]) -> relax.Expr:
    """What a variable is bound to, through any number of variables."""
    while isinstance(expr, relax.Var) and expr in bound:
        expr = bound[expr]
    return expr
