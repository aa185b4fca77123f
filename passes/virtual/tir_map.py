"""The map of any operator, read off its TIR, if every output element is a copy of an input element.

    out[x] = in[index(x)]                         one read
    out[x] = if_then_else(c(x), in[i(x)], 0.0)    pieces: the first whose condition holds

A function is a list of such blocks; blocks in between are composed away. So an operator needs no
rule of its own to take part: its legalization says what it does. Where an index is data, the
expression of passes/indexing.py around it is a `Lookup`. Other conditions within an index (mirror
padding) are declined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import ir, s_tir, tirx

from tvmext.frontends.dims import Expr

from ..indexing import read_position
from .gather import lookup_of
from .piece import Guard, Lookup, Piece, local, locals_of, scope_of
from .prims import Prims, UnmappedError
from .scope import Scope, Size
from .tensor import VirtualTensor, filled, layered


def map_of(
    func: tirx.PrimFunc,
    inputs: Sequence[VirtualTensor],
    sizes: Sequence[Size] = (),
    results: Sequence[Sequence[Size]] = (),
) -> list[VirtualTensor]:
    """What a function with the given inputs writes to its outputs, the last buffers it takes.

    `sizes` are the values of its integer parameters, `results` the shapes of its outputs, which may
    have dims of their own. Raises UnmappedError, with the reason, if the function does anything but
    copy elements, or has a size of which nothing says what it is.
    """
    buffers = [p for p in func.params if tirx.is_buffer_var(p)]
    scalars = [p for p in func.params if not tirx.is_buffer_var(p)]
    reader = _Function(dict(zip(buffers, inputs)))
    for param, size in zip(scalars, sizes):
        reader.bind(param, size)
    shapes = [*(tensor.shape for tensor in inputs), *results]
    for buffer, shape in zip(buffers, shapes):
        for prim, size in zip(buffer.shape, shape, strict=True):
            reader.bind(prim, size)
    for block, extents in _blocks(func):
        reader.block(block, extents)
    return [reader.written(buffer) for buffer in buffers[len(inputs) :]]


@dataclass(frozen=True)
class _Branch:
    """A way to an element: the guards that lead there, and the read or constant at the end."""

    guards: tuple[Guard, ...]
    value: Any


class _Function:
    """Evaluates blocks over virtual tensors."""

    def __init__(self, tensors: Mapping[Any, VirtualTensor]) -> None:
        self.tensors = dict(tensors)
        self.sizes: dict[ir.Var, Size] = {}

    def bind(self, prim: Any, size: Size) -> None:
        """A variable of the function, where a shape consists of it alone."""
        if isinstance(prim, ir.Var):
            self.sizes.setdefault(prim, size)

    def written(self, buffer: Any) -> VirtualTensor:
        """The tensor in a buffer. Raises UnmappedError if no block was seen to write it."""
        if buffer not in self.tensors:
            raise UnmappedError("an output is not written by a copy of elements")
        return self.tensors[buffer]

    def block(self, block: Any, extents: Sequence[Any]) -> None:
        """Evaluates one block and remembers what it wrote."""
        store = block.body
        if block.init is not None or not isinstance(store, tirx.BufferStore):
            raise UnmappedError("a block is not a single store")
        axes = [iter_var.var for iter_var in block.iter_vars]
        if list(store.indices) != axes:
            raise UnmappedError("a block does not write its elements in order")
        known = {**self.sizes, **{axis: local(k) for k, axis in enumerate(axes)}}
        shape = tuple(_Known(known).size(extent) for extent in extents)
        index = _Index(known, shape, self.tensors)
        if shape != tuple(index.size(size) for size in store.buffer.shape):
            raise UnmappedError("a block writes a part of its buffer")
        pieces: list[Piece] = []
        for branch in index.branches(store.value, ()):
            pieces += index.pieces(branch)
        self.tensors[store.buffer] = layered(shape, pieces)


class _Known(Prims):
    """TIR expressions over known variables alone: others are names of the function's own."""

    def _symbol(self, var: ir.Var) -> Expr:
        raise UnmappedError(f"nothing says what the size {var.name} is")


