"""Read a kernel as a contraction: its axes by their roles, its operands, its consumers.

Producers that only move elements are composed into the indices of an operand; one that computes
stays apart as the loader. Consumers are rewritten over the axes of the sum, so that they become
its epilogue; those that read an element more than once run after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm_ffi import structural_map

from ..rule import Declined, Kernel
from .analysis import (
    SPATIAL,
    Axis,
    Block,
    Store,
    View,
    analyzer,
    collect,
    constant,
    replace_loads,
    substitute,
    variables,
)
from .consumer_axes import consumer_axes, merged_axes
from .contraction import Contraction, Operand, Output
from .view import view


class _Declines(Exception):
    """Raised while reading a kernel that is not a contraction."""


@lru_cache(maxsize=16)  # several rules ask, and the price
def contraction(kernel: Kernel) -> Contraction | Declined:
    """Read a kernel as a contraction, or tell why it is none."""
    seen = view(kernel.func)
    if isinstance(seen, Declined):
        return seen
    try:
        return _Reader(seen).read()
    except _Declines as reason:
        return Declined(str(reason))


def summed(seen: View) -> Block:
    """The block of the one sum of a kernel that is a contraction, with its producers inlined."""
    reader = _Reader(seen)
    store = reader.store
    value = reader._inline(store.value, [store.buffer])
    return replace(reader.block, stores=(replace(store, value=value),))


class _Reader:
    def __init__(self, seen: View) -> None:
        if len(seen.reductions) != 1:
            raise _Declines(f"{len(seen.reductions)} reductions, not one")
        self.view = View(seen.func, tuple(map(_simplified, seen.blocks)))
        self.block = self.view.reductions[0]
        self.store = self.block.stores[0]
        self.params = set(seen.buffers)
        self.axes = self.block.axes
        self.narrowed = False
        self.kept: list[Var] = []
        self.after: list[Block] = []
        if self.block.combiner is None or self.block.combiner.op != "add":
            raise _Declines("the reduction is not one sum")
        init = self.store.init
        if not isinstance(init, tirx.IntImm | tirx.FloatImm) or init.value != 0:
            raise _Declines("the sum does not start from zero")

    def read(self) -> Contraction:
        assert self.block.combiner is not None
        product = self.block.combiner.value
        if isinstance(product, tirx.Cast):
            raise _Declines("the products are cast after they are taken")
        if not isinstance(product, tirx.Mul):
            raise _Declines("the sum is not one of products")
        total = Var("total", str(self.store.buffer.dtype))
        stored = self._consumers(total, _splits(product, self.axes))
        axes, values = self._split_axes(_splits(product, self.axes))
        first, second = (self._operand(factor, axes, values) for factor in (product.a, product.b))
        dtype = str(self.store.buffer.dtype)
        if any(str(o.value.ty.dtype) != dtype for o in (first, second)):
            raise _Declines("the factors and the sum have different types")
        found = _classify(axes, first, second, total, self._outputs(stored, axes, values))
        return replace(found, kept=tuple(self.kept), after=tuple(self.after))

    def _split_axes(
        self, splits: Mapping[Var, tuple[int, int]]
    ) -> tuple[list[Axis], dict[Var, Expr]]:
        """The axes to work with, and each axis of the block as an expression over them.

        Unit axes become 0. An axis that an operand divides by a constant, the output channel of a
        grouped convolution, becomes two: ``channel = group * c + member``.
        """
        axes: list[Axis] = []
        values: dict[Var, Expr] = {}
        for axis in self.axes:
            if axis.size == 1:
                values[axis.var] = _index(0)
            elif axis.var in splits:
                outer, inner = (
                    Axis(Var(f"{axis.var.name}_{part}", "int64"), _index(extent), SPATIAL)
                    for part, extent in zip(("group", "member"), splits[axis.var])
                )
                axes += [part for part in (outer, inner) if part.size != 1]
                high, low = (_index(0) if p.size == 1 else p.var for p in (outer, inner))
                values[axis.var] = high * splits[axis.var][1] + low
            else:
                axes.append(axis)
                values[axis.var] = axis.var
        return axes, values

    def _operand(self, factor: Expr, axes: list[Axis], values: dict[Var, Expr]) -> Operand:
        ana = analyzer(axes)
        factor = _simplify_indices(substitute(factor, values), ana)
        load = _only_load(factor)
        source = self.view.producer.get(load.source) if load is not None else None
        if source is None:
            value = self._inline(factor)
            return Operand(value, load if self._whole(factor) else None, value)
        source = self._inlined(source)
        value = _simplify_indices(self._inline(factor), ana)
        inlined = _only_load(value)
        if inlined is not None:
            return Operand(value, inlined, value)
        return Operand(value, load, factor, source)

    def _whole(self, factor: Expr) -> bool:
        return all(load.source in self.params for load in collect(factor, TensorLoad))

    def _inlined(self, block: Block) -> Block:
        """`block` with its own producers inlined."""
        self._check_injective(block)
        store = block.stores[0]
        stores = (type(store)(store.buffer, store.indices, self._inline(store.value)),)
        return Block(block.name, block.axes, stores)

    def _check_injective(self, block: Block) -> None:
        store = block.stores[0]
        if block.is_reduction or len(block.stores) != 1:
            raise _Declines(f"producer '{block.name}' is not a single injective block")
        axes = [axis.var for axis in block.axes if axis.size != 1]
        indices = [i for i, n in zip(store.indices, store.buffer.shape) if constant(n) != 1]
        if len(axes) != len(indices) or not all(i.same_as(v) for i, v in zip(indices, axes)):
            raise _Declines(f"block '{block.name}' does not write its elements in order")

    def _inline(self, value: Expr, known: Iterable[Var] = ()) -> Expr:
        """`value` with the loads of intermediate buffers but `known` replaced by what they hold."""
        stop = self.params | set(known)
        for buffer in {load.source for load in collect(value, TensorLoad)} - stop:
            block = self.view.producer[buffer]
            if block is self.block:
                raise _Declines("a producer reads the sum")
            self._check_injective(block)
            inner = self._inline(block.stores[0].value, stop)
            value = replace_loads(value, buffer, lambda at: _at(block, inner, at))  # noqa: B023
        return value

    def _consumers(self, total: Var, splits: Mapping[Var, tuple[int, int]]) -> list[Output]:
        """What is stored once a sum is known, every consumer rewritten over the sum's own axes."""
        names = [axis.var for axis in self.block.spatial]
        if len(names) != len(self.store.indices) or not all(
            i.same_as(v) for i, v in zip(self.store.indices, names)
        ):
            raise _Declines("the sum is not stored in the order of its axes")
        known: dict[Var, Expr] = {self.store.buffer: total}
        at: dict[Var, tuple[Expr, ...]] = {self.store.buffer: tuple(names)}
        late: list[Block] = []
        for block in self.view.blocks:
            sources = {load.source for load in block.loads}
            behind = sources & {b.stores[0].buffer for b in late}
            if block is self.block or not (behind or sources & known.keys()):
                continue
            if block.is_reduction or len(block.stores) != 1:
                raise _Declines(f"consumer '{block.name}' is not a single injective block")
            store = block.stores[0]
            mapping = None if behind else consumer_axes(block, known, at, splits)
            if mapping is None:
                late.append(block)
                continue
            self._narrow(block, known, at)
            value = store.value
            for buffer, expr in known.items():
                value = replace_loads(value, buffer, lambda _at: expr)  # noqa: B023
            known[store.buffer] = substitute(value, mapping)
            at[store.buffer] = tuple(substitute(index, mapping) for index in store.indices)
        self._put_off(late, known)
        stored = [buffer for buffer in known if buffer in self.params or buffer in self.kept]
        if self.narrowed and len(stored) > 1:
            raise _Declines("a part of the sum is stored, and other results of it")
        return [Output(buffer, at[buffer], known[buffer]) for buffer in stored]

    def _put_off(self, late: list[Block], known: Mapping[Var, Expr]) -> None:
        """Run consumers after the sum, from what it leaves in memory."""
        for block in late:
            self._check_injective(block)
            store = block.stores[0]
            if store.buffer in self.params:
                value = self._inline(store.value, known)
                self.after.append(
                    Block(block.name, block.axes, (Store(store.buffer, store.indices, value),))
                )
                sources = {load.source for load in collect(value, TensorLoad)}
                self.kept += [b for b in known if b in sources - self.params and b not in self.kept]

    def _narrow(
        self, block: Block, known: Mapping[Var, Expr], at: Mapping[Var, tuple[Expr, ...]]
    ) -> None:
        """Compute no more of the sum than `block` reads of it, if nothing else reads it."""
        extents = {axis.var: axis.extent for axis in block.axes}
        needed = {}
        for load in block.loads:
            if load.source in known:
                _, whole = merged_axes(load, at[load.source], block)
                for d, (index, own) in enumerate(zip(load.indices, at[load.source])):
                    if d not in whole and isinstance(own, Var) and not isinstance(index, tirx.Add):
                        needed[own] = extents.get(index, _index(1))
        for axis in self.axes:
            extent = needed.get(axis.var, axis.extent)
            if not analyzer([]).can_prove_equal(extent, axis.extent):
                if block.stores[0].buffer not in self.params:
                    raise _Declines(f"consumer '{block.name}' reads a part of the sum")
                self.narrowed = True
                self.axes = tuple(
                    Axis(a.var, extent, a.kind) if a is axis else a for a in self.axes
                )

    def _outputs(
        self, stored: list[Output], axes: list[Axis], values: dict[Var, Expr]
    ) -> tuple[Output, ...]:
        """`stored` over the axes of the contraction, producers inlined."""
        ana = analyzer(axes)
        return tuple(
            Output(
                out.buffer,
                tuple(ana.simplify(substitute(index, values)) for index in out.indices),
                _simplify_indices(self._inline(substitute(out.value, values)), ana),
            )
            for out in stored
        )


