"""Rewriting of size expressions under facts that hold in every valid run. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..dims import Expr, floordiv, product
from ..expr import Atom, atoms, ceildiv, from_atom, of_atom, rebuild, terms_of

Size = int | Expr
Divisors = Mapping[Size, Iterable[int]]
"""Expressions, each with integers that divide it."""


def primitive(gap: Size) -> Size:
    """The gap without the factor that its terms share: of c*m*rest == 0 the rest, for c*m != 0."""
    if isinstance(gap, int):
        return gap
    content = math.gcd(*(c for _, c in gap.terms))
    shared = list(gap.terms[0][0])
    for monomial, _ in gap.terms[1:]:
        left = list(monomial)
        kept = []
        for atom in shared:
            if atom in left:
                left.remove(atom)
                kept.append(atom)
        shared = kept
    return floordiv(gap, content * product(map(of_atom, shared)))


def inequality(gap: Size) -> tuple[Size, str, Size]:
    """gap >= 0 with the positive terms on one side: (left, op, right)."""
    parts: dict[bool, Size] = {True: 0, False: 0}
    for monomial, coefficient in terms_of(gap):
        if monomial:
            part = abs(coefficient) * product(map(of_atom, monomial))
            parts[coefficient > 0] = parts[coefficient > 0] + part
    plus, minus = parts[True], parts[False]
    constant = gap - plus + minus
    if minus == 0:
        content = _content(plus)
        return floordiv(plus, content), ">=", ceildiv(-constant, content)
    if plus == 0:
        content = _content(minus)
        return floordiv(minus, content), "<=", floordiv(constant, content)
    return plus + constant, ">=", minus


def _content(size: Size) -> int:
    return math.gcd(*(c for _, c in terms_of(size))) or 1


def replace_atom(size: Expr, atom: Atom, value: Size) -> Size:
    """The polynomial with one of its atoms replaced."""
    return rebuild(size, lambda other: value if other == atom else of_atom(other))


def quotients(size: Size) -> list[Atom]:
    """The atoms floordiv(a, n) with a constant n."""
    found = [a for a in atoms(size) if a.kind == "floordiv" and isinstance(a.args[1], int)]
    return sorted(found, key=str)


def use_divisors(size: Size, divisors: Divisors) -> Size:
    """Where n divides a: floordiv(a + r, n) = floordiv(a, n), 0 <= r < n; n*floordiv(a, n) = a."""
    if isinstance(size, int) or not divisors:
        return size
    size = rebuild(size, lambda atom: _exact_atom(atom, divisors))
    for atom in quotients(size):
        numerator, n = atom.args
        if divides(n, numerator, divisors):
            size = _multiply_out(size, atom)
    return size


def divides(n: Size, size: Size, divisors: Divisors) -> bool:
    """Whether a multiple of n is known to divide the size."""
    return isinstance(n, int) and any(m % n == 0 for m in divisors.get(size, ()))


def _exact_atom(atom: Atom, divisors: Divisors) -> Size:
    if atom.kind == "symbol":
        return of_atom(atom)
    args = [use_divisors(arg, divisors) for arg in atom.args]
    if atom.kind == "floordiv" and isinstance(args[1], int):
        numerator, n = args
        for known in divisors:
            rest = numerator - known
            if isinstance(rest, int) and 0 <= rest < n and divides(n, known, divisors):
                return floordiv(known, n)
    return from_atom(atom.kind, args)


def _multiply_out(size: Size, atom: Atom) -> Size:
    """c*n*floordiv(a, n)*rest = c*a*rest in every term whose coefficient allows it."""
    numerator, n = atom.args
    assert isinstance(n, int)
    total: Size = 0
    for monomial, coefficient in terms_of(size):
        term: Size = 1
        for factor in monomial:
            exact = factor == atom and coefficient % n == 0
            coefficient = coefficient // n if exact else coefficient
            term = term * (numerator if exact else of_atom(factor))
        total = total + coefficient * term
    return total
