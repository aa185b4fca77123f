"""Which block of the grid has which tile of a product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from ..kernel.contraction import Contraction, size
from ..kernel.emit import Size, Values, bind, ceildiv, index, known, least, most
from .launch import Block, among, axes_at, launch, when

GROUP = 8
"""Tiles of rows that are worked on together: operands meet in L2 (Triton, matmul tutorial)."""


@dataclass(frozen=True)
class Work:
    """What a block does of a tile: `steps` of its sum, from the `first` on.

    The tile begins at (`row`, `column`) of a batch, whose axes are at `at`. Where the sum is cut,
    `part` is the number of what the block leaves. `done` are steps of other tiles that the block
    has behind it; it has all of this one's if `whole`.
    """

    at: Values
    row: Expr
    column: Expr
    batch: Expr
    first: Expr
    steps: Size
    part: Expr
    done: Expr
    whole: Expr | bool


Body = Callable[[Work, Expr], Stmt]
Place = Callable[[Values, Expr, Expr, Expr], Stmt]


class Tiles:
    """The tiles of `rows` x `cols` results of a product, by number."""

    def __init__(self, found: Contraction, rows: int, cols: int) -> None:
        self.batch, self.rows, self.cols = found.batch, rows, cols
        self.tall = ceildiv(known(size(found.rows)), rows)
        self.wide = ceildiv(known(size(found.cols)), cols)
        self.batches = known(size(found.batch))

    @property
    def count(self) -> Size:
        return known(self.tall * self.wide * self.batches)

    def at(self, number: Expr, body: Place) -> Stmt:
        """``body(batch axes, first row, first column, batch)`` of a tile."""
        return self.place(*among(number, self.tall * self.wide), body)

    def place(self, batch: Expr, inside: Expr, body: Place) -> Stmt:
        """As `at`, of the `inside`-th tile of a batch."""
        row, column = _grouped(inside, self.tall, self.wide)
        at = axes_at(self.batch, batch)

        def with_row(m: Expr) -> Stmt:
            return bind(column * self.cols, lambda n: with_both(m, n), "n", "local")

        def with_both(m: Expr, n: Expr) -> Stmt:
            # TVM does not look into names: without a sign, quotients are twice as long.
            return body(at, tirx.max(m, index(0)), tirx.max(n, index(0)), batch)

        return bind(row * self.rows, with_row, "m", "local")


def over_tiles(tiles: Tiles, steps: Size, splits: int, threads: int, body: Body) -> Stmt:
    """One kernel: ``body(work, thread)``, each tile's sum of `steps` cut into `splits` parts."""

    def block(number: Expr, thread: Expr, _y: Expr) -> Stmt:
        rest, inside = among(number, tiles.tall * tiles.wide)
        batch, part = among(rest, splits)
        first, own = own_steps(steps, splits, part)

        def work(at: Values, m: Expr, n: Expr, batch: Expr) -> Stmt:
            return body(Work(at, m, n, batch, first, own, part, index(0), splits == 1), thread)

        return tiles.place(batch, inside, work)

    return launch(known(index(tiles.count) * splits), Block(threads), block)


def unless_empty(found: Contraction, product: Stmt) -> Stmt:
    """The product, if it has results: the one block of an empty grid would read and write some."""
    sizes = [known(size(axes)) for axes in (found.batch, found.rows, found.cols)]
    some = [index(n) > 0 for n in sizes if not isinstance(n, int)]
    return when(tirx.all(*some), product) if some else product


def own_steps(steps: Size, splits: int, part: Expr) -> tuple[Expr, Size]:
    """(first, count) of the steps of the sum that a part has."""
    if splits == 1:
        return index(0), steps
    each = ceildiv(steps, splits)
    first = part * each
    return first, most(least(each, steps - first), 0)


def _grouped(number: Expr, tall: Size, wide: Size) -> tuple[Expr, Expr]:
    """Tiles in the order of columns of `GROUP` tiles or less: (row, column) of the `number`-th."""
    heights = [h for h in range(1, GROUP + 1) if isinstance(tall, int) and tall % h == 0]
    height: Size = max(heights, default=1)
    # A last group of another height takes names of 64 bits, which epilogues have no vectors of.
    even = isinstance(tall, int)
    group, inside = among(number, known(index(wide) * (height if even else GROUP)))
    first = group * (height if even else GROUP)
    if not even:
        height = least(GROUP, index(tall) - first)
    column, row = among(inside, height)
    return first + row, column
