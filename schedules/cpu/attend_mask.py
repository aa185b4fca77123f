"""Keys that a mask hides from every row of a tile: they are skipped.

    scores + mask, or where(condition, scores, -inf): key j is hidden from row i below HIDDEN
    window of a tile: the panels of keys from the first to the last of which a row sees anything

A hidden key weighs exactly 0 beside one that is seen: float32 numbers with HIDDEN between them lie
1e22 and more apart, and no score comes near that. The tile of a row that sees nothing takes all
keys: the softmax is one of the masks then. What is hidden is read from the mask when the kernel
runs, be it causal, a window or padding, known at compile time or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from ..kernel.analysis import substitute
from ..kernel.attend import HIDDEN, Attention
from ..kernel.emit import (
    UNROLLED,
    VECTORIZED,
    Size,
    Values,
    allocate,
    bind,
    block,
    ceildiv,
    index,
    least,
    loop,
    zeros,
)


@dataclass(frozen=True, eq=False)
class Window:
    """The window of one tile of `height` rows, in panels of `vectors` times `lanes` keys."""

    found: Attention
    mask: Expr
    row: Callable[[Expr], Values]
    """Batch and row axes at a row of the tile."""
    height: Expr
    most: int
    """Rows of the highest tile."""
    vectors: int
    lanes: int

    def each(self, body: Callable[[Expr, Size], tirx.Stmt]) -> tirx.Stmt:
        """``body(first key, number of keys)``; less than a panel of keys is taken as a whole."""
        keys, width = self.found.keys.extent, self.vectors * self.lanes
        count = index(ceildiv(keys, width))
        last = tirx.Select(keys >= width, count, index(0))
        seen = allocate([self.most], "float32", "seen")
        joined = allocate([2], "float32", "joined")
        ends = allocate([3], "int64", "ends")
        low, high, at = (index(place) for place in range(3))

        def put(place: Expr, value: Expr) -> tirx.Stmt:
            return tirx.BufferStore(ends, value, [place])

        some, every = (joined[index(place)] for place in range(2))
        from_the_end = block(
            put(at, ends[at] - 1),
            self._look(seen, joined, ends[at]),
            tirx.IfThenElse(some < 1.0, put(high, ends[at]), None),
        )
        from_the_start = block(
            self._look(seen, joined, ends[low]),
            tirx.IfThenElse(some < 1.0, put(low, ends[low] + 1), None),
        )
        return block(
            *(tirx.AllocBuffer(buffer) for buffer in (seen, joined, ends)),
            *(put(place, start) for place, start in ((low, index(0)), (high, count), (at, last))),
            self._clear(seen, joined),
            tirx.While(tirx.And(ends[at] > 0, every < 1.0), from_the_end),
            tirx.IfThenElse(
                every < 1.0,
                put(high, count),
                block(
                    self._clear(seen, joined),
                    tirx.While(tirx.And(ends[low] < ends[at], some < 1.0), from_the_start),
                ),
            ),
            bind(
                ends[low] * width,
                lambda first: bind(
                    least(ends[high] * width, keys) - first, lambda n: body(first, n), "count"
                ),
                "first",
            ),
        )

    def _look(self, seen: Var, joined: Var, panel: Expr) -> tirx.Stmt:
        """Note which rows see something in a panel: the last one is moved back to be whole.

        `joined` tells whether some row has seen something, and whether every one has.
        """
        width = self.vectors * self.lanes
        start = least(panel * width, self.found.keys.extent - width)
        here = allocate([self.lanes], "float32", "here")
        some, every = (index(place) for place in range(2))

        def element(i: Expr, j: Expr, lane: Expr) -> tirx.Stmt:
            at = {**self.row(i), self.found.keys.var: j + lane}
            hidden = substitute(self.mask, at) <= HIDDEN
            sees = tirx.Select(hidden, tirx.const(0.0, "float32"), tirx.const(1.0, "float32"))
            return tirx.BufferStore(here, tirx.max(here[lane], sees), [lane])

        def halve(half: int) -> tirx.Stmt:
            def join(j: Expr) -> tirx.Stmt:
                return tirx.BufferStore(here, tirx.max(here[j], here[j + half]), [j])

            return loop(half, join, VECTORIZED, "lane")

        def row(i: Expr, first: Expr) -> tirx.Stmt:
            looks = loop(
                self.vectors,
                lambda v: self._lanes(lambda lane: element(i, first + v * self.lanes, lane)),
                UNROLLED,
                "v",
            )
            return block(
                tirx.AllocBuffer(here),
                self._lanes(lambda lane: zeros(here, [lane])),
                looks,
                *(halve(self.lanes >> n) for n in range(1, self.lanes.bit_length())),
                tirx.BufferStore(seen, tirx.max(seen[i], here[index(0)]), [i]),
                tirx.BufferStore(joined, tirx.max(joined[some], seen[i]), [some]),
                tirx.BufferStore(joined, tirx.min(joined[every], seen[i]), [every]),
            )

        return block(
            zeros(joined, [some]),
            tirx.BufferStore(joined, tirx.const(1.0, "float32"), [every]),
            bind(start, lambda first: self._rows(lambda i: row(i, first)), "start"),
        )

    def _clear(self, seen: Var, joined: Var) -> tirx.Stmt:
        return block(
            self._rows(lambda i: zeros(seen, [i])), *(zeros(joined, [index(n)]) for n in range(2))
        )

    def _rows(self, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        return loop(self.height, body, name="i")

    def _lanes(self, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        return loop(self.lanes, body, VECTORIZED, "lane")
