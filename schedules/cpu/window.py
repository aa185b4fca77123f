"""The loader stage of a convolution: a part of the input, padded, in a buffer of its own.

    stage[h, w, c] = source[h + first, w, c]          zero outside of the picture

Inner loops then read a window with constant strides and no guard. A block of output rows stages
only the input rows that it needs, so that they stay in the cache. Where single elements are read
from it, the stage keeps the order that its source has in memory: a picture that comes as [c, h, w]
is staged so. Words (words.py) need the channels side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

from tvm import tirx
from tvm.ir import Expr, Var

from ..kernel.analysis import (
    Axis,
    Block,
    analyzer,
    constant,
    flat_index,
    replace_loads,
    stride,
    substitute,
    variables,
)
from ..kernel.contraction import Contraction
from ..kernel.emit import (
    PARALLEL,
    Size,
    Values,
    allocate,
    block,
    index,
    known,
    least,
    loop,
    most,
    nest,
)
from ..kernel.stages import Point, Write
from ..kernel.stages import Stage as Computed
from .after import PARALLEL_ELEMENTS, along
from .guards import cut
from .math import approximate
from .padding import padded_box


@dataclass(frozen=True)
class Filling:
    """How a part of a window is filled: in vectors of `lanes`, `begin` being where it begins."""

    lanes: int
    begin: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Stage:
    """The window of `source` over which some `moving` axes slide, from where the others are."""

    sum: Contraction
    source: Block
    moving: tuple[Axis, ...]
    extents: tuple[Size, ...]
    order: tuple[int, ...]
    """The dims of the source in the order in which the stage has them."""
    buffer: Var

    @staticmethod
    def of(
        total: Contraction,
        moving: dict[Axis, Size],
        *,
        words: bool = False,
        spelled: Mapping[Var, Expr] = MappingProxyType({}),
    ) -> Stage | None:
        """The stage for `moving` axes and how far each moves, or None if indices are not affine.

        `spelled` has the sizes among them that the kernel computes: TVM takes memory at the
        beginning of a kernel, before they have their names.
        """
        operand = total.lhs
        if operand.source is None or operand.load is None:
            return None
        extents = window(total, moving)
        if extents is None:
            return None
        order = tuple(range(len(extents))) if words else _memory_order(operand.source)
        shape = [known(substitute(index(extents[dim]), dict(spelled))) for dim in order]
        buffer = allocate(shape, str(operand.load.source.dtype), "window")
        return Stage(total, operand.source, tuple(moving), extents, order, buffer)

    def read(self, at: Values, k: Values) -> Expr:
        """The `lhs` factor; `at` gives the moving axes relative to where the window is."""
        load = self.sum.lhs.load
        assert load is not None
        point = {**_zeros(self.sum), **{a.var: at[a.var] for a in self.moving if a.var in at}, **k}
        origin = _zeros(self.sum)
        ana = analyzer(())
        where = [ana.simplify(substitute(i, point) - substitute(i, origin)) for i in load.indices]
        moved = tirx.BufferLoad(self.buffer, [where[dim] for dim in self.order])
        return replace_loads(self.sum.lhs.factor, load.source, lambda _at: moved)

    def fill(self, at: Values, lanes: int, parallel: bool = False) -> tirx.Stmt:
        """Copy the window that starts where `at` puts the axes of the contraction.

        Where one core computes a block, `parallel` says that others may help with the window.
        """
        load = self.sum.lhs.load
        assert load is not None
        origin = {**_zeros(self.sum), **at}
        ana = analyzer(())
        first = [ana.simplify(substitute(i, origin)) for i in load.indices]
        counts = [
            known(least(extent, load.source.shape[dim] - first[dim]))
            if isinstance(known(extent), int) and known(load.source.shape[dim]) != extent
            else extent
            for dim, extent in enumerate(self.extents)
        ]
        elements = known(prod(self.buffer.shape))
        many = not isinstance(elements, int) or elements >= PARALLEL_ELEMENTS
        lines = next(dim for dim in self.order if known(counts[dim]) != 1 or dim == self.order[-1])
        spread = parallel and many and lines != self.order[-1]

        def line(number: Expr) -> tirx.Stmt:
            begin, some = [index(0)] * len(first), list(counts)
            if spread:
                begin[lines], some[lines] = number, 1
            origin = [at + more for at, more in zip(first, begin)]
            return self._copy(origin, some, Filling(lanes, tuple(begin)))

        work = loop(counts[lines], line, PARALLEL, "line") if spread else line(index(0))
        return block(tirx.AllocBuffer(self.buffer), work)

    def _copy(self, first: list[Expr], counts: list[Size], how: Filling) -> tirx.Stmt:
        store = self.source.stores[0]
        box = padded_box(self.source)
        if box is None:
            return self._parts([index(0)] * len(first), counts, first, store.value, how)
        limits, inner, fill = box
        low, size = [], []
        for dim, own in enumerate(store.indices):
            bounds = limits.get(own) if isinstance(own, Var) else None
            lower, upper = bounds or (None, None)
            begin = index(0) if lower is None else tirx.max(lower - first[dim], index(0))
            end = counts[dim] if upper is None else least(counts[dim], upper - first[dim])
            low.append(begin)
            size.append(known(analyzer(()).simplify(index(most(end - begin, 0)))))
        zero = self._rows([index(0)] * len(first), list(counts), first, fill, how)
        return block(zero, self._parts(low, size, first, inner, how))

    def _parts(
        self, low: list[Expr], counts: list[Size], first: list[Expr], value: Expr, how: Filling
    ) -> tirx.Stmt:
        """`_rows`, apart for each part of `value` in which its conditions are decided.

        The parts are those of a concat, for instance, which is computed from as many tensors.
        """
        store = self.source.stores[0]
        point = Point((), (value,))
        whole = Computed("", self.source.axes, (), (Write(store.buffer, store.indices),), point)
        pieces = cut(whole)
        if len(pieces) == 1:
            return self._rows(low, counts, first, value, how)
        return block(*(self._part(piece, low, counts, first, how) for piece in pieces))

    def _part(
        self,
        piece: Computed,
        low: list[Expr],
        counts: list[Size],
        first: list[Expr],
        how: Filling,
    ) -> tirx.Stmt:
        """What of the rows lies in a piece."""
        store, ana = self.source.stores[0], analyzer(())
        own = {axis.var: new for axis, new in zip(self.source.axes, piece.spatial)}
        names, start, size = {}, list(low), list(counts)
        for dim, (var, at) in enumerate(zip(store.indices, piece.writes[0].indices)):
            if not isinstance(var, Var):
                continue
            axis = own[var]
            begin = ana.simplify(substitute(at, {axis.var: index(0)}))
            names[axis.var] = var - begin
            if known(axis.extent) != known(store.buffer.shape[dim]):
                start[dim] = most(begin - first[dim], low[dim])
                end = least(begin + axis.extent - first[dim], low[dim] + counts[dim])
                size[dim] = known(ana.simplify(index(most(end - start[dim], 0))))
        value = substitute(piece.point.values[0], names)
        return self._rows(start, size, first, value, how)

    def _rows(
        self, low: list[Expr], counts: list[Size], first: list[Expr], value: Expr, how: Filling
    ) -> tirx.Stmt:
        """``stage[low + i] = value(first + low + i)`` for i below `counts`, in vectors."""
        store = self.source.stores[0]

        def put(at: list[Expr]) -> tirx.Stmt:
            where = [begin + i for begin, i in zip(low, at)]
            point = {axis.var: index(0) for axis in self.source.axes}
            for own, start, i in zip(store.indices, first, where):
                if isinstance(own, Var):
                    point[own] = start + i
            stage = [how.begin[dim] + where[dim] for dim in self.order]
            names, computed = approximate(substitute(value, point))
            binds = (tirx.Bind(var, expr) for var, expr in names)
            return block(*binds, tirx.BufferStore(self.buffer, computed, stage))

        def dims(at: list[Expr]) -> list[Expr]:
            return [at[self.order.index(dim)] for dim in range(len(at))]

        *outer, last = (counts[dim] for dim in self.order)
        width = self._fusable(outer, last)
        if width is None:
            return nest(outer, lambda at: along(last, how.lanes, lambda i: put(dims([*at, i]))))
        return nest(
            outer[:-1],
            lambda at: along(
                known(outer[-1] * width),
                how.lanes,
                lambda i: put(dims([*at, i // width, i % width])),
            ),
        )

    def _fusable(self, outer: list[Size], last: Size) -> int | None:
        """The innermost extent if two dims can be copied as one: short pixels, such as RGB."""
        full = known(self.buffer.shape[-1])
        short = isinstance(last, int) and last == full and last < 16 and bool(outer)
        return last if short else None


def _memory_order(source: Block) -> tuple[int, ...]:
    """The dims of what a block computes, last the one along which its only load is contiguous."""
    store = source.stores[0]
    dims = tuple(range(len(store.indices)))
    if len(source.loads) != 1:
        return dims
    offset, ana = flat_index(source.loads[0]), analyzer(source.axes)
    for dim in reversed(dims):
        own = store.indices[dim]
        step = stride(offset, own, ana) if isinstance(own, Var) else None
        if step is not None and constant(step) == 1:
            return (*dims[:dim], *dims[dim + 1 :], dim)
    return dims


def window(total: Contraction, moving: dict[Axis, Size]) -> tuple[Size, ...] | None:
    """How many elements of each dim `lhs` reads while `moving` and reduce axes move."""
    load = total.lhs.load
    assert load is not None
    axes = (*total.batch, *total.rows, *total.reduce)
    ana = analyzer(axes, load.source.shape)
    spans = {**moving, **{axis: known(axis.extent) for axis in total.reduce}}
    extents: list[Size] = []
    for at in load.indices:
        extent: Size = 1
        for axis, span in spans.items():
            if axis.var not in variables(at):
                continue
            step = stride(at, axis.var, ana)
            factor = None if step is None else constant(step)
            if factor is None or factor < 0:
                return None
            extent = known(extent + (span - 1) * factor)
        extents.append(known(ana.simplify(index(extent))))
    return tuple(extents)


def _zeros(total: Contraction) -> dict[Var, Expr]:
    return {axis.var: index(0) for axis in (*total.batch, *total.rows, *total.reduce)}
