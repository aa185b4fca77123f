"""How rows are cut into tiles.

Into tiles of (nearly) equal height, so that no tile computes a row that is not there and none is
much smaller than the best one: nine rows are 5 + 4, not 8 + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from ..dispatch import Heights
from ..kernel.choice import best_height, of_height
from ..kernel.emit import Size, bind, block, ceildiv, index, least, most


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
    """Tiles of one of some heights, the last one moved back to end with the rows: less code.

    `base` is the height that costs the least for as many rows.
    """

    choices: Heights = ()

    def each(self, t: Expr, body: Callable[[Expr, int], tirx.Stmt], after: _After) -> tirx.Stmt:
        total, height = index(self.total), index(self.base)

        def tile(row: Expr) -> tirx.Stmt:
            parts = of_height(self.choices, height, lambda high: body(row, high))
            return block(parts, after(row, height))

        return bind(tirx.min(t * height, total - height), tile, "row")


_After = Callable[[Expr, Expr], tirx.Stmt | None]


def cut(
    total: Size, rows: int, then: Callable[[Tiles], tirx.Stmt], overlap: Heights = ()
) -> tirx.Stmt:
    """Bind how `total` rows are cut into tiles of at most `rows` rows.

    With `overlap`, an unknown number of rows is cut into overlapping tiles of such heights.
    """
    count = ceildiv(total, rows)
    if overlap and not isinstance(total, int):

        def tiles(height: Expr) -> tirx.Stmt:
            return bind(
                (total + (height - 1)) // height,
                lambda n: then(Overlapping(total, rows, n, height, 0, overlap)),
                "tiles",
            )

        return best_height(overlap, total, tiles, padded=False)
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
