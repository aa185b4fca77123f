"""Kernels that copy a tensor but for a few elements, as kernels that write just those in place.

    out[i] = value(i) if low <= i < high else x[i]     becomes     x[low + k] = value(low + k)
                                                                   for k < high - low, if 0 <= ..

`low` may be data, such as the position of a new row in a cache: it is checked against the shape
before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import tvm_ffi
from tvm import ir, s_tir, sym, tirx

from .prims import UnmappedError


def update_in_place(func: tirx.PrimFunc, targets: Sequence[ir.Var]) -> tirx.PrimFunc:
    """`func` writing to some of its parameters instead of to its outputs, one for each.

    Raises UnmappedError if an output is not what its target holds but for some elements.
    """
    stored = {store.buffer for store in _found(func.body, tirx.BufferStore)}
    outs = [param for param in func.params if param in stored]
    if len(outs) != len(targets):
        raise UnmappedError(f"it has {len(outs)} outputs")
    taken = {*outs, *targets}
    root = func.body.block
    body: list[Any] = []
    for stmt in root.body.seq if isinstance(root.body, tirx.SeqStmt) else [root.body]:
        nest = _Nest(stmt)
        if nest.buffer in outs:
            target = targets[outs.index(nest.buffer)]
            body += nest.writes(target)
            others = taken - {nest.buffer, target}
        else:
            body.append(stmt)
            others = taken
        if others.intersection(_found(stmt, ir.Var)):
            raise UnmappedError("it reads the tensor more than once")
    inner = tirx.SeqStmt(body) if len(body) > 1 else body[0]
    block = s_tir.SBlock([], [], [], root.name_hint, inner, None, root.alloc_buffers)
    params = [param for param in func.params if param not in outs]
    return tirx.PrimFunc(params, s_tir.SBlockRealize([], True, block), func.ret_type, func.attrs)


@dataclass(frozen=True, eq=False)
class _Write:
    """`value` is stored where all of `conditions` hold."""

    conditions: tuple[Any, ...]
    value: Any


class _Nest:
    """One block of the kernel, over its axes."""

    def __init__(self, stmt: Any) -> None:
        while isinstance(stmt, tirx.For):
            stmt = stmt.body
        if not isinstance(stmt, s_tir.SBlockRealize):
            raise UnmappedError("there is code outside of blocks")
        store = stmt.block.body
        if not isinstance(store, tirx.BufferStore):
            raise UnmappedError("a block is not one store")
        self.buffer = store.buffer
        self.name = stmt.block.name_hint
        self.store = store
        self.axes = [axis.var for axis in stmt.block.iter_vars]
        self.extents = {axis.var: axis.dom.extent for axis in stmt.block.iter_vars}
        self.analyzer = sym.Analyzer()
        for var, extent in self.extents.items():
            self.analyzer.bind(var, ir.Range(0, extent))

    def writes(self, param: ir.Var) -> list[Any]:
        """One nest of loops over `param` for each case that is not a copy, those that win last."""
        self.param = param
        if not self._same(self.store.indices, self.axes):
            raise UnmappedError("it does not store its output in order")
        return [self._loops(write) for write in self._cases(self.store.value, (), None)]

    def _same(self, indices: Sequence[Any], others: Sequence[Any]) -> bool:
        pairs = zip(indices, others)
        same = (self.analyzer.can_prove_equal(a, b) for a, b in pairs)
        return len(indices) == len(others) and all(same)

    def _cases(self, value: Any, conditions: tuple[Any, ...], other: Any) -> list[_Write]:
        """What has to be stored so that the elements are `value`, if they are `other` already.

        `other` is None for what the tensor holds.
        """
        if self._is_other(value, other):
            return []
        if isinstance(value, ir.Call) and value.op.name.endswith("if_then_else"):
            condition, then, instead = value.args
            if self._is_other(then, other):
                return self._cases(instead, (*conditions, _negated(condition)), other)
            first = self._cases(instead, conditions, other)
            return first + self._cases(then, (*conditions, *_atoms(condition)), instead)
        if self.param in _found(value, ir.Var):
            raise UnmappedError("it moves elements of the tensor")
        return [_Write(conditions, value)]

    def _is_other(self, value: Any, other: Any) -> bool:
        if other is not None and tvm_ffi.structural_equal(value, other):
            return True
        held = other is None or self._is_other(other, None)
        is_load = isinstance(value, ir.TensorLoad) and value.source.same_as(self.param)
        return held and is_load and self._same(value.indices, self.axes)

    def _loops(self, write: _Write) -> Any:
        """Loops over the part of each axis that the conditions leave, and a guarded store."""
        bounds = [self._part(axis, write.conditions) for axis in self.axes]
        own = [ir.Var(f"v{k}", "int64") for k in range(len(bounds))]
        at = {axis: low + var for axis, (low, _), var in zip(self.axes, bounds, own)}
        known = sym.Analyzer()
        for var, (_, extent) in zip(own, bounds):
            known.bind(var, ir.Range(0, extent))

        def moved(expr: Any) -> Any:
            return tvm_ffi.structural_map(expr, (ir.Var, lambda var: at.get(var, var)))

        index = [known.simplify(at[axis]) for axis in self.axes]
        inside = [c for i, axis in zip(index, self.axes) for c in (i >= 0, i < self.extents[axis])]
        guards = [c for c in (*inside, *map(moved, write.conditions)) if not known.can_prove(c)]
        body: Any = tirx.BufferStore(self.param, moved(write.value), index)
        if guards:
            body = tirx.IfThenElse(reduce(tirx.And, guards), body, None)
        return self._nest(own, [extent for _, extent in bounds], body, index)

    def _nest(self, own: Sequence[Any], extents: Sequence[Any], body: Any, index: Any) -> Any:
        axes = [
            tirx.IterVar(ir.Range(0, extent), var, tirx.IterVar.DataPar)
            for var, extent in zip(own, extents)
        ]
        loops = [ir.Var(f"i{k}", "int64") for k in range(len(own))]
        loads = [*_found(body, ir.TensorLoad)]
        reads = [_element(load.source, load.indices) for load in loads]
        region = _element(self.param, index)
        block = s_tir.SBlock(axes, reads, [region], self.name, body)
        stmt: Any = s_tir.SBlockRealize(loops, True, block)
        for loop, extent in reversed(list(zip(loops, extents))):
            stmt = tirx.For(loop, tirx.IntImm("int64", 0), extent, tirx.ForKind.SERIAL, stmt)
        return stmt

    def _part(self, axis: ir.Var, conditions: Iterable[Any]) -> tuple[Any, Any]:
        """From where on along an axis, and how far, the conditions can hold: (low, extent)."""
        lows, highs = [tirx.IntImm("int64", 0)], [self.extents[axis]]
        for condition in conditions:
            low, high = self._limits(axis, condition)
            lows += [] if low is None else [low]
            highs += [] if high is None else [high]
        best = lows[0], highs[0]
        for low in lows:
            for high in highs:
                extent = self.analyzer.simplify(high - low)
                if isinstance(extent, tirx.IntImm) and not self._shorter(best[1], extent):
                    best = low, extent
        return best

    @staticmethod
    def _shorter(extent: Any, other: tirx.IntImm) -> bool:
        return isinstance(extent, tirx.IntImm) and extent.value <= other.value

    def _limits(self, axis: ir.Var, condition: Any) -> tuple[Any, Any]:
        """Low and high of an axis by one comparison, None where it says nothing."""
        compared = _COMPARED.get(type(condition))
        if compared is None:
            return None, None
        less, more, slack = compared(condition)  # less + slack <= more

        def at(value: Any) -> Any:
            difference = less + slack - more
            return tvm_ffi.structural_map(
                difference, (ir.Var, lambda var: value if var.same_as(axis) else var)
            )

        start = self.analyzer.simplify(at(tirx.IntImm("int64", 0)))
        step = self.analyzer.simplify(at(axis + 1) - at(axis))
        if not isinstance(step, tirx.IntImm) or any(a in _found(start, ir.Var) for a in self.axes):
            return None, None
        if step.value == 1:
            return None, self.analyzer.simplify(1 - start)
        return (start, None) if step.value == -1 else (None, None)


_COMPARED = {
    tirx.LT: lambda e: (e.a, e.b, 1),
    tirx.LE: lambda e: (e.a, e.b, 0),
    tirx.GT: lambda e: (e.b, e.a, 1),
    tirx.GE: lambda e: (e.b, e.a, 0),
}


def _atoms(condition: Any) -> list[Any]:
    """The comparisons that a condition is made of; an equality is two of them."""
    if isinstance(condition, tirx.And):
        return [*_atoms(condition.a), *_atoms(condition.b)]
    if isinstance(condition, tirx.EQ):
        return [condition.a <= condition.b, condition.b <= condition.a]
    return [condition]


def _negated(condition: Any) -> Any:
    compared = _COMPARED.get(type(condition))
    if compared is None:
        return tirx.Not(condition)
    less, more, slack = compared(condition)
    return more < less + slack


def _found(node: Any, kind: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(node, (kind, found.append))
    return found


def _element(buffer: Any, indices: Sequence[Any]) -> Any:
    return tirx.BufferRegion(buffer, [ir.Range.from_min_extent(i, 1) for i in indices])
