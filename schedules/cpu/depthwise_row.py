"""How a row of pixels is cut into tiles, and which of their columns may be padding.

A width that is known is cut into tiles of one size and a rest. Tiles over an edge have code of
their own, without the columns that are padding. A width that is not known has full tiles, the last
one moved back to end with the row, and conditions for the columns of those over an edge. These are
all that a row shorter than a tile needs, where there is padding behind it: a tile goes on past it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import sym, tirx
from tvm.ir import Expr

from ..kernel.analysis import Axis
from ..kernel.emit import Size, bind, block, ceildiv, index, known, least, loop, most
from .padding import Padding

MOST_EDGES = 3
"""Tiles at each edge of a row that have code of their own."""

Guard = Callable[[Expr], Expr]
"""Whether a column, counted from the first one under a tile, is inside of the picture."""

Down = Callable[[Expr, int, Guard | None, Size], tirx.Stmt]
"""The code of a tile: its first pixel, how many pixels, the guard if it has one, and how many of
the pixels there are: past them the tile stores nothing."""


@dataclass(frozen=True, eq=False)
class Row:
    """Tiles of up to `pixels` pixels along `width`, `stride` columns of the input apart."""

    width: Axis
    stride: int
    pixels: int
    padding: Padding | None

    def cut(self, down: Down) -> tirx.Stmt:
        """All tiles of the row."""
        width = known(self.width.extent)
        return self._known(width, down) if isinstance(width, int) else self._unknown(width, down)

    def _known(self, width: int, down: Down) -> tirx.Stmt:
        count = -(-width // self.pixels)
        pixels = -(-width // count)
        starts = range(0, width, pixels)
        begin, end = self._inside()
        assert isinstance(begin, int) and isinstance(end, int)
        whole = [begin <= x and x + pixels <= end for x in starts]
        inner = [t for t, is_whole in enumerate(whole) if is_whole]
        low, high = (inner[0], inner[-1] + 1) if inner else (len(whole), len(whole))
        if low > MOST_EDGES or len(whole) - high > MOST_EDGES:
            return self._guarded(width, pixels, down)

        def alone(t: int) -> tirx.Stmt:
            x = index(starts[t])
            count = min(pixels, width - starts[t])
            return down(x, count, self._guard(x), count)

        def whole_tile(t: Expr) -> tirx.Stmt:
            return down(t * pixels, pixels, None, pixels)

        middle = loop(high - low, whole_tile, name="t", start=low)
        return block(*map(alone, range(low)), middle, *map(alone, range(high, len(whole))))

    def _guarded(self, width: int, pixels: int, down: Down) -> tirx.Stmt:
        """One loop over all tiles, for windows that reach far over the edges."""
        rest = width % pixels
        many = loop(
            width // pixels,
            lambda t: bind(t * pixels, lambda x: self._anywhere(x, pixels, down), "x"),
        )
        return block(many, self._anywhere(index(width - rest), rest, down) if rest else None)

    def _unknown(self, width: Expr, down: Down) -> tirx.Stmt:
        """Full tiles; a row shorter than one is one over its end, or tiles in powers of two."""
        pixels = self.pixels
        if self._ends():
            return self._over_the_end(width, down)

        def many(t: Expr) -> tirx.Stmt:
            x = tirx.min(t * pixels, width - pixels)
            return bind(x, lambda x: self._anywhere(x, pixels, down), "x")

        def part(size: int) -> tirx.Stmt:
            x = width // (2 * size) * (2 * size)
            code = bind(x, lambda x: down(x, size, self._guard(x), size), "x")
            return tirx.IfThenElse(width % (2 * size) >= size, code, None)

        sizes = [1 << n for n in reversed(range((pixels - 1).bit_length()))]
        full = loop(ceildiv(width, pixels), many, name="t")
        return tirx.IfThenElse(width >= pixels, full, block(*map(part, sizes)) if sizes else None)

    def _ends(self) -> bool:
        """Whether the guard of a tile keeps it from reading past the row."""
        bounds = self.padding.bounds if self.padding else ()
        return any(bound.axis is self.width and bound.high is not None for bound in bounds)

    def _over_the_end(self, width: Expr, down: Down) -> tirx.Stmt:
        """Full tiles, and of a row that is shorter the part that there is."""
        pixels = self.pixels

        def tile(t: Expr) -> tirx.Stmt:
            x = most(tirx.min(t * pixels, width - pixels), 0)
            return bind(x, lambda x: self._anywhere(x, pixels, down, least(pixels, width)), "x")

        return loop(ceildiv(width, pixels), tile, name="t")

    def _anywhere(self, x: Expr, pixels: int, down: Down, count: Size | None = None) -> tirx.Stmt:
        """A tile whose place is known when it runs; `count` as in `Down`, over an edge."""
        guard = self._guard(x)
        if guard is None:
            return down(x, pixels, None, pixels)
        begin, end = self._inside()
        inner = tirx.And(x >= index(begin), x + pixels <= index(end))
        at_edge = down(x, pixels, guard, pixels if count is None else count)
        return tirx.IfThenElse(inner, down(x, pixels, None, pixels), at_edge)

    def _inside(self) -> tuple[Size, Size]:
        """The pixels whose windows are not cut off."""
        if self.padding is None:
            return 0, known(self.width.extent)
        return self.padding.inside(self.width)

    def _guard(self, x: Expr) -> Guard | None:
        """The guard of a tile that starts at pixel `x`, None if the row has no padding."""
        bounds = [b for b in self.padding.bounds if b.axis is self.width] if self.padding else []
        if not bounds:
            return None
        simplify = sym.Analyzer().simplify

        def guard(column: Expr) -> Expr:
            place = x * self.stride + column
            inside: Expr = tirx.const(True)
            for bound in bounds:
                if bound.low is not None:
                    inside = tirx.And(inside, place >= index(bound.low))
                if bound.high is not None:
                    inside = tirx.And(inside, place < index(bound.high))
            return simplify(inside)

        return guard
