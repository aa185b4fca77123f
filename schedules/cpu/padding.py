"""The padding of a window as bounds: which reads lie inside, for loops and guards.

low <= stride * axis + step * tap < high          for each dim over which a window slides
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from tvm import sym, tirx
from tvm.ir import Call, Expr, Var

from ..kernel.analysis import (
    Axis,
    Block,
    analyzer,
    constant,
    replace_loads,
    stride,
    substitute,
    variables,
)
from ..kernel.contraction import Contraction
from ..kernel.emit import Size, Values, ceildiv, index, known, least, most

Limits: TypeAlias = tuple[Expr | None, Expr | None]
"""The first index inside and the first one past it, where there is such a limit."""


def padded_box(
    source: Block,
) -> tuple[dict[Var, Limits], Expr, Expr] | None:
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
    limits: dict[Var, Limits] = {}
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
    """``low <= v``, ``v < high`` or ``v <= last``, either way round, as (v, low, high)."""
    for kind, mirrored in ((tirx.LE, tirx.GE), (tirx.LT, tirx.GT)):
        if isinstance(term, kind | mirrored):
            less, more = (term.a, term.b) if isinstance(term, kind) else (term.b, term.a)
            past = 1 if kind is tirx.LE else 0
            if isinstance(more, Var) and not variables(less) & axes:
                return more, less + (1 - past), None
            if isinstance(less, Var) and not variables(more) & axes:
                return less, None, more + past
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
    return None if total.lhs.source is None else _bounds(total, closed=False)


def reach(total: Contraction) -> Padding | None:
    """What `lhs` reads as bounds with both sides: those of the picture, where padding has none."""
    return _bounds(total, closed=True)


def _bounds(total: Contraction, closed: bool) -> Padding | None:
    operand = total.lhs
    if operand.load is None:
        return None
    load, source = operand.load, operand.source
    limits: list[Limits] = [(None, None)] * len(load.indices)
    value = operand.value
    axes = (*total.batch, *total.rows, *total.cols, *total.reduce)
    ana = analyzer(axes, load.source.shape)
    if source is not None:
        box = padded_box(source)
        if box is None or box[2].value != 0:
            return None
        found, inner, _zero = box
        store = source.stores[0]
        point = {axis.var: index(0) for axis in source.axes}
        point |= {own: at for own, at in zip(store.indices, load.indices) if isinstance(own, Var)}
        limits = [found.get(own, (None, None)) for own in store.indices]
        moved = substitute(inner, point)
        value = replace_loads(operand.factor, load.source, lambda _at: moved)
    bounds = []
    for at, extent, (low, high) in zip(load.indices, load.source.shape, limits):
        if closed and _slides(at, total):
            low, high = index(0) if low is None else low, extent if high is None else high
        if low is None and high is None:
            continue
        bound = _as_bound(at, (low, high), total, ana)
        if bound is None:
            return None
        bounds.append(bound)
    return Padding(value, tuple(bounds))


def _slides(at: Expr, total: Contraction) -> bool:
    """Whether an index adds up a row and a reduce axis."""
    used = variables(at)
    return all(any(axis.var in used for axis in axes) for axes in (total.rows, total.reduce))


def _as_bound(at: Expr, limits: Limits, total: Contraction, ana: sym.Analyzer) -> Bound | None:
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
