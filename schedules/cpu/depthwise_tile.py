"""The register tile of a depthwise convolution: some pixels of a row by some vectors of channels.

    for every tap above or below:
        for every column of the input under the tile, for every pixel i and tap k that use it:
            acc[i] += input[column] * weight[k]                      column = stride i + dilation k

Columns are the outer order, so that an element of the input is loaded once for all taps along the
row, and the taps' weights stay in registers. A column that may be padding has a condition of its
own, which is decided at compile time where the tile's place is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from tvm import sym, tirx
from tvm.ir import Expr, Var

from ..kernel.analysis import Axis, constant
from ..kernel.contraction import Contraction
from ..kernel.emit import (
    VECTORIZED,
    Size,
    Values,
    bind_each,
    block,
    index,
    known,
    loop,
    nest,
    vectors,
    zeros,
)
from .depthwise_row import Guard
from .panel import Panel
from .tile import Kernel as TileKernel
from .tile import Shape, Sums

MOST_TAPS = 12
"""Taps along a row up to which the loop over them is unrolled: kernels in use have 3 to 11."""

Ranges = dict[Var, tuple[Expr, Expr]]
Term = Callable[[Values, Values, Panel, Expr], Expr]


@dataclass(frozen=True, eq=False)
class RowTile:
    """Tiles along axis `width`, whose windows reach over `tap`: ``stride * width + step * tap``."""

    sum: Contraction
    shape: Shape
    term: Term
    width: Axis
    tap: Axis
    stride: int
    step: int

    def code(
        self,
        x: Expr,
        pixels: int,
        fixed: Values,
        panel: Panel,
        ranges: Ranges,
        guard: Guard | None,
        count: Size,
        spill: Var | None,
        ahead: Callable[[Expr], tirx.Stmt] | None = None,
    ) -> tirx.Stmt:
        """Pixels x .. x + `pixels` of the row at `fixed`, of which the first `count` are stored.

        `ranges` gives the reduce axes, other than `tap`, that do not run over their whole extent.
        `guard` says of a column, counted from stride * x, whether it is inside of the picture. The
        sums go through the epilogue, or to `spill` if that is not now. `ahead` fetches a part of
        what comes next; it is called for each of the window's lines, counted from the first inside.
        """
        row: Callable[[Expr], Values] = lambda i: {**fixed, self.width.var: x + i}  # noqa: E731
        sums = Sums.of(pixels, self.shape, self.sum.dtype, row)
        kernel = TileKernel(self.sum, self.shape, self.term)

        def keep(buffer: Var, i: Expr, j: Expr, first: int) -> tirx.Stmt:
            return tirx.BufferStore(spill, buffer[i, j], [i + first, j])

        def store(buffer: Var, i: Expr, first: int) -> tirx.Stmt:
            all_columns = vectors(
                self.shape.vectors,
                self.shape.lanes,
                lambda j: kernel.store(panel, row(i + first), j, buffer[i, j]),
            )
            if constant(count) is not None:
                return all_columns
            return tirx.IfThenElse(i + first < index(count), all_columns, None)

        return block(
            sums.allocate(),
            sums.each(lambda buffer, i, j, _at: zeros(buffer, [i, j])),
            self._reduce(sums, pixels, row, panel, ranges, guard, ahead),
            sums.each_row(store) if spill is None else sums.each_chunk(keep),
            None if spill is None else kernel.copy_out(row, index(count), panel, spill),
        )

    def _reduce(
        self,
        sums: Sums,
        pixels: int,
        row: Callable[[Expr], Values],
        panel: Panel,
        ranges: Ranges,
        guard: Guard | None,
        ahead: Callable[[Expr], tirx.Stmt] | None,
    ) -> tirx.Stmt:
        unrolled = self.tap.size is not None and self.tap.size <= MOST_TAPS
        outer = [axis for axis in self.sum.reduce if not (unrolled and axis is self.tap)]
        spans = [ranges.get(axis.var, (index(0), axis.extent)) for axis in outer]

        def taps(at: list[Expr]) -> tirx.Stmt:
            places = {axis.var: k + first for axis, (first, _), k in zip(outer, spans, at)}
            fetched = ahead(at[-1]) if ahead is not None else None
            return block(fetched, bind_each(places, columns))

        def columns(ks: Values) -> tirx.Stmt:
            if not unrolled:
                others = {var: k for var, k in ks.items() if var is not self.tap.var}
                offsets = [ks[self.tap.var]]
                return self._columns(sums, pixels, row, panel, others, offsets, guard)
            offsets = [index(k) for k in range(self.tap.size or 0)]
            return self._columns(sums, pixels, row, panel, ks, offsets, guard)

        return nest([known(count) for _, count in spans], taps)

    def _columns(
        self,
        sums: Sums,
        pixels: int,
        row: Callable[[Expr], Values],
        panel: Panel,
        ks: Values,
        taps: list[Expr],
        guard: Guard | None,
    ) -> tirx.Stmt:
        """All products of one row of the window, column by column."""

        def add(i: int, k: Expr, vector: int) -> tirx.Stmt:
            buffer, own = _home(sums, i)
            at = {**row(index(i)), **panel.at}

            def lane(lane: Expr) -> tirx.Stmt:
                j = lane + vector * self.shape.lanes
                term = self.term(at, {**ks, self.tap.var: k}, panel, j)
                return tirx.BufferStore(buffer, buffer[own, j] + term, [own, j])

            return loop(self.shape.lanes, lane, VECTORIZED, "lane")

        parts = []
        for column, users in self._users(pixels, taps):
            inside = index(1) if guard is None else guard(column)
            if constant(inside) == 0:
                continue
            products = block(*(add(i, k, v) for v in range(self.shape.vectors) for i, k in users))
            decided = constant(inside) is not None
            parts.append(products if decided else tirx.IfThenElse(inside, products, None))
        return block(*parts) if parts else tirx.Evaluate(index(0))

    def _users(
        self, pixels: int, taps: list[Expr]
    ) -> Iterator[tuple[Expr, list[tuple[int, Expr]]]]:
        """Every column and the (pixel, tap) pairs that use it, from left to right."""
        if len(taps) == 1:
            for i in range(pixels):
                yield known_index(taps[0] * self.step + i * self.stride), [(i, taps[0])]
            return
        pairs = sorted(
            (i * self.stride + k * self.step, i, k) for i in range(pixels) for k in range(len(taps))
        )
        for column, users in groupby(pairs, lambda pair: pair[0]):
            yield index(column), [(i, taps[k]) for _, i, k in users]


def known_index(value: Expr) -> Expr:
    """`value`, simplified."""
    return sym.Analyzer().simplify(value)


def _home(sums: Sums, i: int) -> tuple[Var, Expr]:
    """The buffer that holds row `i`, and its place there."""
    for buffer in sums.buffers:
        count = constant(buffer.shape[0]) or 0
        if i < count:
            return buffer, index(i)
        i -= count
    raise IndexError(i)
