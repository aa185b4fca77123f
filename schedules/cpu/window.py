"""The loader stage of a convolution: a part of the input, padded, in a buffer of its own.

    stage[h, w, c] = source[h + first, w, c]          zero outside of the picture

Inner loops then read a window with constant strides and no guard. A block of output rows stages
only the input rows that it needs, so that they stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tvm import sym, tirx
from tvm.ir import Call, Expr, Var

from ..analysis import Axis, Block, analyzer, constant, replace_loads, stride, substitute, variables
from .after import along
from .contraction import Contraction
from .emit import (
    Size,
    Values,
    allocate,
    block,
    ceildiv,
    index,
    known,
    least,
    most,
    nest,
)


@dataclass(frozen=True, eq=False)
class Stage:
    """The window of `source` over which some `moving` axes slide, from where the others are."""

    sum: Contraction
    source: Block
    moving: tuple[Axis, ...]
    extents: tuple[Size, ...]
    buffer: Var

    @staticmethod
    def of(total: Contraction, moving: dict[Axis, Size]) -> Stage | None:
        """The stage for `moving` axes and how far each moves, or None if indices are not affine."""
        operand = total.lhs
        if operand.source is None or operand.load is None:
            return None
        extents = window(total, moving)
        if extents is None:
            return None
        buffer = allocate(extents, str(operand.load.source.dtype), "window")
        return Stage(total, operand.source, tuple(moving), extents, buffer)

    def read(self, at: Values, k: Values) -> Expr:
        """The `lhs` factor; `at` gives the moving axes relative to where the window is."""
        load = self.sum.lhs.load
        assert load is not None
        point = {**_zeros(self.sum), **{a.var: at[a.var] for a in self.moving if a.var in at}, **k}
        origin = _zeros(self.sum)
        ana = analyzer(())
        where = [ana.simplify(substitute(i, point) - substitute(i, origin)) for i in load.indices]
        moved = tirx.BufferLoad(self.buffer, where)
        return replace_loads(self.sum.lhs.factor, load.source, lambda _at: moved)

    def fill(self, at: Values, lanes: int) -> tirx.Stmt:
        """Copy the window that starts where `at` puts the axes of the contraction."""
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
        return block(tirx.AllocBuffer(self.buffer), self._copy(first, counts, lanes))

    def _copy(self, first: list[Expr], counts: list[Size], lanes: int) -> tirx.Stmt:
        store = self.source.stores[0]
        box = _padded_box(self.source)
        if box is None:
            return self._rows([index(0)] * len(first), counts, first, store.value, lanes)
        limits, inner, fill = box
        low, size = [], []
        for dim, own in enumerate(store.indices):
            bounds = limits.get(own) if isinstance(own, Var) else None
            lower, upper = bounds or (None, None)
            begin = index(0) if lower is None else tirx.max(lower - first[dim], index(0))
            end = counts[dim] if upper is None else least(counts[dim], upper - first[dim])
            low.append(begin)
            size.append(known(analyzer(()).simplify(index(most(end - begin, 0)))))
        zero = self._rows([index(0)] * len(first), list(counts), first, fill, lanes)
        return block(zero, self._rows(low, size, first, inner, lanes))

    def _rows(
        self, low: list[Expr], counts: list[Size], first: list[Expr], value: Expr, lanes: int
    ) -> tirx.Stmt:
        """``stage[low + i] = value(first + low + i)`` for i below `counts`, in vectors."""
        store = self.source.stores[0]

        def put(at: list[Expr]) -> tirx.Stmt:
            where = [begin + i for begin, i in zip(low, at)]
            point = {axis.var: index(0) for axis in self.source.axes}
            for own, start, i in zip(store.indices, first, where):
                if isinstance(own, Var):
                    point[own] = start + i
            return tirx.BufferStore(self.buffer, substitute(value, point), where)

        *outer, last = counts
        fused = self._fusable(outer, last)
        if fused is None:
            return nest(outer, lambda at: along(last, lanes, lambda i: put([*at, i])))
        width = fused
        return nest(
            outer[:-1],
            lambda at: along(
                known(outer[-1] * width), lanes, lambda i: put([*at, i // width, i % width])
            ),
        )

    def _fusable(self, outer: list[Size], last: Size) -> int | None:
        """The innermost extent if two dims can be copied as one: short pixels, such as RGB."""
        full = known(self.buffer.shape[-1])
        short = isinstance(last, int) and last == full and last < 16 and bool(outer)
        return last if short else None


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


def _padded_box(
    source: Block,
) -> tuple[dict[Var, tuple[Expr | None, Expr | None]], Expr, Expr] | None:
    """Read ``if_then_else(low <= v and v < high and .., inner, constant)`` off a block.

    Returns the bounds of each axis, the inner value and the constant.
    """
    value = source.stores[0].value
    if not (isinstance(value, Call) and value.op.name == "prim.if_then_else"):
        return None
    condition, inner, fill = value.args
    if variables(fill) or not isinstance(fill, tirx.FloatImm | tirx.IntImm):
        return None
    axes = {axis.var for axis in source.axes}
    limits: dict[Var, tuple[Expr | None, Expr | None]] = {}
    for term in _conjuncts(condition):
        bound = _bound(term, axes)
        if bound is None:
            return None
        var, low, high = bound
        old_low, old_high = limits.get(var, (None, None))
        if (low is not None and old_low is not None) or (high is not None and old_high is not None):
            return None
        limits[var] = (old_low if low is None else low, old_high if high is None else high)
    return limits, inner, fill


def _conjuncts(condition: Expr) -> Iterable[Expr]:
    if isinstance(condition, tirx.And):
        yield from _conjuncts(condition.a)
        yield from _conjuncts(condition.b)
    else:
        yield condition


def _bound(term: Expr, axes: set[Var]) -> tuple[Var, Expr | None, Expr | None] | None:
    """``low <= v`` or ``v < high`` as (v, low, high)."""
    if isinstance(term, tirx.LE) and isinstance(term.b, Var) and not variables(term.a) & axes:
        return term.b, term.a, None
    if isinstance(term, tirx.GE) and isinstance(term.a, Var) and not variables(term.b) & axes:
        return term.a, term.b, None
    if isinstance(term, tirx.LT) and isinstance(term.a, Var) and not variables(term.b) & axes:
        return term.a, None, term.b
    return None


@dataclass(frozen=True, eq=False)
class Padding:
    """The padding of a window as bounds of its reduce axes, for loops that skip it.

    `value` is the `lhs` factor where it is not padding. `bounds` has, for each padded dim, the
    spatial axis, the reduce axis, and low <= stride * spatial + step * reduce < high.
    """

    value: Expr
    bounds: tuple[Bound, ...]

    def ranges(self, at: Values, skip: Axis | None) -> dict[Var, tuple[Expr, Expr]]:
        """(first, count) of each reduce axis at the spatial position `at`, but for axis `skip`."""
        return {
            bound.tap.var: bound.range(at[bound.axis.var])
            for bound in self.bounds
            if bound.axis is not skip and bound.axis.var in at
        }

    def inside(self, axis: Axis) -> tuple[Size, Size]:
        """The first and one past the last position along `axis` whose window is not cut off."""
        begin: Size = 0
        end = known(axis.extent)
        for bound in self.bounds:
            if bound.axis is axis:
                first, last = bound.inside()
                begin, end = most(begin, first), least(end, last)
        return least(begin, known(axis.extent)), most(end, 0)


@dataclass(frozen=True, eq=False)
class Bound:
    """``low <= stride * axis + step * tap < high``, each side optional."""

    axis: Axis
    tap: Axis
    stride: int
    step: int
    low: Size | None
    high: Size | None

    def range(self, at: Expr) -> tuple[Expr, Expr]:
        """The first tap inside and how many there are."""
        first: Size = 0
        end: Size = known(self.tap.extent)
        if self.low is not None:
            first = most(0, -((at * self.stride - self.low) // self.step))
        if self.high is not None:
            end = least(end, -((at * self.stride - self.high) // self.step))
        return index(first), tirx.max(index(end) - index(first), index(0))

    def inside(self) -> tuple[Size, Size]:
        """The range of `axis` over which every tap is inside."""
        reach = (known(self.tap.extent) - 1) * self.step
        begin = 0 if self.low is None else ceildiv(self.low, self.stride)
        if self.high is None:
            return begin, known(self.axis.extent)
        return begin, known((self.high - 1 - reach) // self.stride + 1)


def padding(total: Contraction) -> Padding | None:
    """The padding of `lhs` as bounds, or None if it has none or cannot be read as bounds."""
    operand = total.lhs
    if operand.source is None or operand.load is None:
        return None
    box = _padded_box(operand.source)
    if box is None or box[2].value != 0:
        return None
    limits, inner, _zero = box
    axes = (*total.batch, *total.rows, *total.cols, *total.reduce)
    ana = analyzer(axes, operand.load.source.shape)
    bounds = []
    store = operand.source.stores[0]
    point = {axis.var: index(0) for axis in operand.source.axes}
    for own, at in zip(store.indices, operand.load.indices):
        if not isinstance(own, Var):
            continue
        point[own] = at
        if own in limits:
            bound = _as_bound(at, limits[own], total, ana)
            if bound is None:
                return None
            bounds.append(bound)
    moved = substitute(inner, point)
    value = replace_loads(operand.factor, operand.load.source, lambda _at: moved)
    return Padding(value, tuple(bounds))


def _as_bound(
    at: Expr, limits: tuple[Expr | None, Expr | None], total: Contraction, ana: sym.Analyzer
) -> Bound | None:
    used = variables(at)
    rows = [axis for axis in total.rows if axis.var in used]
    taps = [axis for axis in total.reduce if axis.var in used]
    if len(rows) != 1 or len(taps) != 1:
        return None
    factors = [constant(stride(at, axis.var, ana)) for axis in (*rows, *taps)]
    offset = ana.simplify(substitute(at, {axis.var: index(0) for axis in (*rows, *taps)}))
    if variables(offset) & {axis.var for axis in (*total.batch, *total.reduce)}:
        return None
    if any(factor is None or factor < 1 for factor in factors):
        return None
    low, high = (None if n is None else known(ana.simplify(n - offset)) for n in limits)
    stride_, step = factors
    assert stride_ is not None and step is not None
    return Bound(rows[0], taps[0], stride_, step, low, high)
