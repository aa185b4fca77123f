"""A structural view of a kernel: its blocks as equations over named axes.

A fused function is a list of blocks in te.compute form. Each says, over its axes,

    spatial block    out[index(s)] = value(s)
    reduction block  out[s] = init;  out[s] = combine(out[s], value(s, r))  for every r

`view.view` reads this off the function, or declines with a reason. Rules recognise a kernel from
the view alone, never from a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Call, Expr, Op, Range, TensorLoad, Var

SPATIAL, REDUCE = "spatial", "reduce"


@dataclass(frozen=True, eq=False)
class Axis:
    """One iteration variable of a block: it runs over 0 .. extent-1."""

    var: Var
    extent: Expr
    kind: str

    @property
    def size(self) -> int | None:
        """The extent if it is a constant."""
        return constant(self.extent)


@dataclass(frozen=True, eq=False)
class Store:
    """``buffer[indices] = value``; `init` is the value a reduction starts from."""

    buffer: Var
    indices: tuple[Expr, ...]
    value: Expr
    init: Expr | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """One block. Every store of a reduction reads the same elements that the block writes."""

    name: str
    axes: tuple[Axis, ...]
    stores: tuple[Store, ...]

    @cached_property
    def spatial(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.axes if axis.kind == SPATIAL)

    @cached_property
    def reduce(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.axes if axis.kind == REDUCE)

    @cached_property
    def loads(self) -> tuple[TensorLoad, ...]:
        """Every load of the values, a reduction's own output left out."""
        written = {store.buffer for store in self.stores}
        return tuple(
            load
            for store in self.stores
            for load in collect(store.value, TensorLoad)
            if load.source not in written
        )

    @property
    def is_reduction(self) -> bool:
        return self.stores[0].init is not None

    @cached_property
    def combiner(self) -> Combiner | None:
        """How a reduction with one output combines, or None if it is none of the known ways."""
        return combiner(self.stores[0]) if self.is_reduction and len(self.stores) == 1 else None


@dataclass(frozen=True, eq=False)
class Combiner:
    """``out = op(out, value)`` with op one of "add", "mul", "max", "min"."""

    op: str
    value: Expr


@dataclass(frozen=True, eq=False)
class View:
    """A kernel as equations: its parameters, its blocks in order, and who writes what."""

    func: tirx.PrimFunc
    blocks: tuple[Block, ...]

    @cached_property
    def buffers(self) -> tuple[Var, ...]:
        """The parameters that are buffers."""
        return tuple(p for p in self.func.params if tirx.is_buffer_var(p))

    @cached_property
    def producer(self) -> dict[Var, Block]:
        return {store.buffer: block for block in self.blocks for store in block.stores}

    @cached_property
    def consumers(self) -> dict[Var, tuple[Block, ...]]:
        found: dict[Var, list[Block]] = {}
        for block in self.blocks:
            for buffer in dict.fromkeys(load.source for load in block.loads):
                found.setdefault(buffer, []).append(block)
        return {buffer: tuple(blocks) for buffer, blocks in found.items()}

    @cached_property
    def outputs(self) -> tuple[Var, ...]:
        """The parameters that some block writes."""
        return tuple(p for p in self.buffers if p in self.producer)

    @cached_property
    def reductions(self) -> tuple[Block, ...]:
        return tuple(block for block in self.blocks if block.is_reduction)


def without_copies(seen: View) -> View:
    """The same equations, with copies of one element each read where they were copied from.

    b[i, j] = a[f(i, j)];  c[i] = .. b[i, 0] ..     becomes     c[i] = .. a[f(i, 0)] ..
    """
    copies: dict[Var, Block] = {}
    blocks: list[Block] = []
    for block in seen.blocks:
        moved = _reading_through(block, copies)
        if _is_copy(moved) and moved.stores[0].buffer not in seen.outputs:
            copies[moved.stores[0].buffer] = moved
        else:
            blocks.append(moved)
    return View(seen.func, tuple(blocks))


def _is_copy(block: Block) -> bool:
    """One load, stored at the block's axes in order."""
    store = block.stores[0]
    axes = [axis.var for axis in block.axes]
    in_order = len(axes) == len(store.indices) and all(
        index.same_as(var) for index, var in zip(store.indices, axes)
    )
    return len(block.stores) == 1 and isinstance(store.value, TensorLoad) and in_order


