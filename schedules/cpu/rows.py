"""How rows are cut into tiles.

A known number of rows into tiles of (nearly) equal height, so that no tile computes a row that is
not there and none is much smaller than the best one: nine rows are 5 + 4, not 8 + 1. Each height is
code of its own, so that an unknown number is cut into tiles of few heights, mixed as is cheapest
(dispatch.mixture): of 8, 3, 2 and 1 nine rows are 3 + 3 + 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from tvm import tirx
from tvm.ir import Expr, Var

from ..dispatch import Heights, mixed
from ..kernel.choice import of_height
from ..kernel.emit import Body, Size, bind, block, hidden, index, least

_After = Callable[[Expr, Expr], tirx.Stmt | None]


@dataclass(frozen=True, eq=False)
class Tiles:
    """`count` tiles, the highest first: those before the n-th of `ends` have the n-th height."""

    count: Size
    heights: tuple[int, ...]
    ends: tuple[Size, ...]
    """The last height has none: its tiles are those that are left."""

    @property
    def rows(self) -> int:
        """Rows of the highest tile."""
        return self.heights[0]

    def listed(self) -> list[tuple[int, int]]:
        """(first row, height) of every tile, when their number is known."""
        assert isinstance(self.count, int)
        found, row = [], 0
        for t in range(self.count):
            height = self.heights[sum(t >= int(end) for end in self.ends)]
            found.append((row, height))
            row += height
        return found

    def first(self, t: Size) -> Expr:
        """The first row of tile `t`; of the one past the last, how many rows tiles have."""
        row = t * index(self.heights[-1])
        for end, height, lower in zip(self.ends, self.heights, self.heights[1:]):
            row = row + (height - lower) * least(t, end)
        return row

    def each(self, t: Expr, body: Callable[[Expr, int], tirx.Stmt], after: _After) -> tirx.Stmt:
        """``body(first row, height)`` for tile `t`, then ``after(first row, height)``."""

        def tile(row: Expr, high: Expr) -> tirx.Stmt:
            return block(of_height(self.heights, high, partial(body, row)), after(row, high))

        return self.at(t, tile)

    def at(self, t: Expr, body: Callable[[Expr, Expr], tirx.Stmt]) -> tirx.Stmt:
        """``body(first row, height)`` for tile `t`, the same code for every height."""
        row, high = self.first(t), index(self.heights[-1])
        for end, height, lower in zip(self.ends, self.heights, self.heights[1:]):
            high = high + tirx.Select(t < index(end), index(height - lower), index(0))
        name = bind if isinstance(self.count, int) else _hidden
        return name(row, lambda row: name(high, partial(body, row), "height"), "row")


def cut(
    total: Size, rows: int, then: Callable[[Tiles], tirx.Stmt], heights: Heights = ()
) -> tirx.Stmt:
    """Bind how `total` rows are cut into tiles of at most `rows` rows.

    An unknown number of rows is cut into tiles of `heights`.
    """
    if not isinstance(total, int):
        return _mixed(total, heights, then)
    count = -(-total // rows)
    base, extra = divmod(total, max(count, 1))
    if extra:
        return then(Tiles(count, (base + 1, base), (extra,)))
    return then(Tiles(count, (max(base, 1),), ()))


_BITS = 4
"""Bits of a number in a table: no mixture of so few rows has 16 tiles of one height."""

_DIGITS = 64 // _BITS
"""Numbers in a word of a table."""


def _mixed(total: Expr, heights: Heights, then: Callable[[Tiles], tirx.Stmt]) -> tirx.Stmt:
    """Tiles of the highest first, then as dispatch.mixed has it for what is left of the rows."""
    top = heights[0][0]
    counts = list(zip(*mixed(heights)))

    def ends(whole: Expr, rest: Expr, done: tuple[Expr, ...]) -> tirx.Stmt:
        if len(done) == len(heights):
            return then(Tiles(done[-1], tuple(height for height, _ in heights), done[:-1]))
        before = done[-1] if done else whole
        after = before + _looked_up(counts[len(done)], rest)
        return _hidden(after, lambda end: ends(whole, rest, (*done, end)), "end")

    return bind(
        tirx.max(total // top - 1, index(0)),
        lambda whole: bind(total - whole * top, lambda rest: ends(whole, rest, ()), "rest"),
        "whole",
    )


def _hidden(value: Expr, body: Body, name: str) -> tirx.Stmt:
    """A value that no pass looks into: in every index it would cost more than it is good for."""
    var = Var(name, "int64")
    return hidden(value, var, body(var))


def _looked_up(numbers: Sequence[int], place: Expr) -> Expr:
    """The `place`-th of a few small numbers, which are the digits of one, or of a few."""
    starts = range(0, len(numbers), _DIGITS)
    first, *others = (_word(numbers[start : start + _DIGITS]) for start in starts)
    word = first
    for start, other in zip(starts[1:], others):
        word = tirx.Select(place < start, word, other)
    digit = place % _DIGITS if others else place
    return (word >> (digit * _BITS)) & ((1 << _BITS) - 1)


def _word(numbers: Iterable[int]) -> Expr:
    digits = sum(number << (_BITS * n) for n, number in enumerate(numbers))
    assert digits < 1 << 64
    return tirx.const(digits - (1 << 64) if digits >> 63 else digits, "int64")
