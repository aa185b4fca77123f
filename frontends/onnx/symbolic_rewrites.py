"""Rewriting of size expressions under facts that hold in every valid run. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

from ..dims import Expr, floordiv, product
from ..expr import Atom, as_atom, atoms, content, make, of_atom, rebuild, terms_of
from ..expr_atoms import is_quotient

Size = int | Expr
Divisors = Mapping[Size, Set[int]]
"""Expressions, each with integers that divide it."""


def inequality(gap: Size) -> tuple[Size, str, Size]:
    """gap >= 0 as (left, op, right), neither side with a negative term if that is possible."""
    plus, minus, constant = _split(gap)
    if minus == 0:
        return _above(plus, -constant)
    if plus == 0:
        return _below(minus, constant)
    return plus + constant, ">=", minus


def _split(gap: Size) -> tuple[Size, Size, int]:
    """(p, m, c) with gap = p - m + c and only positive coefficients in p and m."""
    plus: Size = 0
    minus: Size = 0
    constant = 0
    for monomial, coefficient in terms_of(gap):
        part = abs(coefficient) * product(map(of_atom, monomial))
        if not monomial:
            constant = coefficient
        elif coefficient > 0:
            plus = plus + part
        else:
            minus = minus + part
    return plus, minus, constant


def _above(size: Size, limit: int) -> tuple[Size, str, Size]:
    """size >= limit; c*a >= k is a >= ceil(k / c), floordiv(a, n) >= k is a >= n*k."""
    common = content(size) or 1
    size, limit = floordiv(size, common), -(-limit // common)
    atom = as_atom(size)
    if atom is not None and is_quotient(atom):
        numerator, n = atom.args
        return inequality(numerator - n * limit)
    return size, ">=", limit


def _below(size: Size, limit: int) -> tuple[Size, str, Size]:
    """size <= limit; c*a <= k is a <= floor(k / c), floordiv(a, n) <= k is a <= n*k + n - 1."""
    common = content(size) or 1
    size, limit = floordiv(size, common), limit // common
    atom = as_atom(size)
    if atom is not None and is_quotient(atom):
        numerator, n = atom.args
        return inequality(n * limit + n - 1 - numerator)
    return size, "<=", limit


def quotients(size: Size) -> list[Atom]:
    """The atoms floordiv(a, n) with a constant n."""
    return sorted(filter(is_quotient, atoms(size)), key=str)


def use_divisors(size: Size, divisors: Divisors) -> Size:
    """The size in terms of the coarsest exact quotients: with 4 | h, floordiv(h, 2) is
    2*floordiv(h, 4), and 4*floordiv(h, 4) is h."""
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
    if is_quotient(atom):
        numerator, n = args
        for known, exact in divisors.items():
            rest, whole = numerator - known, math.lcm(*exact)
            if isinstance(rest, int) and isinstance(n, int) and rest >= 0:
                return _exact_quotient(known, whole, rest, n)
    return make(atom.kind, *args)


def _exact_quotient(size: Size, whole: int, rest: int, n: int) -> Size:
    """floordiv(size + rest, n) where `whole` divides the size."""
    # both size and n are multiples of g, so only floor(rest / g) counts
    common = math.gcd(whole, n)
    rest -= rest % common
    if rest == 0 and whole % n == 0:
        return whole // n * floordiv(size, whole)
    return floordiv(size + rest, n)


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