def _reading_through(block: Block, copies: dict[Var, Block]) -> Block:
    ana = analyzer(block.axes)

    def visit(load: TensorLoad) -> Expr:
        copy = copies.get(load.source)
        if copy is None:
            return load
        at = dict(zip((axis.var for axis in copy.axes), load.indices))
        source = substitute(copy.stores[0].value, at)
        return tirx.BufferLoad(source.source, [ana.simplify(i) for i in source.indices])

    stores = tuple(
        replace(store, value=tvm_ffi.structural_map(store.value, (TensorLoad, visit)))
        for store in block.stores
    )
    return Block(block.name, block.axes, stores)


# ------------------------------------------------------------------ expressions


def constant(expr: Any) -> int | None:
    """The value of an integer literal, else None."""
    if isinstance(expr, int):
        return expr
    return int(expr.value) if isinstance(expr, tirx.IntImm) else None


def collect(node: Any, kind: Any) -> list[Any]:
    """Every node of type `kind` below `node`, in evaluation order."""
    found: list[Any] = []
    tvm_ffi.structural_walk(node, (kind, found.append))
    return found


def variables(node: Any) -> set[Var]:
    """The scalar variables used below `node`; buffers are left out."""
    if isinstance(node, tirx.IntImm):  # as most sizes are: a walk takes longer than it finds
        return set()
    if isinstance(node, Var):
        return set() if tirx.is_buffer_var(node) else {node}
    return {var for var in collect(node, Var) if not tirx.is_buffer_var(var)}


def substitute(node: Any, values: dict[Var, Any]) -> Any:
    """`node` with variables (scalars or buffers) replaced."""
    if not values or isinstance(node, tirx.IntImm):
        return node
    if isinstance(node, Var):
        return values.get(node, node)
    return tvm_ffi.structural_map(node, (Var, lambda var: values.get(var, var)))


def replace_loads(node: Any, buffer: Var, value: Callable[[list[Expr]], Expr]) -> Any:
    """`node` with every load ``buffer[indices]`` replaced by ``value(indices)``."""

    def visit(load: TensorLoad) -> Expr:
        return value(list(load.indices)) if load.source.same_as(buffer) else load

    return tvm_ffi.structural_map(node, (TensorLoad, visit))


def called_ops(node: Any) -> set[str]:
    """Names of the operators called below `node`, such as "tirx.exp"."""
    return {call.op.name for call in collect(node, Call) if isinstance(call.op, Op)}


def analyzer(axes: Iterable[Axis], shapes: Iterable[Expr] = ()) -> sym.Analyzer:
    """An analyzer that knows the range of every axis and that symbolic dims are not negative."""
    ana = sym.Analyzer()
    axes = tuple(axes)
    free = set().union(*(variables(e) for e in (*shapes, *(a.extent for a in axes))))
    for var in free - {axis.var for axis in axes}:
        ana.update(var, sym.ConstIntBound(0, sym.ConstIntBound.POS_INF))
    for axis in axes:
        ana.bind(axis.var, counted(axis.extent))
    return ana


def counted(extent: Expr) -> Range:
    """0 to `extent`; a plain 0 is of 32 bits, and takes the place of a variable of extent 1."""
    return Range.from_min_extent(tirx.const(0, "int64"), extent)


def stride(expr: Expr, var: Var, ana: sym.Analyzer) -> Expr | None:
    """``expr(var + 1) - expr(var)`` if that does not depend on `var`, else None."""
    step = ana.simplify(substitute(expr, {var: var + 1}) - expr)
    return None if var in variables(step) else step


def buffer_of(access: Any) -> Var:
    """The buffer of a load, or of anything that stores to its `buffer`."""
    return access.source if isinstance(access, TensorLoad) else access.buffer


def flat_index(access: Any) -> Expr:
    """Row-major offset, in elements, of what a load reads or a store writes."""
    offset: Expr = tirx.const(0, "int64")
    for extent, index in zip(buffer_of(access).shape, access.indices):
        offset = offset * extent + index
    return offset


def combiner(store: Store) -> Combiner | None:
    """Read ``out[i] = op(out[i], value)`` off a store, operands in either order."""
    ops = {tirx.Add: "add", tirx.Mul: "mul", tirx.Max: "max", tirx.Min: "min"}
    op = ops.get(type(store.value))
    if op is None:
        return None
    for own, other in ((store.value.a, store.value.b), (store.value.b, store.value.a)):
        if _is_own(own, store) and store.buffer not in collect(other, Var):
            return Combiner(op, other)
    return None


def _is_own(expr: Expr, store: Store) -> bool:
    return (
        isinstance(expr, TensorLoad)
        and expr.source.same_as(store.buffer)
        and all(tvm_ffi.structural_equal(a, b) for a, b in zip(expr.indices, store.indices))
    )
