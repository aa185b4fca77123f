"""Which block of the grid has which tile of a product."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from ..kernel.contraction import Contraction, size
from ..kernel.emit import Size, Values, bind, ceildiv, index, known, least, most
from .launch import Block, among, axes_at, launch, when

GROUP = 8
"""Tiles of rows that are worked on together: operands meet in L2 (Triton, matmul tutorial)."""

Body = Callable[[Values, Expr, Expr, Expr, Expr, Expr], Stmt]


def over_tiles(
    found: Contraction, rows: int, cols: int, splits: int, threads: int, body: Body
) -> Stmt:
    """One kernel: ``body(batch axes, first row, first column, batch, part of the sum, thread)``."""
    tall, wide = ceildiv(known(size(found.rows)), rows), ceildiv(known(size(found.cols)), cols)
    grid = known(tall * wide * known(size(found.batch)) * splits)

    def block(number: Expr, thread: Expr, _y: Expr) -> Stmt:
        rest, inside = among(number, tall * wide)
        batch, part = among(rest, splits)
        row, column = _grouped(inside, tall, wide)
        at = axes_at(found.batch, batch)

        def with_row(m: Expr) -> Stmt:
            return bind(column * cols, lambda n: with_both(m, n), "n", "local")

        def with_both(m: Expr, n: Expr) -> Stmt:
            # TVM does not look into names: without a sign, quotients are twice as long.
            m, n = tirx.max(m, index(0)), tirx.max(n, index(0))
            return body(at, m, n, batch, part, thread)

        return bind(row * rows, with_row, "m", "local")

    return launch(grid, Block(threads), block)


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
