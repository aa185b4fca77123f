"""What fails in a run because of its data says for which node.

    match_shape(v7_, .., "ErrorContext(match_cast, ty=R.Shape([x, x_1, x, x_1])) ")
    becomes
    match_shape(v7_, .., "ErrorContext(match_cast, at=\\"Reshape 'y'\\") ")

Runs after TVM has made calls of what matches sizes. The name is JSON text, in one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax
from tvm.ir import StringImm
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.frontends.model import Model

from .names import place_of

CONTEXT = "ErrorContext(match_cast, "
"""How the text of TVM's own begins, and its error contains."""

_MATCH = "vm.builtin.match_shape"


@tvm.transform.module_pass(opt_level=0, name="NameMatches")
class NameMatches:
    """Name in main what `model.matched` has names for."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        if not self.model.matched:
            return mod
        namer = _Namer(mod, _names(self.model))
        main = mod.get_global_var("main")
        namer.builder_.update_func(main, namer.visit_expr(mod[main]))
        return namer.builder_.get()


def _names(model: Model) -> dict[int | str, str]:
    """`model.matched` by the place of a value in main, or the name of a parameter."""
    main, known = model.mod["main"], model.matched
    bindings = (b for block in main.body.blocks for b in block.bindings)
    values: dict[int | str, str] = {place: b.var.name for place, b in enumerate(bindings)}
    values |= {param.name: param.name for param in main.params}
    return {key: known[name] for key, name in values.items() if name in known}


@mutator
class _Namer(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, names: Mapping[int | str, str]) -> None:
        super().__init__(mod)
        self.names = names
        self.params = set(mod["main"].params)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if not isinstance(call.op, relax.ExternFunc) or call.op.global_symbol != _MATCH:
            return call
        value, *others, text = call.args
        if not isinstance(value, relax.Var) or not text.value.startswith(CONTEXT):
            return call
        key = value.name if value in self.params else place_of(value.name)
        if key is None or key not in self.names:
            return call
        named = StringImm(f"{CONTEXT}at={json.dumps(self.names[key])}) ")
        return relax.Call(call.op, [value, *others, named], call.attrs, call.ty_args, call.span)
