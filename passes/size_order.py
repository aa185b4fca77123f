"""Sizes that a run finds are defined before they are used.

    w: (n,) = nonzero(x)                     y: (n,) = match_cast(s, (n,))
    y: (n,) = match_cast(s, (n,))     ->     w: (n,) = nonzero(x)

TVM's FuseOps puts all that a group reads before the first operator of the group. It follows the
variables that are read, and not the sizes in types and shapes.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Var
from tvm.relax.analysis import definable_tir_vars_in_type, tir_vars_in_type


def sizes_first(mod: tvm.IRModule, before: tvm.IRModule) -> tvm.IRModule:
    """`mod` with the bindings of its functions in such an order: their own, less what it demands.

    Of the casts that mention a size, the first in `before` defines it: the module whose bindings a
    pass has moved, or copied under the same variables.
    """
    ordered = {}
    for var, func in mod.functions_items():
        old = before.functions.get(var)
        definers = _definers(old) if isinstance(old, relax.Function) else {}
        if definers:
            ordered[var] = _ordered(func, definers)
    if not ordered:
        return mod
    functions = dict(mod.functions_items()) | ordered
    return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


def _ordered(func: relax.Function, definers: dict[Var, Var]) -> relax.Function:
    blocks = [type(block)(_Order(block.bindings, definers).found) for block in func.body.blocks]
    body = relax.SeqExpr(blocks, func.body.body)
    return relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs)


def _definers(func: relax.Function) -> dict[Var, Var]:
    """The cast, by its variable, that defines each size of a function that is no parameter's."""
    given = {size for param in func.params for size in tir_vars_in_type(param.ty)}
    found: dict[Var, Var] = {}
    for block in func.body.blocks:
        for binding in block.bindings:
            if isinstance(binding, relax.MatchCast):
                for size in definable_tir_vars_in_type(binding.ty):
                    if size not in given:
                        found.setdefault(size, binding.var)
    return found


class _Order:
    """The bindings of a block, each after those that define what it mentions."""

    def __init__(self, bindings: Sequence[relax.Binding], definers: dict[Var, Var]) -> None:
        self.bindings = {binding.var: binding for binding in bindings}
        self.definers = definers
        self.found: list[relax.Binding] = []
        self.begun: set[Var] = set()
        for binding in bindings:
            self._place(binding.var)

    def _place(self, var: Var) -> None:
        if var in self.begun or var not in self.bindings:
            return
        self.begun.add(var)
        for mentioned in _mentioned(self.bindings[var]):
            self._place(self.definers.get(mentioned, mentioned))
        self.found.append(self.bindings[var])


def _mentioned(binding: relax.Binding) -> list[Var]:
    """The variables that a binding reads, and the sizes in it and in its type."""
    found: list[Var] = []
    for node in (binding.value, binding.var.ty):
        tvm_ffi.structural_walk(node, (Var, found.append))
    return found
