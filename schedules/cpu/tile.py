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

from ..analysis import collect, substitute
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
        heights = self.heights()
        stmt = body(row, heights[-1])
        for height in heights[-2::-1]:
            stmt = tirx.IfThenElse(high == height, body(row, height), stmt)
        return stmt


_After = Callable[[Expr, Expr], tirx.Stmt | None]


def cut(total: Size, rows: int, then: Callable[[Tiles], tirx.Stmt]) -> tirx.Stmt:
    """Bind how `total` rows are cut into tiles of at most `rows` rows."""
    count = ceildiv(total, rows)
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
        parts = self._parts(height)
        acc = allocate([parts * height, self.shape.cols], self.sum.dtype, "acc", "local")
        each = lambda n, body: loop(  # noqa: E731
            n,
            lambda i: vectors(self.shape.vectors, self.shape.lanes, lambda j: body(i, j)),
            UNROLLED,
            "i",
        )
        return block(
            tirx.AllocBuffer(acc),
            each(parts * height, lambda i, j: zeros(acc, [i, j])),
            self._reduce(acc, row, height, parts, panel),
            *(
                each(height, lambda i, j: _add(acc, [i, j], acc[i + part * height, j]))  # noqa: B023
                for part in range(1, parts)
            ),
            self._leave(acc, each, row, height, panel, spill),
        )

    def _parts(self, height: int) -> int:
        """How many partial sums of each element hide the latency when the tile is small."""
        extent = self.sum.reduce[-1].size if self.sum.reduce else None
        wanted = -(-CHAINS // (height * self.shape.vectors))
        while wanted > 1 and (extent is None or extent % wanted):
            wanted -= 1
        return wanted

    def _reduce(
        self, acc: Var, row: Callable[[Expr], Values], height: int, parts: int, panel: Panel
    ) -> tirx.Stmt:
        axes = self.sum.reduce
        extents: list[Size] = [known(axis.extent) for axis in axes]

        def step(at: list[Expr]) -> tirx.Stmt:
            updates = []
            for part in range(parts):
                ks = {axis.var: k for axis, k in zip(axes, at)}
                if parts > 1:
                    ks[axes[-1].var] = at[-1] * parts + part
                updates.append(update(part, ks))
            return block(*updates)

        def update(part: int, ks: Values) -> tirx.Stmt:
            return loop(
                height,
                lambda i: vectors(
                    self.shape.vectors,
                    self.shape.lanes,
                    lambda j: _add(
                        acc,
                        [i + part * height, j],
                        self.lhs({**row(i), **panel.at}, ks) * self.rhs(panel, ks, j),
                    ),
                ),
                UNROLLED,
                "i",
            )

        if parts > 1:
            assert isinstance(extents[-1], int)
            extents[-1] //= parts
        if extents and isinstance(extents[-1], int) and 1 < extents[-1] <= 4:
            last = extents[-1]
            return nest(
                extents[:-1], lambda at: loop(last, lambda k: step([*at, k]), UNROLLED, "k")
            )
        return nest(extents, step)

    def _leave(
        self,
        acc: Var,
        each: Callable[..., tirx.Stmt],
        row: Callable[[Expr], Values],
        height: int,
        panel: Panel,
        spill: Var | None,
    ) -> tirx.Stmt:
        def keep() -> tirx.Stmt:
            return each(height, lambda i, j: tirx.BufferStore(spill, acc[i, j], [i, j]))

        def store() -> tirx.Stmt:
            return each(height, lambda i, j: self.store(panel, row(i), j, acc[i, j]))

        if spill is None:
            return store()
        if self.heavy:
            return keep()
        return tirx.IfThenElse(panel.full, store(), keep())

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


def _add(buffer: Var, at: list[Expr], value: Expr) -> tirx.Stmt:
    return tirx.BufferStore(buffer, buffer[tuple(at)] + value, at)


def _cost(value: Expr) -> int:
    """Roughly how many vector instructions an epilogue takes."""
    binary = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)
    indices = [i for load in collect(value, TensorLoad) for i in load.indices]
    work = sum(len(collect(value, kind)) for kind in binary)
    work -= sum(len(collect(i, kind)) for i in indices for kind in binary)
    return work + 10 * len(collect(value, Call))
