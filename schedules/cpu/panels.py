"""Where the vectors of `rhs` come from: panels ``[batch.., N/NR, k.., NR]``.

Three ways to have them: a weight is laid out at compile time; any other operand is packed panel by
panel inside the kernel, into a buffer that stays in the cache while all rows pass over it; or rows
are so few that packing would read as much as it saves, and vectors are loaded in place
(in_place.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import dtype_bits

from ..kernel.analysis import (
    Axis,
    analyzer,
    constant,
    flat_index,
    replace_loads,
    stride,
    substitute,
    variables,
)
from ..kernel.contraction import Contraction, size
from ..kernel.emit import (
    VECTORIZED,
    Size,
    Values,
    allocate,
    block,
    ceildiv,
    index,
    known,
    least,
    loop,
    nest,
    vectors,
    zeros,
)
from ..levels import LINE_BYTES
from ..rule import Layout
from . import masks
from .in_place import in_line
from .maps import turned
from .panel import Panel
from .tile import Ahead, Shape

Reader = Callable[[Panel, Values, Expr], Expr]


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight in panels: the parameter that replaces the old one, and the map between them."""

    buffer: Var
    layout: Layout
    read: Reader
    first: Callable[[Panel], list[Expr]]
    """The indices of the first element of a panel."""
    step: int = 1
    """Neighbours along the last reduce axis that lie side by side, as the last dim."""

    def prefetch(self, panel: Panel, tile: Expr, tiles: int, steps: Size) -> Ahead:
        """Bring the next panel into L2 while `tiles` tiles of `steps` steps use this one.

        A panel is read from beyond L2 by its first tile otherwise, which then waits for memory
        while the other tiles leave it idle. Prefetching past the end of a weight does no harm.
        """
        row = panel.width * self.step
        elements = -(-row // tiles)
        line = LINE_BYTES * 8 // dtype_bits(str(self.buffer.dtype))
        at = self.first(panel)

        def ahead(step: Expr, count: int) -> tirx.Stmt:
            following = index(row) * steps
            done = least(tile, tiles - 1) * steps + step
            first = at[-1] + following + done * elements
            places = [[*at[:-1], first + more] for more in range(0, elements * count, line)]
            return block(*(fetch(tirx.BufferLoad(self.buffer, place)) for place in places))

        return ahead


def fetch(element: Expr, level: int = 2) -> tirx.Stmt:
    """Prefetch the cache line of `element` into L1 or L2, for reading."""
    read, keep, data = (tirx.const(n, "int32") for n in (0, 4 - level, 1))
    address = tirx.address_of(element)
    call = tirx.call_intrin("void", "tirx.prefetch", address, read, keep, data)
    return tirx.Evaluate(call)


def weight(
    total: Contraction, shape: Shape, step: int = 1, inside: tuple[Axis, ...] = ()
) -> Weight | None:
    """Lay the weight that `rhs` reads out in panels, or None if its indices cannot be inverted.

    With `step` > 1 that many neighbours along the last reduce axis are one dim more, the last.
    A panel holds all points of the batch axes `inside`; the other batch axes hold panels.
    """
    load = total.rhs.load
    assert load is not None
    old = load.source
    extents = [constant(n) for n in old.shape]
    dims = [Var(f"d{i}", "int64") for i in range(len(extents))]
    used = _used(load.indices)
    batch = [axis for axis in total.batch if axis.var in used and axis not in inside]
    axes = (*batch, *inside, *total.cols, *total.reduce)
    place = _invert(load.indices, extents, dims, axes)
    if place is None:
        return None
    column: Expr = index(0)
    for axis in total.cols:
        column = column * axis.extent + place[axis.var]
    width = shape.cols
    columns = size(total.cols)
    panels = ceildiv(columns, width)
    counts = [axis.size or 0 for axis in batch]
    depths = [axis.size or 0 for axis in (*inside, *total.reduce)]
    if not isinstance(panels, int) or 0 in counts + depths:
        return None
    ana = analyzer([Axis(d, index(n), "spatial") for d, n in zip(dims, extents) if n])
    ks = [place[axis.var] for axis in (*inside, *total.reduce)]
    final = [*(place[axis.var] for axis in batch), column // width, *ks, column % width]
    new_shape = (*counts, panels, *depths, width)
    if step > 1:
        final[-2:] = [ks[-1] // step, column % width, ks[-1] % step]
        new_shape = (*new_shape[:-2], -(-depths[-1] // step), width, step)
    index_map = tirx.IndexMap(dims, [ana.simplify(e) for e in final], None)
    buffer = tirx.decl_buffer([index(n) for n in new_shape], str(old.dtype), old.name)

    def panel_at(panel: Panel) -> list[Expr]:
        outer, inner = ([panel.at[axis.var] for axis in axes] for axes in (batch, inside))
        return [*outer, panel.number, *inner]

    def read(panel: Panel, k: Values, j: Expr) -> Expr:
        where = [*panel_at(panel), *(k[axis.var] for axis in total.reduce), j]
        return replace_loads(total.rhs.value, old, lambda _at: tirx.BufferLoad(buffer, where))

    def first(panel: Panel) -> list[Expr]:
        at = panel_at(panel)
        return [*at, *[index(0)] * (len(new_shape) - len(at))]

    return Weight(buffer, Layout(index_map, new_shape), read, first, step)


def _used(indices: list[Expr]) -> set[Var]:
    return set().union(*(variables(i) for i in indices)) if len(indices) else set()


def _invert(
    indices: list[Expr], extents: list[int | None], dims: list[Var], axes: tuple[Axis, ...]
) -> dict[Var, Expr] | None:
    """Each axis as an expression of the position in the operand, if every element is read once."""
    place: dict[Var, Expr] = {}
    sizes = {axis.var: axis.size for axis in axes}
    for at, extent, dim in zip(indices, extents, dims):
        if not extent:
            return None
        terms = _terms(at)
        if terms is None:
            return None
        span = 1
        for var, factor in sorted(terms.items(), key=lambda term: term[1]):
            count = sizes.get(var)
            if count is None or var in place or factor != span:
                return None
            place[var] = (dim // span if span > 1 else dim) % count
            span *= count
        flipped = _reversed(at)
        if flipped is not None and sizes.get(flipped) == extent:
            place[flipped] = index(extent - 1) - dim
            span = extent
        if span != extent:
            return None
    return place if len(place) == len(axes) else None


def _reversed(expr: Expr) -> Var | None:
    """`v` if `expr` is ``constant - v``."""
    if isinstance(expr, tirx.Sub) and constant(expr.a) is not None and isinstance(expr.b, Var):
        return expr.b
    return None


def _terms(expr: Expr) -> dict[Var, int] | None:
    """``sum(factor * var)`` as {var: factor}, or None if `expr` is something else."""
    if isinstance(expr, Var):
        return {expr: 1}
    if constant(expr) == 0 or _reversed(expr) is not None:
        return {}
    if isinstance(expr, tirx.Mul) and isinstance(expr.a, Var):
        factor = constant(expr.b)
        return None if factor is None else {expr.a: factor}
    if isinstance(expr, tirx.Add):
        first, second = _terms(expr.a), _terms(expr.b)
        if first is None or second is None or first.keys() & second.keys():
            return None
        return {**first, **second}
    return None


@dataclass(frozen=True, eq=False)
class Pack:
    """A panel packed inside the kernel: `buffer` is filled by `fill`, then read."""

    sum: Contraction
    shape: Shape
    buffer: Var

    @staticmethod
    def of(total: Contraction, shape: Shape) -> Pack:
        extents: list[Size] = [known(axis.extent) for axis in total.reduce]
        dtype = str(total.rhs.value.ty.dtype)
        return Pack(total, shape, allocate([*extents, shape.cols], dtype, "panel"))

    def read(self, _panel: Panel, k: Values, j: Expr) -> Expr:
        return tirx.BufferLoad(self.buffer, [*(k[axis.var] for axis in self.sum.reduce), j])

    def first(self, _panel: Panel) -> list[Expr]:
        """The indices of the first element of the panel."""
        return [index(0)] * len(self.buffer.shape)

    def fill(self, panel: Panel) -> tirx.Stmt:
        """Copy the panel, zero past the last column."""
        in_vectors = self._unit_stride_columns()
        copy = self._along_columns if in_vectors else self._along_reduce
        whole = index(panel.width)
        if not panel.ragged:
            return copy(panel, whole)
        if panel.masks and in_vectors and masks.operand_fits(self.sum, self.sum.rhs):
            return self._under_masks(panel)
        rest = block(self._clear(), copy(panel, panel.valid))
        if not in_vectors and not panel.never_full:  # turning squares is much code: once
            clear = tirx.IfThenElse(panel.full, tirx.Evaluate(index(0)), self._clear())
            return block(clear, copy(panel, panel.valid))
        return rest if panel.never_full else tirx.IfThenElse(panel.full, copy(panel, whole), rest)

    def _clear(self) -> tirx.Stmt:
        lanes = self.shape.lanes
        return nest(
            self._extents(),
            lambda ks: vectors(self.shape.vectors, lanes, lambda j: zeros(self.buffer, [*ks, j])),
        )

    def _value(self, panel: Panel, ks: list[Expr], j: Expr) -> Expr:
        at = {axis.var: k for axis, k in zip(self.sum.reduce, ks)}
        return substitute(self.sum.rhs.value, {**panel.at, **panel.cols(j), **at})

    def _extents(self) -> list[Size]:
        return [known(axis.extent) for axis in self.sum.reduce]

    def _unit_stride_columns(self) -> bool:
        operand, cols = self.sum.rhs, self.sum.cols
        if operand.load is None or operand.source is not None or not cols:
            return False
        axes = (*self.sum.batch, *cols, *self.sum.reduce)
        step = stride(
            flat_index(operand.load), cols[-1].var, analyzer(axes, operand.load.source.shape)
        )
        return len(cols) == 1 and step is not None and constant(step) == 1

    def _along_columns(self, panel: Panel, count: Expr) -> tirx.Stmt:
        """Vectors are copied as they are."""
        lanes = self.shape.lanes
        done = count // lanes * lanes

        def put(ks: list[Expr], j: Expr) -> tirx.Stmt:
            return tirx.BufferStore(self.buffer, self._value(panel, ks, j), [*ks, j])

        def row(ks: list[Expr]) -> tirx.Stmt:
            whole, rest = known(count // lanes), known(count % lanes)
            return block(
                vectors(whole, lanes, lambda j: put(ks, j), unroll=isinstance(whole, int)),
                loop(rest, lambda j: put(ks, j + done)),
            )

        return nest(self._extents(), row)

    def _under_masks(self, panel: Panel) -> tirx.Stmt:
        def row(ks: list[Expr]) -> tirx.Stmt:
            at = {axis.var: k for axis, k in zip(self.sum.reduce, ks)}
            line, fill = in_line(self.sum, self.shape, panel, at)
            return block(
                fill,
                vectors(
                    self.shape.vectors,
                    self.shape.lanes,
                    lambda j: tirx.BufferStore(self.buffer, line(j), [*ks, j]),
                ),
            )

        return nest(self._extents(), row)

    def _along_reduce(self, panel: Panel, count: Expr) -> tirx.Stmt:
        """Squares read along the last reduce axis, which is the contiguous one, and turned.

        What is left at the right and at the end goes element by element.
        """
        *outer, last = self._extents()
        side = min(self.shape.lanes, 16)
        columns, steps = known(count // side * side), known(last // side * side)

        def put(j: Expr, ks: list[Expr]) -> tirx.Stmt:
            return tirx.BufferStore(self.buffer, self._value(panel, ks, j), [*ks, j])

        def rows(ks: list[Expr]) -> tirx.Stmt:
            def stripe(k: Expr) -> tirx.Stmt:
                return loop(
                    known(count // side), lambda j: self._turn(panel, [*ks, k * side], j * side)
                )

            def single(first: Expr) -> Callable[[Expr], tirx.Stmt]:
                return lambda k: loop(
                    known(count - first), lambda j: put(first + j, [*ks, k]), name="j"
                )

            return block(
                loop(known(last // side), stripe),
                loop(steps, single(columns)),
                loop(known(last - steps), lambda k: single(index(0))(steps + k)),
            )

        return nest(outer, rows)

    def _turn(self, panel: Panel, ks: list[Expr], first: Expr) -> tirx.Stmt:
        """Pack a square of columns from `first` on and steps from `ks` on."""
        side = min(self.shape.lanes, 16)
        *outer, k = ks
        columns = [allocate([side], str(self.buffer.dtype), "line") for _ in range(side)]

        def read(number: int) -> tirx.Stmt:
            def element(lane: Expr) -> tirx.Stmt:
                value = self._value(panel, [*outer, k + lane], first + number)
                return tirx.BufferStore(columns[number], value, [lane])

            return loop(side, element, VECTORIZED, "lane")

        def ramp(start: Expr) -> Expr:
            return tirx.Ramp(start, index(1), side)

        binds, lines = turned([column[ramp(index(0))] for column in columns])
        return block(
            *(tirx.AllocBuffer(column) for column in columns),
            *map(read, range(side)),
            *binds,
            *(
                tirx.BufferStore(self.buffer, line, [*outer, k + step, ramp(first)])
                for step, line in enumerate(lines)
            ),
        )
