"""The compute block: a tile of sums held in registers, and its copy-out with the epilogue.

    acc[i, j] = 0
    for k:  acc[i, j] += lhs(row + i, k) * rhs(k, j)        i, j unrolled, j along vectors
    out[row + i, col + j] = epilogue(acc[i, j])

Columns past the end are computed (panels are padded) and never stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var

from tvmext.arch import dtype_bits

from ..kernel.analysis import collect, constant, substitute
from ..kernel.contraction import Contraction, run_length
from ..kernel.emit import (
    UNROLLED,
    VECTORIZED,
    Size,
    Values,
    allocate,
    block,
    index,
    known,
    loop,
    nest,
    ravel,
    vectors,
    zeros,
)
from . import masks
from .math import approximate
from .panel import Panel
from .turns import CHAINS, parts, turn

STACK_BYTES = 1024
"""Buffers below this size stay on the stack (kMaxStackAlloca of TVM's device_api.h)."""

UNROLL = 4
"""Steps of the last reduce axis that are unrolled: the three channels of a picture."""

HEAVY = 8
"""Operations in an epilogue above which it is not unrolled over the whole tile."""


Ahead = Callable[[Expr, int], tirx.Stmt]
"""Prefetches what comes next, beside so many steps of the sum from one on."""


@dataclass(frozen=True)
class Shape:
    """A register tile: up to `rows` rows by `vectors` vectors of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def cols(self) -> int:
        return self.vectors * self.lanes


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums of one tile, in buffers of some rows each.

    TVM keeps a buffer on the stack, and LLVM then in registers, only if it is smaller than 1 KiB.
    """

    shape: Shape
    buffers: tuple[Var, ...]
    row: Callable[[Expr], Values]

    @staticmethod
    def of(height: int, shape: Shape, dtype: str, row: Callable[[Expr], Values]) -> Sums:
        rows = max(1, (STACK_BYTES - 1) // (shape.cols * dtype_bits(dtype) // 8))
        counts = [min(rows, height - first) for first in range(0, height, rows)]
        return Sums(shape, tuple(allocate([n, shape.cols], dtype, "acc") for n in counts), row)

    def allocate(self) -> tirx.Stmt:
        return block(*(tirx.AllocBuffer(buffer) for buffer in self.buffers))

    def each_chunk(self, body: Callable[[Var, Expr, Expr, int], tirx.Stmt]) -> tirx.Stmt:
        """``body(buffer, i, j, first)`` for all elements; `first` is row 0 of `buffer`."""
        parts, first = [], 0
        for buffer in self.buffers:
            count = constant(buffer.shape[0]) or 0
            parts.append(self._each(buffer, count, first, body))
            first += count
        return block(*parts)

    def each_row(self, body: Callable[[Var, Expr, int], tirx.Stmt]) -> tirx.Stmt:
        """``body(buffer, i, first)`` for all rows; `first` is row 0 of `buffer`."""
        parts, first = [], 0
        for buffer in self.buffers:
            count = constant(buffer.shape[0]) or 0
            parts.append(loop(count, lambda i: body(buffer, i, first), UNROLLED))  # noqa: B023
            first += count
        return block(*parts)

    def each(self, body: Callable[[Var, Expr, Expr, Values], tirx.Stmt]) -> tirx.Stmt:
        """``body(buffer, i, j, row axes)`` for all elements."""
        return self.each_chunk(lambda buffer, i, j, first: body(buffer, i, j, self.row(i + first)))

    def _each(
        self,
        buffer: Var,
        count: int,
        first: int,
        body: Callable[[Var, Expr, Expr, int], tirx.Stmt],
    ) -> tirx.Stmt:
        return loop(
            count,
            lambda i: vectors(
                self.shape.vectors, self.shape.lanes, lambda j: body(buffer, i, j, first)
            ),
            UNROLLED,
            "i",
        )

    def add(self, other: Sums) -> tirx.Stmt:
        """Add the sums of another tile of the same shape."""

        def into(mine: Var, theirs: Var) -> tirx.Stmt:
            return self._each(
                mine,
                constant(mine.shape[0]) or 0,
                0,
                lambda _buffer, i, j, _first: tirx.BufferStore(
                    mine, mine[i, j] + theirs[i, j], [i, j]
                ),
            )

        return block(*(into(mine, theirs) for mine, theirs in zip(self.buffers, other.buffers)))


@dataclass(frozen=True, eq=False)
class RegisterTile(ABC):
    """A tile of sums from zero to memory; `_reduce` adds the products."""

    sum: Contraction
    shape: Shape
    chains: int = field(default=CHAINS, kw_only=True)
    """Independent vectors of sums that hide the latency of an FMA."""
    turned_from: int | None = field(default=None, kw_only=True)
    """The height from which on tiles are worth the code of turns whose number is not known."""

    @property
    def heavy(self) -> bool:
        return sum(operations(out.value) for out in self.sum.outputs) > HEAVY

    def spills(self, panel: Panel) -> bool:
        """Whether sums go through memory: to a loop of their own, or to single columns."""
        return self.heavy or (panel.ragged and not panel.masks)

    def tile(
        self,
        row: Callable[[Expr], Values],
        height: int,
        panel: Panel,
        spill: Var | None,
        ranges: Mapping[Var, tuple[Expr, Expr]] = MappingProxyType({}),
        ahead: Ahead | None = None,
    ) -> tirx.Stmt:
        """One register tile; the sums go through the epilogue, or to `spill` if that is not now.

        `ranges` gives reduce axes that do not run over their whole extent: (first, count).
        `ahead` prefetches what comes next beside each turn of the loop over the sum.
        """
        count = 1 if ranges else self._parts(height)
        parts = [Sums.of(height, self.shape, self.sum.dtype, row) for _ in range(count)]
        first, *others = parts
        return block(
            *(part.allocate() for part in parts),
            self._clear(first),
            *(RegisterTile._clear(self, part) for part in others),
            self._reduce(parts, panel, ranges, ahead),
            *_joined(parts),
            self._leave(first, panel, spill),
        )

    def begin(self, _panel: Panel) -> tirx.Stmt | None:
        """What to compute once before the tiles of a panel."""
        return None

    def _clear(self, sums: Sums) -> tirx.Stmt:
        return sums.each(lambda buffer, i, j, _at: zeros(buffer, [i, j]))

    def _parts(self, height: int) -> int:
        """How many partial sums of each element hide the latency when the tile is small."""
        whole = self._run is not None
        return parts(height, self.shape.vectors, self._steps, self.chains, whole=whole)

    @property
    def _steps(self) -> int | None:
        """Steps of the last reduce axis, or of a run along it, if that is known."""
        return self._run or self.sum.reduce[-1].size

    @property
    def _run(self) -> int | None:
        """Steps of the last reduce axis after which `lhs` goes on elsewhere."""
        return run_length(self.sum.lhs, self.sum.reduce[-1])

    @abstractmethod
    def _reduce(
        self,
        parts: list[Sums],
        panel: Panel,
        ranges: Mapping[Var, tuple[Expr, Expr]],
        ahead: Ahead | None,
    ) -> tirx.Stmt:
        """Add all products to `parts`."""

    def _leave(self, sums: Sums, panel: Panel, spill: Var | None) -> tirx.Stmt:
        def keep(buffer: Var, i: Expr, j: Expr, first: int) -> tirx.Stmt:
            return tirx.BufferStore(spill, buffer[i, j], [i + first, j])

        def store(buffer: Var, i: Expr, j: Expr, at: Values) -> tirx.Stmt:
            return self.store(panel, at, j, buffer[i, j])

        if spill is None and panel.ragged and panel.masks:
            masked = self._under_masks(sums, panel)
            if panel.sure or panel.never_full:
                return masked
            return tirx.IfThenElse(panel.full, sums.each(store), masked)
        if spill is None:
            return sums.each(store)
        kept = sums.each_chunk(keep)
        return (
            kept
            if self.heavy or panel.never_full
            else tirx.IfThenElse(panel.full, sums.each(store), kept)
        )

    def _under_masks(self, sums: Sums, panel: Panel) -> tirx.Stmt:
        """The epilogue and the stores, of columns that may not exist under a mask."""
        lanes = self.shape.lanes

        def vector(buffer: Var, i: Expr, first: int, start: int) -> tirx.Stmt:
            row = sums.row(i + start)
            if first + lanes <= panel.sure:
                return loop(
                    lanes,
                    lambda j: self.store(panel, row, j + first, buffer[i, j + first]),
                    VECTORIZED,
                    "lane",
                )

            def at(lane: Expr) -> dict[Var, Expr]:
                column = lane + first
                total = {self.sum.total: buffer[i, column]}
                return {**row, **panel.at, **panel.cols(column), **total}

            mask = masks.first(panel.valid - first, lanes)
            return masks.store_results(self.sum, at, mask, lanes)

        return sums.each_row(
            lambda buffer, i, start: block(
                *(vector(buffer, i, v * lanes, start) for v in range(self.shape.vectors))
            )
        )

    def store(self, panel: Panel, row: Values, j: Expr, total: Expr) -> tirx.Stmt:
        """The epilogue of one element and its stores."""
        point = {**row, **panel.at, **panel.cols(j), self.sum.total: total}
        stores = []
        for out in self.sum.outputs:
            names, value = approximate(substitute(out.value, point))
            stores += [tirx.Bind(var, expr) for var, expr in names]
            where = [substitute(i, point) for i in out.indices]
            stores.append(tirx.BufferStore(out.buffer, value, where))
        return block(*stores)

    def copy_out(
        self, row: Callable[[Expr], Values], height: Expr, panel: Panel, spill: Var
    ) -> tirx.Stmt:
        """The epilogue over a spilled tile, no element past the last column touched."""

        def finish(i: Expr, j: Expr) -> tirx.Stmt:
            return self.store(panel, row(i), j, spill[i, j])

        lanes = self.shape.lanes
        every = loop(height, lambda i: panel.each(lanes, lambda j: finish(i, j)))
        if panel.ragged and not panel.never_full and not self.heavy:
            return tirx.IfThenElse(tirx.Not(panel.full), every, None)
        return every


def _joined(parts: Sequence[Sums]) -> list[tirx.Stmt]:
    """What adds partial sums to the first ones, in pairs."""
    found = []
    while len(parts) > 1:
        half = -(-len(parts) // 2)
        found += [mine.add(theirs) for mine, theirs in zip(parts, parts[half:])]
        parts = parts[:half]
    return found


@dataclass(frozen=True, eq=False)
class Kernel(RegisterTile):
    """What a tile sums up: ``term(at, ks, panel, j)`` for column `j` of `panel`.

    `at` and `ks` map the row and batch axes and the reduce axes to where they are.
    """

    term: Callable[[Values, Values, Panel, Expr], Expr]

    def _reduce(
        self,
        parts: list[Sums],
        panel: Panel,
        ranges: Mapping[Var, tuple[Expr, Expr]],
        ahead: Ahead | None,
    ) -> tirx.Stmt:
        axes = self.sum.reduce
        spans = {axis.var: (index(0), axis.extent) for axis in axes} | dict(ranges)
        extents: list[Size] = [known(spans[axis.var][1]) for axis in axes]
        starts = [ranges[axis.var][0] if axis.var in ranges else index(0) for axis in axes]
        if len(parts) > 1 and self._steps is not None:
            ahead = None

        def step(at: list[Expr], part: Sums) -> tirx.Stmt:
            ks = {axis.var: k + start for axis, k, start in zip(axes, at, starts)}
            return self._add(part, ks, panel)

        def steps(at: list[Expr], count: int) -> tirx.Stmt:
            """A turn of so many steps, one after the other of the partial sums."""
            *others, k = at
            first = k * count
            fetch = ahead(ravel([*others, first], extents), count) if ahead else None
            every = (step([*others, first + n], parts[n % len(parts)]) for n in range(count))
            return block(fetch, *every)

        *outer, last = extents
        whole, rest = known(last // len(parts)), known(last % len(parts))
        if isinstance(whole, int) and 1 < whole <= UNROLL and rest == 0:
            turns = lambda at: loop(  # noqa: E731
                whole, lambda k: steps([*at, k], len(parts)), UNROLLED, "k"
            )
            return self._outer(outer, turns)
        run = None if ranges else self._run
        count = self._turn(parts, last if run is None else run)
        if run is not None:
            each = run // count
            pieces = [*outer, known(last // run), each]
            return nest(pieces, lambda at: steps([*at[:-2], at[-2] * each + at[-1]], count))
        whole, rest = known(last // count), known(last % count)

        def along(at: list[Expr]) -> tirx.Stmt:
            return block(
                loop(whole, lambda k: steps([*at, k], count), name="k"),
                loop(rest, lambda k: step([*at, whole * count + k], parts[0]), name="rest"),
            )

        return self._outer(outer, along)

    def _outer(self, extents: list[Size], body: Callable[[list[Expr]], tirx.Stmt]) -> tirx.Stmt:
        """The loops over all reduce axes but the last, around ``body`` at a point of them."""
        return nest(extents, body)

    def _turn(self, parts: Sequence[Sums], steps: Size) -> int:
        """Steps of a turn of the loop over the sum; those of a run are whole turns."""
        if len(parts) > 1:
            return len(parts)
        rows = sum(constant(buffer.shape[0]) or 0 for buffer in parts[0].buffers)
        known = steps if isinstance(steps, int) else None
        if known is None and (self.turned_from is None or rows < self.turned_from):
            return 1
        return turn(rows, self.shape.vectors, known, self.chains, whole=self._run is not None)

    def _add(self, part: Sums, ks: Values, panel: Panel) -> tirx.Stmt:
        """One step of the sum."""

        def add(buffer: Var, i: Expr, j: Expr, at: Values) -> tirx.Stmt:
            term = self.term({**at, **panel.at}, ks, panel, j)
            return tirx.BufferStore(buffer, buffer[i, j] + term, [i, j])

        return part.each(add)


def operations(value: Expr) -> int:
    """Roughly how many vector instructions an epilogue takes."""
    binary = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)
    indices = [i for load in collect(value, TensorLoad) for i in load.indices]
    work = sum(len(collect(value, kind)) for kind in binary)
    work -= sum(len(collect(i, kind)) for i in indices for kind in binary)
    return work + 10 * len(collect(value, Call))
