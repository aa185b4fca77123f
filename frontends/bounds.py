"""What can be proved about an expression when its dims have ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from .expr import Atom, Expr, atoms, coefficient_of, make, of_atom, rebuild, replace_atom, terms_of
from .expr_atoms import floordiv, is_quotient

Interval = tuple[float, float]
"""Lower and upper bound; both are ints unless infinite."""

_SPLITS = 3
"""How many min and max atoms are told apart by cases; each one doubles the work."""


class Range(Protocol):
    """The range of a dim; `Dim` is one."""

    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int | None: ...


def bounds(
    size: int | Expr, ranges: Mapping[str, Range] | None = None
) -> tuple[int | None, int | None]:
    """Sound lower and upper bounds of a size; None is unbounded.

    A dim that is not in `ranges` is any integer >= 0.
    """
    low, high = _interval(size, ranges or {}, _SPLITS)
    return (None if low == -math.inf else int(low)), (None if high == math.inf else int(high))


def at_least(
    a: int | Expr, b: int | Expr, ranges: Mapping[str, Range] | None = None
) -> bool | None:
    """Whether a >= b for all sizes in range: True, False (for none) or None (not known)."""
    low, high = bounds(a - b, ranges)
    if low is not None and low >= 0:
        return True
    return False if high is not None and high < 0 else None


def refine(size: int | Expr, ranges: Mapping[str, Range]) -> int | Expr:
    """The size in a simpler form that is equal where the dims are in their ranges.

    Drops arguments of min and max that another one decides, and quotients known to be constant.
    """
    if isinstance(size, int) or not size.names:
        return size
    fixed = {name for name in size.names if name in ranges and _fixed(ranges[name])}
    if fixed:
        size = size.substitute({name: ranges[name].low for name in fixed})
    return size if isinstance(size, int) else rebuild(size, lambda a: _refine_atom(a, ranges))


def _fixed(dim: Range) -> bool:
    return dim.low == dim.high


def _refine_atom(atom: Atom, ranges: Mapping[str, Range]) -> int | Expr:
    if atom.kind == "symbol":
        return of_atom(atom)
    args = [refine(arg, ranges) for arg in atom.args]
    if atom.kind == "floordiv":
        low, high = bounds(floordiv(*args), ranges)
        return low if low is not None and low == high else floordiv(*args)
    kept: list[int | Expr] = []
    for k, arg in enumerate(args):
        rivals = kept + args[k + 1 :]
        sign = 1 if atom.kind == "min" else -1
        if not any(at_least(sign * arg, sign * rival, ranges) for rival in rivals):
            kept.append(arg)
    return make(atom.kind, *kept)


def _interval(size: int | Expr, ranges: Mapping[str, Range], splits: int) -> Interval:
    """The best of interval arithmetic, eliminated quotients, and cases of min and max."""
    low: float = 0
    high: float = 0
    for monomial, coefficient in terms_of(size):
        term: Interval = (coefficient, coefficient)
        for atom in monomial:
            term = _product(term, _atom_interval(atom, ranges, splits))
        low, high = low + term[0], high + term[1]
    if isinstance(size, int) or not splits:
        return low, high
    for atom in sorted(atoms(size), key=str):
        other = None
        if is_quotient(atom):
            other = _without_quotient(size, atom, ranges, splits)
        elif atom.kind in ("min", "max"):
            other = _by_cases(size, atom, ranges, splits)
        if other:
            low, high = max(low, other[0]), min(high, other[1])
    return low, high


def _product(a: Interval, b: Interval) -> Interval:
    corners = [0 if 0 in (x, y) else x * y for x in a for y in b]  # 0 * inf is 0 here
    return min(corners), max(corners)


def _atom_interval(atom: Atom, ranges: Mapping[str, Range], splits: int) -> Interval:
    if atom.kind == "symbol":
        dim = ranges.get(atom.text)
        if dim is None:
            return 0, math.inf
        return dim.low, math.inf if dim.high is None else dim.high
    args = [_interval(arg, ranges, splits) for arg in atom.args]
    if atom.kind == "floordiv":
        return _quotient(*args)
    pick = min if atom.kind == "min" else max
    return pick(low for low, _ in args), pick(high for _, high in args)


def _quotient(a: Interval, b: Interval) -> Interval:
    """Of floor(a / b). Where b may be negative nothing is known; b = 0 does not occur."""
    if b[0] < 0:
        return -math.inf, math.inf
    corners = [_floor(x, y) for x in a for y in (max(b[0], 1), max(b[1], 1))]
    return min(corners), max(corners)


def _floor(a: float, b: float) -> float:
    if b == math.inf:
        return (-1 if a < 0 else 0) if abs(a) != math.inf else a
    return a if abs(a) == math.inf else a // b


def _without_quotient(
    size: Expr, atom: Atom, ranges: Mapping[str, Range], splits: int
) -> Interval | None:
    """With n*floor(a/n) = a - r, 0 <= r < n: bounds of c*floor(a/n) + rest, c constant."""
    coefficient = coefficient_of(size, (atom,))
    if not coefficient:
        return None
    numerator, n = atom.args
    assert isinstance(n, int)
    rest = size - coefficient * of_atom(atom)
    low, high = _interval(coefficient * numerator + n * rest, ranges, splits - 1)
    slack = coefficient * (n - 1)
    low, high = low - max(slack, 0), high - min(slack, 0)
    return -_floor(-low, n), _floor(high, n)


def _by_cases(size: Expr, atom: Atom, ranges: Mapping[str, Range], splits: int) -> Interval:
    """min(a, b) is a or b; where it enters linearly, it is also at most both (max: at least)."""
    cases = [_interval(replace_atom(size, atom, a), ranges, splits - 1) for a in atom.args]
    low, high = min(case[0] for case in cases), max(case[1] for case in cases)
    linear = coefficient_of(size, (atom,))
    if linear and sum(atom in monomial for monomial, _ in size.terms) == 1:
        falls = (linear < 0) == (atom.kind == "min")
        if falls:
            low = max(case[0] for case in cases)
        else:
            high = min(case[1] for case in cases)
    return low, high
