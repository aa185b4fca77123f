"""Which variables of a function only hold moved data, and where that data lives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax

from ..constants import constant_values
from .fusible import FUSIBLE
from .general import general_rule
from .prims import Prims, UnmappedError
from .rules import rule_of
from .tensor import MOST_BOXES, VirtualTensor, physical


@dataclass(frozen=True)
class Moved:
    """A variable that one or more movement operators made.

    `deep` reads the tensors that no movement operator made; `near` reads the closest tensors that
    exist in memory anyway. `operators` are the names of those in between, in order.
    """

    deep: VirtualTensor
    near: VirtualTensor
    operators: tuple[str, ...]


@dataclass
class Movement:
    """The movement in one Relax function.

    `homes` are expressions by the name they have in virtual tensors. `declined` says, by variable,
    why an operator with a rule was left as it is. `outputs` are the moved variables that leave a
    dataflow block; `materialized` adds those with a reader that must find them in memory.
    `fusible` names the homes that an elementwise operator makes for one reader alone: FuseOps may
    put both into one kernel, if no view stands between them.
    """

    prims: Prims = field(default_factory=Prims)
    moved: dict[relax.Var, Moved] = field(default_factory=dict)
    homes: dict[str, relax.Expr] = field(default_factory=dict)
    declined: dict[relax.Var, str] = field(default_factory=dict)
    outputs: set[relax.Var] = field(default_factory=set)
    materialized: set[relax.Var] = field(default_factory=set)
    fusible: set[str] = field(default_factory=set)


def analyze(func: relax.Function, mod: tvm.IRModule) -> Movement:
    """Finds the movement operators of a function of `mod` and composes their maps.

    Bindings inside the branches of an If are left alone.
    """
    found = Movement()
    bindings = [b for block in func.body.blocks for b in block.bindings]
    outputs = _block_outputs(func)
    reader = _Reader(found, mod, whole=_whole_tuples(bindings, func.body.body))
    for binding in bindings:
        if isinstance(binding, relax.VarBinding):
            reader.bind(binding.var, binding.value)
    found.outputs = outputs & found.moved.keys()
    found.materialized |= found.outputs
    _find_materialized(found, reader.tuples, bindings, func.body.body)
    near = _Reader(found, mod, near=True)
    near.bound = reader.bound
    for binding in bindings:
        if binding.var in found.moved or binding.var in reader.tuples:
            near.bind(binding.var, binding.value)
    readers = Counter(var for binding in bindings for var in set(_variables(binding.value)))
    found.fusible = {
        name
        for name, home in found.homes.items()
        if readers[home] == 1 and _elementwise(reader.bound.get(home))
    }
    return found


class _Reader:
    """Evaluates the rules; the `Operands` that they read their arguments through."""

    def __init__(
        self,
        found: Movement,
        mod: tvm.IRModule,
        near: bool = False,
        whole: frozenset[relax.Var] = frozenset(),
    ) -> None:
        self.found = found
        self.mod = mod
        self.prims = found.prims
        self.near = near
        self.whole = whole
        self.tuples: dict[relax.Var, list[VirtualTensor]] = {}
        self.tensors: dict[relax.Var, VirtualTensor] = {}
        self.bound: dict[relax.Var, relax.Expr] = {}
        self.chains: dict[relax.Var, tuple[str, ...]] = {}
        self._names: dict[relax.Expr, str] = {expr: name for name, expr in found.homes.items()}

    def bind(self, var: relax.Var, value: relax.Expr) -> None:
        """Notes what the variable is, if it is moved data."""
        self.bound[var] = value
        try:
            result = None if var in self.whole else self._evaluate(value)
        except UnmappedError as reason:
            self.found.declined[var] = str(reason)
            return
        if result is None:
            return
        self.chains[var] = self._chain(value)
        if isinstance(result, list):
            self.tuples[var] = result
            return
        self.tensors[var] = result
        deep = self.found.moved[var].deep if self.near else result
        self.found.moved[var] = Moved(deep, result, self.chains[var])

    def tensor(self, expr: relax.Expr) -> VirtualTensor:
        """The argument as a virtual tensor; a physical one if nothing moved it."""
        if not isinstance(expr.ty, relax.TensorType):
            raise UnmappedError("an operand is not a tensor")
        known = self.tensors.get(expr)
        if known is not None and known.boxes > MOST_BOXES:
            return self.stored(expr)
        if known is not None and not (self.near and expr in self.found.materialized):
            return known
        return physical(self._home(expr), self.prims.shape(expr.ty))

    def stored(self, expr: relax.Expr) -> VirtualTensor:
        """The argument as a physical tensor, whatever made it."""
        if expr in self.found.moved:
            self.found.materialized.add(expr)
        return physical(self._home(expr), self.prims.shape(expr.ty))

    def values(self, expr: relax.Expr) -> np.ndarray | None:
        """The elements of an argument that is a constant."""
        found = constant_values([expr], self.bound.get)
        return found[0] if found else None

    def _evaluate(self, value: relax.Expr) -> VirtualTensor | list[VirtualTensor] | None:
        if isinstance(value, relax.Var):
            return self.tensor(value) if value in self.tensors else None
        if isinstance(value, relax.TupleGetItem):
            parts = self.tuples.get(value.tuple_value)
            return parts[int(value.index)] if parts else None
        rule = rule_of(value)
        return rule(value, self) if rule else general_rule(value, self, self.mod)

    def _chain(self, value: relax.Expr) -> tuple[str, ...]:
        """The names of the operators from the homes to this one, each once."""
        names = {name: None for arg in _variables(value) for name in self.chains.get(arg, ())}
        if isinstance(value, relax.Call):
            names[value.op.name.removeprefix("relax.").removeprefix("nn.")] = None
        return tuple(names)

    def _home(self, expr: relax.Expr) -> str:
        if expr not in self._names:
            name = expr.name if isinstance(expr, relax.Var) else "constant"
            self._names[expr] = f"{name}#{len(self._names)}"
            self.found.homes[self._names[expr]] = expr
        return self._names[expr]


def _find_materialized(
    found: Movement,
    tuples: Container[relax.Var],
    bindings: Iterable[Any],
    result: relax.Expr,
) -> None:
    """Notes which moved variables someone reads who cannot take in their loader."""

    for binding in bindings:
        if binding.var in found.moved or binding.var in tuples:
            continue
        if not _elementwise(binding.value):
            found.materialized |= found.moved.keys() & set(_variables(binding.value))
    found.materialized |= found.moved.keys() & set(_variables(result))


def _elementwise(value: relax.Expr | None) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") in FUSIBLE


def _block_outputs(func: relax.Function) -> set[relax.Var]:
    """The variables of dataflow blocks that are visible outside of their block."""
    return {
        binding.var
        for block in func.body.blocks
        if isinstance(block, relax.DataflowBlock)
        for binding in block.bindings
        if not isinstance(binding.var, relax.DataflowVar)
    }


def _whole_tuples(bindings: Iterable[Any], result: relax.Expr) -> frozenset[relax.Var]:
    """Tuples that are read as such: operators with several outputs that stay as they are."""
    whole = {var for var in _variables(result) if isinstance(var.ty, relax.TupleType)}
    for binding in bindings:
        if not isinstance(binding.value, relax.TupleGetItem):
            read = _variables(binding.value)
            whole |= {var for var in read if isinstance(var.ty, relax.TupleType)}
    return frozenset(whole)


def _variables(expr: relax.Expr) -> list[relax.Var]:
    """The variables an expression reads, once for each time it does."""
    found: list[relax.Var] = []
    relax.analysis.post_order_visit(
        expr, lambda e: found.append(e) if isinstance(e, relax.Var) else None
    )
    return found