def _index(value: int) -> Expr:
    return tirx.const(value, "int64")


def _at(block: Block, value: Expr, indices: list[Expr]) -> Expr:
    """The value of an injective `block` at `indices` of its buffer."""
    mapping: dict[Var, Expr] = {axis.var: _index(0) for axis in block.axes}
    own_indices = block.stores[0].indices
    mapping |= {own: at for own, at in zip(own_indices, indices) if isinstance(own, Var)}
    return substitute(value, mapping)


def _only_load(value: Expr) -> TensorLoad | None:
    """The load that `value` is, casts aside."""
    while isinstance(value, tirx.Cast):
        value = value.value
    return value if isinstance(value, TensorLoad) else None


def _simplify_indices(value: Expr, ana: object) -> Expr:
    """`value` with the indices of every load simplified."""

    def visit(load: TensorLoad) -> Expr:
        return tirx.BufferLoad(load.source, [ana.simplify(i) for i in load.indices])  # type: ignore[attr-defined]

    return structural_map(value, (TensorLoad, visit))


def _simplified(block: Block) -> Block:
    """A block without a reduction, its loads at the simplest indices: a reshape may be none."""
    if block.is_reduction:
        return block
    ana = analyzer(block.axes)
    stores = (replace(s, value=_simplify_indices(s.value, ana)) for s in block.stores)
    return Block(block.name, block.axes, tuple(stores))


