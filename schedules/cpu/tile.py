"""The compute block: a tile of sums held in registers, and its copy-out with the epilogue.

    acc[i, j] = 0
    for k:  acc[i, j] += lhs(row + i, k) * rhs(k, j)        i, j unrolled, j along vectors
    out[row + i, col + j] = epilogue(acc[i, j])

Rows are cut into tiles of (nearly) equal height, so that no tile computes a row that is not there
and none is much smaller than the best one: nine rows are 5 + 4, not 8 + 1. Columns past the end
are computed (panels are padded) and never stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var

from tvmext.arch import dtype_bits

from ..analysis import collect, constant, substitute
from .contraction import Contraction, size
from .emit import (
    UNROLLED,
    Size,
    Values,
    allocate,
    bind,
    bind_each,
    block,
    ceildiv,
    index,
    known,
    least,
    loop,
    most,
    nest,
    unravel,
    vectors,
    zeros,
)

CHAINS = 8
"""Independent accumulators that hide the latency of an FMA: 4 cycles on 2 units."""

STACK_BYTES = 1024
"""Buffers below this size stay on the stack (kMaxStackAlloca of TVM's device_api.h)."""

UNROLL = 4
"""Steps of the last reduce axis that are unrolled: the three channels of a picture."""

HEAVY = 12
"""Operations in an epilogue above which it is not unrolled over the whole tile."""


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
class Tiles:
    """How `total` rows are cut: `count` tiles of `base` rows, the first `extra` one row higher."""

    total: Size
    rows: int
    count: Size
    base: Size
    extra: Size

    def heights(self) -> list[int]:
        """Every height that occurs, highest first."""
        if not isinstance(self.total, int):
            return list(range(self.rows, 0, -1))
        assert isinstance(self.base, int)
        higher = [self.base + 1] if self.extra else []
        return higher + ([self.base] if self.count != self.extra else [])

    def listed(self) -> list[tuple[int, int]]:
        """(first row, height) of every tile, when their number is known."""
        assert isinstance(self.count, int) and isinstance(self.base, int)
        assert isinstance(self.extra, int)
        starts = [t * self.base + min(t, self.extra) for t in range(self.count)]
        return [(start, self.base + (t < self.extra)) for t, start in enumerate(starts)]

    def each(self, t: Expr, body: Callable[[Expr, int], tirx.Stmt], after: _After) -> tirx.Stmt:
        """``body(first row, height)`` for tile `t`, then ``after(first row, height)``."""
        if not isinstance(self.total, int) or (self.extra and self.base):
            taller = tirx.Select(t < index(self.extra), index(1), index(0))
            first = t * self.base + least(t, self.extra)
            return bind(
                first,
                lambda row: bind(
                    taller + self.base,
                    lambda high: block(self._switch(row, high, body), after(row, high)),
                    "height",
                ),
                "row",
            )
        height = self.heights()[0]
        return bind(
            t * height, lambda row: block(body(row, height), after(row, index(height))), "row"
        )

    def _switch(self, row: Expr, high: Expr, body: Callable[[Expr, int], tirx.Stmt]) -> tirx.Stmt:
        """One after another rather than nested: TVM's passes pay dearly for nested conditions."""
        return block(*(tirx.IfThenElse(high == h, body(row, h), None) for h in self.heights()))


@dataclass(frozen=True, eq=False)
class Overlapping(Tiles):
    """Tiles of `rows` rows, the last one moved back to end with the rows: less code, some rework.

    Fewer rows than one tile are taken in powers of two.
    """

    def each(self, t: Expr, body: Callable[[Expr, int], tirx.Stmt], after: _After) -> tirx.Stmt:
        total = index(self.total)

        def tile(row: Expr, height: int) -> tirx.Stmt:
            return block(body(row, height), after(row, index(height)))

        few, part = [], self.rows // 2
        while part:
            row = total // (2 * part) * (2 * part)
            few.append(tirx.IfThenElse(total % (2 * part) >= part, tile(row, part), None))
            part //= 2
        first = tirx.min(t * self.rows, total - self.rows)
        many = bind(first, lambda row: tile(row, self.rows), "row")
        return tirx.IfThenElse(total >= self.rows, many, block(*few))


_After = Callable[[Expr, Expr], tirx.Stmt | None]


def cut(
    total: Size, rows: int, then: Callable[[Tiles], tirx.Stmt], overlap: bool = False
) -> tirx.Stmt:
    """Bind how `total` rows are cut into tiles of at most `rows` rows.

    With `overlap`, an unknown number of rows is cut into overlapping tiles; `rows` is a power of 2.
    """
    count = ceildiv(total, rows)
    if overlap and not isinstance(total, int):
        return then(Overlapping(total, rows, count, rows, 0))
    if isinstance(total, int) and isinstance(count, int):
        divisor = max(count, 1)
        return then(Tiles(total, rows, count, total // divisor, total % divisor))
    divisor = most(count, 1)
    return bind(
        total // divisor,
        lambda base: bind(
            total % divisor, lambda extra: then(Tiles(total, rows, count, base, extra)), "extra"
        ),
        "base",
    )


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
class Kernel:
    """What a tile computes: ``lhs(row, ks)`` is a scalar, ``rhs(panel, ks, j)`` a column of it.

    `row` and `ks` map the row (and batch) and reduce axes to where they are.
    """

    sum: Contraction
    shape: Shape
    lhs: Callable[[Values, Values], Expr]
    rhs: Callable[[Panel, Values, Expr], Expr]

    @property
    def heavy(self) -> bool:
        return sum(_cost(out.value) for out in self.sum.outputs) > HEAVY

    def tile(
        self, row: Callable[[Expr], Values], height: int, panel: Panel, spill: Var | None
    ) -> tirx.Stmt:
        """One register tile; the sums go through the epilogue, or to `spill` if that is not now."""
        count = self._parts(height)
        parts = [Sums.of(height, self.shape, self.sum.dtype, row) for _ in range(count)]
        first, *others = parts
        return block(
            *(part.allocate() for part in parts),
            *(part.each(lambda buffer, i, j, _at: zeros(buffer, [i, j])) for part in parts),
            self._reduce(parts, panel),
            *(first.add(part) for part in others),
            self._leave(first, panel, spill),
        )

    def _parts(self, height: int) -> int:
        """How many partial sums of each element hide the latency when the tile is small."""
        extent = self.sum.reduce[-1].size if self.sum.reduce else None
        wanted = -(-CHAINS // (height * self.shape.vectors))
        while wanted > 1 and (extent is None or extent % wanted):
            wanted -= 1
        return wanted

    def _reduce(self, parts: list[Sums], panel: Panel) -> tirx.Stmt:
        axes = self.sum.reduce
        extents: list[Size] = [known(axis.extent) for axis in axes]

        def step(at: list[Expr]) -> tirx.Stmt:
            ks = {axis.var: k for axis, k in zip(axes, at)}
            if len(parts) == 1:
                return update(parts[0], ks)
            last, k = axes[-1].var, at[-1]
            return block(
                *(update(part, {**ks, last: k * len(parts) + p}) for p, part in enumerate(parts))
            )

        def update(part: Sums, ks: Values) -> tirx.Stmt:
            def add(buffer: Var, i: Expr, j: Expr, at: Values) -> tirx.Stmt:
                product = self.lhs({**at, **panel.at}, ks) * self.rhs(panel, ks, j)
                return tirx.BufferStore(buffer, buffer[i, j] + product, [i, j])

            return part.each(add)

        if len(parts) > 1:
            extents[-1] = known(extents[-1] // len(parts))
        last = extents[-1]
        if isinstance(last, int) and 1 < last <= UNROLL:
            return nest(
                extents[:-1], lambda at: loop(last, lambda k: step([*at, k]), UNROLLED, "k")
            )
        return nest(extents, step)

    def _leave(self, sums: Sums, panel: Panel, spill: Var | None) -> tirx.Stmt:
        def keep(buffer: Var, i: Expr, j: Expr, first: int) -> tirx.Stmt:
            return tirx.BufferStore(spill, buffer[i, j], [i + first, j])

        def store(buffer: Var, i: Expr, j: Expr, at: Values) -> tirx.Stmt:
            return self.store(panel, at, j, buffer[i, j])

        if spill is None:
            return sums.each(store)
        kept = sums.each_chunk(keep)
        return (
            kept
            if self.heavy or panel.never_full
            else tirx.IfThenElse(panel.full, sums.each(store), kept)
        )

    def store(self, panel: Panel, row: Values, j: Expr, total: Expr) -> tirx.Stmt:
        """The epilogue of one element and its stores."""
        point = {**row, **panel.at, **panel.cols(j), self.sum.total: total}
        return block(
            *(
                tirx.BufferStore(
                    out.buffer,
                    substitute(out.value, point),
                    [substitute(i, point) for i in out.indices],
                )
                for out in self.sum.outputs
            )
        )

    def copy_out(
        self, row: Callable[[Expr], Values], height: Expr, panel: Panel, spill: Var
    ) -> tirx.Stmt:
        """The epilogue over a spilled tile, no element past the last column touched."""
        lanes = self.shape.lanes

        def finish(i: Expr, j: Expr) -> tirx.Stmt:
            return self.store(panel, row(i), j, spill[i, j])

        def whole() -> tirx.Stmt:
            return loop(
                height,
                lambda i: vectors(self.shape.vectors, lanes, lambda j: finish(i, j), False),
            )

        def ragged() -> tirx.Stmt:
            valid = panel.valid
            done = valid // lanes * lanes
            return loop(
                height,
                lambda i: block(
                    vectors(known(valid // lanes), lanes, lambda j: finish(i, j), False),
                    loop(known(valid % lanes), lambda j: finish(i, j + done)),
                ),
            )

        if not panel.ragged:
            return whole()
        if panel.never_full:
            return ragged()
        if not self.heavy:
            return tirx.IfThenElse(tirx.Not(panel.full), ragged(), None)
        return tirx.IfThenElse(panel.full, whole(), ragged())


@dataclass(frozen=True, eq=False)
class Panel:
    """The `number`-th panel of columns, `width` of the `total` columns, at batch point `at`."""

    sum: Contraction
    at: Values
    number: Expr
    start: Expr
    width: int
    total: Size

    @property
    def ragged(self) -> bool:
        """Whether the last panel is not full."""
        return not isinstance(self.total, int) or self.total % self.width != 0

    @property
    def never_full(self) -> bool:
        return isinstance(self.total, int) and self.total < self.width

    @property
    def full(self) -> Expr:
        return self.start + self.width <= index(self.total)

    @property
    def valid(self) -> Expr:
        """How many columns of this panel exist."""
        return tirx.min(index(self.width), index(self.total) - self.start)

    def cols(self, j: Expr) -> Values:
        return unravel(self.start + j, self.sum.cols)


def open_panel(
    total: Contraction, batch: Values, number: Expr, width: int, body: Callable[[Panel], tirx.Stmt]
) -> tirx.Stmt:
    """Bind where panel `number` of batch point `batch` is, for `body`."""
    return bind_each(
        batch,
        lambda at: bind(
            number,
            lambda name: bind(
                name * width,
                lambda start: body(Panel(total, at, name, start, width, size(total.cols))),
                "column",
            ),
            "number",
        ),
    )


def _cost(value: Expr) -> int:
    """Roughly how many vector instructions an epilogue takes."""
    binary = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)
    indices = [i for load in collect(value, TensorLoad) for i in load.indices]
    work = sum(len(collect(value, kind)) for kind in binary)
    work -= sum(len(collect(i, kind)) for i in indices for kind in binary)
    return work + 10 * len(collect(value, Call))
