"""Conditions on index expressions, turned into a box where they can be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tvmext.frontends.dims import ceildiv, maximum, minimum, names_of, product
from tvmext.frontends.expr import Atom, of_atom, terms_of

from .piece import Guard
from .scope import Scope, Size


@dataclass(frozen=True)
class Box:
    """[low, low + extent) along each axis, with the guards that no box can express."""

    low: tuple[Size, ...]
    extent: tuple[Size, ...]
    guards: tuple[Guard, ...]


class _Intervals:
    """low <= x < high for each axis, under construction."""

    def __init__(self, shape: Sequence[Size], scope: Scope) -> None:
        self.low: list[Size] = [0] * len(shape)
        self.high: list[Size] = list(shape)
        self.scope = scope

    def add(self, axis: int, low: Size | None, high: Size | None) -> None:
        """Intersects; of two bounds, the one that is provably tighter stays alone."""
        proves = self.scope.proves
        low = self.low[axis] if low is None else low
        high = self.high[axis] if high is None else high
        if proves(low - self.low[axis]):
            self.low[axis] = low
        elif not proves(self.low[axis] - low):
            self.low[axis] = maximum(self.low[axis], low)
        if proves(self.high[axis] - high):
            self.high[axis] = high
        elif not proves(high - self.high[axis]):
            self.high[axis] = minimum(self.high[axis], high)


def restrict(shape: Sequence[Size], conditions: Iterable[Guard], scope: Scope) -> Box | None:
    """The part of [0, shape) where all conditions hold; None if that is provably nothing."""
    intervals = _Intervals(shape, scope)
    guards: list[Guard] = []
    for condition in conditions:
        value = scope.simplify(condition.value)
        low, high = condition.low, condition.high
        above, below = scope.proves(value - low), scope.proves(high - 1 - value)
        if above and below:
            continue
        if scope.proves(low - 1 - value) or scope.proves(value - high):
            return None
        axis = _solve(value, low, high) or _solve_digit(
            value, None if above else low, None if below else high, scope
        )
        if axis is None:
            guards.append(Guard(value, low, high))
        else:
            intervals.add(*axis)
    extent = tuple(h - low for low, h in zip(intervals.low, intervals.high, strict=True))
    if any(scope.proves(-size) for size in extent):
        return None
    return Box(tuple(intervals.low), extent, tuple(guards))


Interval = tuple[int, Size | None, Size | None]
"""An axis and the interval of its index; None is an end that is not limited further."""


def _solve(value: Size, low: Size, high: Size) -> Interval | None:
    """``low <= value < high`` as an interval of one index variable: (axis, low, high).

    Solves ``c*x + d`` and ``floordiv(..., n)``, nested, d free of index variables.
    """
    split = _linear(value)
    if split is None:
        return None
    coefficient, atom, rest = split
    low, high = low - rest, high - rest
    if coefficient < 0:
        low, high, coefficient = 1 - high, 1 - low, -coefficient
    low, high = ceildiv(low, coefficient), ceildiv(high, coefficient)
    if atom.kind == "symbol":
        return int(atom.text[2:]), low, high
    if atom.kind == "floordiv" and not _moves(atom.args[1]):
        divisor = atom.args[1]
        return _solve(atom.args[0], divisor * low, divisor * high)
    return None


def _solve_digit(value: Size, low: Size | None, high: Size | None, scope: Scope) -> Interval | None:
    """The same for ``a*x + r`` with 0 <= r < a, the leading digit of a number in base a.

    ``a*x + r >= B`` is ``x >= ceil(B / a)`` if r never reaches what B leaves modulo a, or if it
    leaves nothing; so a merged axis that is cut at a multiple of its inner size is a box.
    """
    for monomial, coefficient in terms_of(value):
        indices = [a for a in monomial if a.kind == "symbol" and a.text.startswith("_x")]
        if len(indices) != 1 or sum(_moves(of_atom(a)) for a in monomial) != 1:
            continue
        others = [of_atom(a) for a in monomial if a != indices[0]]
        base = coefficient * product(others)
        rest = value - base * of_atom(indices[0])
        offset = sum(c for m, c in terms_of(rest) if not m)
        rest = rest - offset
        if not (scope.proves(rest) and scope.proves(base - 1 - rest)):
            continue
        ends = [_digit(end, offset, base, scope.bounds(rest)[1]) for end in (low, high)]
        if None not in ends:
            low, high = (None if end is None else q for end, q in zip((low, high), ends))
            return int(indices[0].text[2:]), low, high
    return None


def _digit(end: Size | None, offset: int, base: Size, largest: Size | None) -> Size | None:
    """ceil((end - offset) / base) if ``base*x + r`` passes the end exactly where x passes that.

    0 for no end; None if the end lies within one step of x.
    """
    if end is None:
        return 0
    quotient = ceildiv(end - offset, base)
    if quotient * base == end - offset:
        return quotient
    if isinstance(base, int) and isinstance(largest, int) and isinstance(end, int):
        return quotient if (end - offset) % base > largest else None
    return None


def _linear(value: Size) -> tuple[int, Atom, Size] | None:
    """(c, atom, rest) with value = c*atom + rest and no index variable in the rest."""
    moving = [term for term in terms_of(value) if any(_moves(of_atom(a)) for a in term[0])]
    if len(moving) != 1 or len(moving[0][0]) != 1:
        return None
    (atom,), coefficient = moving[0]
    if atom.kind == "symbol" and not atom.text.startswith("_x"):
        return None
    return coefficient, atom, value - coefficient * of_atom(atom)


def _moves(value: Size) -> bool:
    """Whether the expression depends on an index variable or a lookup."""
    return any(name.startswith(("_x", "_t")) for name in names_of(value))
