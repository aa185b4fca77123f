"""Which kernels only move data after all passes, what they cost, and why they remained.

The module is the one that is to be scheduled: its kernels are fused, and their blocks still say
element by element what they compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import ir, relax, sym, tirx

from tvmext.arch import dtype_bits

from .emit import OPERATORS

KEPT = "tvmext.kept"
"""Attribute of a function that moves data: why no other kernel does it, a price or in words."""

FORCED, PRICED, NO_RULE = "forced", "priced", "no rule"


@dataclass(frozen=True)
class MovementKernel:
    """One call of a kernel that computes nothing.

    `value` is the variable that holds the result. `nodes` are the movement operators that it stands
    for. `bytes` are those it writes; None if a dim is known at run time only. `reason` is "forced"
    (an output is a copy of an input), "priced", or "no rule"; `detail` tells which input and
    output, the price, or which kernels read it.
    """

    name: str
    value: str
    nodes: tuple[str, ...]
    bytes: int | None
    reason: str
    detail: str


def movement_kernels(
    mod: tvm.IRModule, sizes: Mapping[str, int] | None = None
) -> list[MovementKernel]:
    """The calls of kernels that only move data, in order; `sizes` are dims by name, for `bytes`."""
    found: list[MovementKernel] = []
    for _, func in mod.functions_items():
        if isinstance(func, relax.Function):
            found += _Function(func, mod, sizes or {}).kernels()
    return found


def moves(func: tirx.PrimFunc) -> bool:
    """Whether everything a function stores is a copy of something it was given, or a constant."""
    stores: list[tirx.BufferStore] = []
    tvm_ffi.structural_walk(func.body, (tirx.BufferStore, stores.append))
    return bool(stores) and all(_copies(store.value) for store in stores)


def _is_conditional(value: Any) -> bool:
    return isinstance(value, ir.Call) and getattr(value.op, "name", "") == "prim.if_then_else"


def _copies(value: Any) -> bool:
    """Whether a value is copied; where conditions choose, from data, it is computed."""
    if isinstance(value, tirx.Select):
        condition, *ways = value.condition, value.true_value, value.false_value
    elif _is_conditional(value):
        condition, *ways = value.args
    else:
        condition, ways = None, []
    if ways:
        return not _is_mask(condition) and all(map(_copies, ways))
    return isinstance(value, ir.TensorLoad | tirx.IntImm | tirx.FloatImm)


def _is_mask(condition: Any) -> bool:
    """Whether a condition is data itself, not a comparison of indices."""
    loads: list[ir.TensorLoad] = []
    tvm_ffi.structural_walk(condition, (ir.TensorLoad, loads.append))
    return any(str(load.ty.dtype) == "bool" for load in loads)


class _Function:
    """The calls of one Relax function and who reads what they write."""

    def __init__(self, func: relax.Function, mod: tvm.IRModule, sizes: Mapping[str, int]) -> None:
        self.mod = mod
        self.sizes = sizes
        self.inputs = list(func.params)
        self.bindings = [b for block in func.body.blocks for b in block.bindings]
        self.values = {binding.var: binding.value for binding in self.bindings}
        self.outputs = _outputs(func.body.body, self.values)
        self.readers: dict[relax.Var, list[relax.Var]] = {}
        for binding in self.bindings:
            for var in _reads(binding.value):
                self.readers.setdefault(var, []).append(binding.var)

    def kernels(self) -> list[MovementKernel]:
        return [
            self._described(binding.var, binding.value)
            for binding in self.bindings
            if (func := self._called(binding.value)) is not None and moves(func)
        ]

    def _called(self, value: Any) -> tirx.PrimFunc | None:
        names = ("relax.call_tir", "relax.call_tir_inplace")
        if isinstance(value, relax.Call) and getattr(value.op, "name", "") in names:
            return self.mod[value.args[0]]
        return None

    def _described(self, var: relax.Var, call: relax.Call) -> MovementKernel:
        name = call.args[0].name_hint
        func = self.mod[call.args[0]]
        sources = [arg for arg in call.args[1].fields if _is_tensor_var(arg)]
        read = dict.fromkeys(self._name(source) for source in sources)
        leaves = [f"output {k}" for k in self._leaves(var)]
        made = " and ".join(read) or "constants"
        detail = f"{made} for {', '.join([*self._users(var), *leaves])}"
        reason, why = NO_RULE, str(func.attrs.get(KEPT, ""))
        if leaves and any(source.startswith("input ") for source in read):
            reason = FORCED
        elif why:
            reason = PRICED if why.startswith(PRICED) else NO_RULE
            detail = f"{detail}; {why}"
        nodes = tuple(str(func.attrs.get(OPERATORS, name.removeprefix("fused_"))).split(","))
        return MovementKernel(name, var.name, nodes, self._bytes(var.ty), reason, detail)

    def _leaves(self, var: relax.Var) -> list[str]:
        """The outputs that the variable, or a view of it, is."""
        found = [str(k) for k, out in enumerate(self.outputs) if out.same_as(var)]
        for reader in self.readers.get(var, ()):
            if self._passes_on(self.values[reader]):
                found += self._leaves(reader)
        return found

    def _users(self, var: relax.Var) -> list[str]:
        """The kernels that read the variable, or a view of it."""
        found: list[str] = []
        for reader in self.readers.get(var, ()):
            if self._passes_on(self.values[reader]):
                found += self._users(reader)
            else:
                found.append(self._name(reader))
        return list(dict.fromkeys(found))

    def _passes_on(self, value: Any) -> bool:
        return not isinstance(value, relax.Call) or value.op.name == "relax.reshape"

    def _name(self, var: relax.Var) -> str:
        value = self.values.get(var)
        if value is None:
            return f"input {var.name}"
        if self._called(value) is not None:
            return str(value.args[0].name_hint)
        if isinstance(value, relax.Call) and value.op.name == "relax.reshape":
            return self._name(value.args[0]) if isinstance(value.args[0], relax.Var) else "constant"
        return str(getattr(getattr(value, "op", None), "name", var.name))

    def _bytes(self, ty: Any) -> int | None:
        fields = ty.fields if isinstance(ty, relax.TupleType) else [ty]
        total = 0
        for field in fields:
            elements = 1
            for dim in field.shape:
                size = self._size(dim)
                if size is None:
                    return None
                elements *= size
            total += elements * -(-dtype_bits(str(field.dtype)) // 8)
        return total

    def _size(self, dim: Any) -> int | None:
        def known(var: ir.Var) -> Any:
            return tirx.IntImm("int64", self.sizes[var.name]) if var.name in self.sizes else var

        value = sym.Analyzer().simplify(tvm_ffi.structural_map(dim, (ir.Var, known)))
        return int(value.value) if isinstance(value, tirx.IntImm) else None


def _is_tensor_var(expr: Any) -> bool:
    return isinstance(expr, relax.Var) and isinstance(expr.ty, relax.TensorType)


def _outputs(result: Any, values: Mapping[relax.Var, Any]) -> list[relax.Var]:
    """The variables that a function returns, in order."""
    if isinstance(result, relax.Var) and isinstance(values.get(result), relax.Tuple):
        result = values[result]
    fields = result.fields if isinstance(result, relax.Tuple) else [result]
    return [field for field in fields if isinstance(field, relax.Var)]


def _reads(value: Any) -> list[relax.Var]:
    found: dict[relax.Var, None] = {}
    relax.analysis.post_order_visit(
        value, lambda e: found.update({e: None}) if isinstance(e, relax.Var) else None
    )
    return list(found)