def _splits(product: Expr, axes: Iterable[Axis]) -> dict[Var, tuple[int, int]]:
    """The axes that an operand divides by a constant, as how many parts of what size."""
    divisors = {
        node.a: int(node.b.value)
        for node in collect(product, tirx.FloorDiv)
        if isinstance(node.a, Var) and constant(node.b) is not None
    }
    return {
        axis.var: (axis.size // divisors[axis.var], divisors[axis.var])
        for axis in axes
        if axis.var in divisors
        and axis.size
        and axis.size % divisors[axis.var] == 0
        and axis.kind == SPATIAL
    }


def _classify(
    axes: list[Axis], first: Operand, second: Operand, total: Var, outputs: tuple[Output, ...]
) -> Contraction:
    spatial = [axis for axis in axes if axis.kind == SPATIAL]
    uses = [variables(first.value), variables(second.value)]
    lhs, rhs = first, second
    if spatial and spatial[-1].var in uses[0] and spatial[-1].var not in uses[1]:
        lhs, rhs, uses = second, first, uses[::-1]
    batch: list[Axis] = []
    rows: list[Axis] = []
    cols: list[Axis] = []
    for position, axis in enumerate(spatial):
        in_lhs, in_rhs = (axis.var in names for names in uses)
        if in_rhs and not in_lhs:
            trailing = all(a.var in uses[1] and a.var not in uses[0] for a in spatial[position:])
            (cols if trailing else batch).append(axis)
        elif in_lhs and not in_rhs:
            rows.append(axis)
        else:
            batch.append(axis)
    reduce = tuple(axis for axis in axes if axis.kind != SPATIAL)
    return Contraction(tuple(batch), tuple(rows), tuple(cols), reduce, lhs, rhs, total, outputs)