class _Index(_Known):
    """TIR expressions over the axes of one block; where they are data, they have lookups."""

    def __init__(
        self,
        known: Mapping[ir.Var, Size],
        extents: tuple[Size, ...],
        tensors: Mapping[Any, VirtualTensor],
    ) -> None:
        super().__init__(known)
        self.extents = extents
        self.tensors = tensors
        self.lookups: dict[str, Lookup] = {}

    @property
    def scope(self) -> Scope:
        return scope_of(self.extents, tuple(self.lookups.values()))

    def size(self, prim: Any) -> Size:
        """The expression in the algebra, the symbol of a lookup for a position that is data."""
        found = read_position(prim)
        if found is None or not isinstance(found[0], ir.TensorLoad):
            return super().size(prim)
        load, extent, mode = found
        return self._looked_up(load, super().size(extent), mode)

    def _looked_up(self, load: ir.TensorLoad, extent: Size, mode: str) -> Size:
        where = {f"_x{k}": self.size(prim) for k, prim in enumerate(load.indices)}
        lookup = lookup_of(self._source(load), where, extent, mode)
        self.lookups[lookup.name] = lookup
        return lookup.symbol

    def branches(self, value: Any, guards: tuple[Guard, ...]) -> list[_Branch]:
        """The ends of a tree of conditional expressions, in the order in which they apply."""
        parts = _conditional(value)
        if parts is None:
            return [_Branch(guards, value)]
        condition, then, other = parts
        ways = [
            branch
            for alternative in self.alternatives(condition, True)
            for branch in self.branches(then, guards + alternative)
        ]
        return ways + self.branches(other, guards)

    def alternatives(self, condition: Any, truth: bool) -> list[tuple[Guard, ...]]:
        """Lists of guards, one of which holds completely where the condition has this truth."""
        if isinstance(condition, tirx.Not):
            return self.alternatives(condition.a, not truth)
        if isinstance(condition, tirx.And | tirx.Or):
            left = self.alternatives(condition.a, truth)
            right = self.alternatives(condition.b, truth)
            if isinstance(condition, tirx.And) is truth:
                return [a + b for a in left for b in right]
            return left + right
        if isinstance(condition, tirx.IntImm):
            return [()] if bool(condition.value) is truth else []
        if type(condition) not in _COMPARE:
            raise UnmappedError(f"the condition {condition} is not a comparison of indices")
        compare, sense = _COMPARE[type(condition)]
        difference = self.size(condition.a) - self.size(condition.b)
        low, high = self.scope.bounds(difference)
        if low is None or high is None:
            raise UnmappedError(f"the condition {condition} compares values without bounds")
        return [(guard,) for guard in compare(difference, low, high, truth is sense)]

    def pieces(self, branch: _Branch) -> list[Piece]:
        """What the branch contributes to the tensor that the block writes."""
        source, index = self._end(branch.value)
        return source.read(self.extents, index, tuple(self.lookups.values()), branch.guards)

    def _end(self, value: Any) -> tuple[VirtualTensor, Sequence[Size]]:
        """A tensor, and where in it the value is that a branch ends with."""
        if isinstance(value, tirx.IntImm | tirx.FloatImm):
            return filled(self.extents, value.value), locals_of(len(self.extents))
        if not isinstance(value, ir.TensorLoad):
            raise UnmappedError(f"{value} is computed, not copied")
        source = self._source(value)
        at = zip(value.indices, source.shape, strict=True)
        return source, [self._index(prim, extent) for prim, extent in at]

    def _index(self, prim: Any, extent: Size) -> Size:
        """An index along an axis; data that nobody keeps within the axis is clamped."""
        inner = prim.value if isinstance(prim, tirx.Cast) else prim
        if isinstance(inner, ir.TensorLoad):
            return self._looked_up(inner, extent, "fast")
        return self.size(prim)

    def _source(self, load: ir.TensorLoad) -> VirtualTensor:
        if load.source not in self.tensors:
            raise UnmappedError("a block reads what no block before it wrote")
        return self.tensors[load.source]


def _conditional(value: Any) -> tuple[Any, Any, Any] | None:
    if isinstance(value, tirx.Select):
        return value.condition, value.true_value, value.false_value
    if isinstance(value, ir.Call) and getattr(value.op, "name", "") == "prim.if_then_else":
        return tuple(value.args)
    return None


def _below(value: Size, low: Size, high: Size, truth: bool) -> list[Guard]:
    """value < 0, or its opposite, for a value in [low, high]."""
    return [Guard(value, low, 0) if truth else Guard(value, 0, high + 1)]


def _above(value: Size, low: Size, high: Size, truth: bool) -> list[Guard]:
    """value > 0, or its opposite."""
    return [Guard(value, 1, high + 1) if truth else Guard(value, low, 1)]


def _equal(value: Size, low: Size, high: Size, truth: bool) -> list[Guard]:
    """value == 0, or its opposite."""
    if truth:
        return [Guard(value, 0, 1)]
    return [Guard(value, low, 0), Guard(value, 1, high + 1)]


_COMPARE: dict[type, tuple[Callable[[Size, Size, Size, bool], list[Guard]], bool]] = {
    tirx.LT: (_below, True),
    tirx.GE: (_below, False),
    tirx.GT: (_above, True),
    tirx.LE: (_above, False),
    tirx.EQ: (_equal, True),
    tirx.NE: (_equal, False),
}
"""What each comparison of a with b says about a - b: a relation to 0, or its opposite."""


def _blocks(func: tirx.PrimFunc) -> list[tuple[Any, list[Any]]]:
    """The blocks in order, each with the extents of the plain loops around it."""
    root = func.body
    if isinstance(root, s_tir.SBlockRealize) and not root.block.iter_vars:
        root = root.block.body
    statements = list(root.seq) if isinstance(root, tirx.SeqStmt) else [root]
    return [_nest(statement) for statement in statements]


def _nest(statement: Any) -> tuple[Any, list[Any]]:
    loops, extents = [], []
    while isinstance(statement, tirx.For):
        loops.append(statement.loop_var)
        extents.append(statement.extent)
        statement = statement.body
    if not isinstance(statement, s_tir.SBlockRealize):
        raise UnmappedError("a loop nest does not hold a block")
    if list(statement.iter_values) != loops:
        raise UnmappedError("a block's axes are not its loops")
    return statement.block, extents
