"""floordiv, min and max in the normal form that `expr` describes."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache, reduce

from tvmext.errors import DimError

from .expr import (
    Atom,
    Expr,
    Monomial,
    atom_key,
    atoms,
    coefficient_of,
    content,
    normal,
    of_atom,
    replace_atom,
    terms_of,
)


def floordiv(a: int | Expr, b: int | Expr) -> int | Expr:
    """The quotient rounded down. Raises DimError if b is the constant 0."""
    if isinstance(b, Expr):
        return _div_expr(a, b)
    if b == 0:
        raise DimError(f"'{a}' is divided by zero")
    return _div_const(a, b) if b > 0 else _div_const(-a, -b)


def ceildiv(a: int | Expr, b: int | Expr) -> int | Expr:
    """The quotient rounded up. Raises DimError if b is the constant 0."""
    return floordiv(a + b - 1, b) if isinstance(b, int) and b > 0 else -floordiv(-a, b)


def minimum(*args: int | Expr) -> int | Expr:
    """The smallest of the arguments."""
    return _extreme("min", args)


def maximum(*args: int | Expr) -> int | Expr:
    """The largest of the arguments."""
    return _extreme("max", args)


CONSTRUCTORS: dict[str, Callable[..., int | Expr]] = {
    "floordiv": floordiv,
    "min": minimum,
    "max": maximum,
}
"""What builds an atom of each kind; a symbol has no arguments to normalise."""


# ---- floordiv ----


@lru_cache(maxsize=1 << 16)
def _div_const(a: int | Expr, n: int) -> int | Expr:
    """floor(a / n), n > 0."""
    # floor((n*q + r) / n) = q + floor(r / n), coefficient by coefficient
    quotient = normal({m: c // n for m, c in terms_of(a)})
    rest = normal({m: c % n for m, c in terms_of(a)})
    if isinstance(rest, int):
        return quotient
    # floor((g*b + c) / (g*n)) = floor((b + floor(c / g)) / n)
    common = math.gcd(n, *(c for m, c in rest.terms if m))
    if common > 1:
        return quotient + _div_const(_shrink(rest, common), n // common)
    # floor(r / n) = -floor((n - 1 - r) / n), of which one form is kept
    mirrored = normal({m: c % n for m, c in terms_of(n - 1 - rest)})
    if _quotient_key(mirrored) < _quotient_key(rest):
        return quotient - _div_const(n - 1 - rest, n)
    # floor((floor(b / m) + r) / n) = floor((b + m*r) / (m*n))
    inner = _inner_quotient(rest)
    if inner is not None:
        numerator, m = inner.args
        return quotient + _div_const(numerator + m * (rest - of_atom(inner)), m * n)
    return quotient + of_atom(Atom("floordiv", (rest, n)))


def _quotient_key(numerator: int | Expr) -> tuple[bool, list[int]]:
    """Prefers a numerator with a quotient to merge, then small coefficients, first ones first."""
    return _inner_quotient(numerator) is None, [c for m, c in terms_of(numerator) if m]


def _inner_quotient(numerator: int | Expr) -> Atom | None:
    """The first atom floordiv(a, m), m constant, that occurs with coefficient 1."""
    for monomial, coefficient in terms_of(numerator):
        if coefficient == 1 and len(monomial) == 1 and is_quotient(monomial[0]):
            return monomial[0]
    return None


def is_quotient(atom: Atom) -> bool:
    """Whether the atom is floordiv(a, n) with a constant n."""
    return atom.kind == "floordiv" and isinstance(atom.args[1], int)


def divisors(size: object) -> set[Expr]:
    """Everything that is not constant and that the size, if it is an `Expr`, divides by."""
    if not isinstance(size, Expr):
        return set()
    found: set[Expr] = set()
    for atom in atoms(size):
        found = found.union(*map(divisors, atom.args))
        if atom.kind == "floordiv" and isinstance(atom.args[1], Expr):
            found.add(atom.args[1])
    return found


@lru_cache(maxsize=1 << 16)
def _div_expr(a: int | Expr, b: Expr) -> int | Expr:
    """floor(a / b), b not constant."""
    # floor((b*q + r) / b) = q + floor(r / b)
    quotient, rest = _divide(a, b)
    if rest == 0:
        return quotient
    over, under = cancel(rest, b)
    if under == b:
        return quotient + of_atom(Atom("floordiv", (rest, b)))
    return quotient + floordiv(over, under)


def cancel(a: int | Expr, b: int | Expr) -> tuple[int | Expr, int | Expr]:
    """a / b in lowest terms: without the monomial and the integer that both have, b's lead > 0."""
    shared = _shared_monomial(a, b)
    a, b = _strip(a, shared), _strip(b, shared)
    factor = content(a, b) * (-1 if terms_of(b)[0][1] < 0 else 1)
    return _shrink(a, factor), _shrink(b, factor)


def _shrink(size: int | Expr, divisor: int) -> int | Expr:
    """Every coefficient divided; only a constant may leave a rest, which is dropped."""
    return normal({m: c // divisor for m, c in terms_of(size)})


_DIVISION_STEPS = 64
"""Division of polynomials ends by itself; this bounds the work on ones no network has."""


def _divide(a: int | Expr, b: Expr) -> tuple[int | Expr, int | Expr]:
    """Polynomial division by the leading term of b: a = b*quotient + rest."""
    lead, factor = max(b.terms, key=lambda term: _degree_key(term[0]))
    quotient: int | Expr = 0
    rest = a
    for _ in range(_DIVISION_STEPS):
        divisible = [
            (m, c) for m, c in terms_of(rest) if c % factor == 0 and not Counter(lead) - Counter(m)
        ]
        if not divisible:
            return quotient, rest
        monomial, coefficient = max(divisible, key=lambda term: _degree_key(term[0]))
        step = normal({_without(monomial, lead): coefficient // factor})
        quotient, rest = quotient + step, rest - step * b
    return 0, a


def _degree_key(monomial: Monomial) -> tuple[int, list[tuple[bool, str]]]:
    return len(monomial), [atom_key(atom) for atom in monomial]


def _without(monomial: Monomial, divisor: Monomial) -> Monomial:
    """monomial / divisor, which divides it."""
    left = Counter(monomial) - Counter(divisor)
    return tuple(sorted(left.elements(), key=atom_key))


def _shared_monomial(*sizes: int | Expr) -> Monomial:
    """The largest monomial that divides every term of every size."""
    powers = [Counter(monomial) for size in sizes for monomial, _ in terms_of(size)]
    return tuple(sorted(reduce(operator.and_, powers).elements(), key=atom_key))


def _strip(size: int | Expr, monomial: Monomial) -> int | Expr:
    return normal({_without(m, monomial): c for m, c in terms_of(size)})


def primitive(size: int | Expr) -> int | Expr:
    """The size without the positive integer and the monomial that all its terms share."""
    if size == 0:
        return 0
    return _shrink(_strip(size, _shared_monomial(size)), content(size))


# ---- min and max ----


def _extreme(kind: str, args: Iterable[int | Expr]) -> int | Expr:
    """min or max of `args`."""
    flat = _undominated(kind, _flatten(kind, args))
    if len(flat) == 1:
        return flat[0]
    # min(a + c, b + c) = min(a, b) + c for the terms c that all arguments share
    shared = set.intersection(*(set(terms_of(arg)) for arg in flat))
    offset = normal({m: c for m, c in shared if m})
    flat = sorted((arg - offset for arg in flat), key=_argument_key)
    # ... and for the constant of the first argument that is more than a constant
    constant = coefficient_of(next(arg for arg in flat if isinstance(arg, Expr)), ())
    flat = [arg - constant for arg in flat]
    # min(g*a, g*b) = g*min(a, b), g > 0
    factor = content(*flat)
    atom = Atom(kind, tuple(_shrink(arg, factor) for arg in flat))
    return offset + constant + factor * of_atom(atom)


def _flatten(kind: str, args: Iterable[int | Expr]) -> list[int | Expr]:
    """min(c*min(a, b) + d, e) = min(c*a + d, c*b + d, e), c > 0."""
    flat: list[int | Expr] = []
    for arg in args:
        inner = inner_extreme(kind, arg)
        if inner is None:
            flat.append(arg)
        else:
            flat.extend(_flatten(kind, (replace_atom(arg, inner, x) for x in inner.args)))
    return flat


def inner_extreme(kind: str, size: int | Expr) -> Atom | None:
    """A min or max that is a term of the size, with a positive factor, and occurs nowhere else."""
    for monomial, coefficient in terms_of(size):
        if coefficient > 0 and len(monomial) == 1 and monomial[0].kind == kind:
            uses = sum(monomial[0] in other for other, _ in terms_of(size))
            if uses == 1:
                return monomial[0]
    return None


def _undominated(kind: str, args: Iterable[int | Expr]) -> list[int | Expr]:
    """The arguments that no other one decides, whatever the sizes."""
    kept: list[int | Expr] = []
    for arg in args:
        gaps = [other - arg if kind == "max" else arg - other for other in kept]
        if not any(map(_never_negative, gaps)):
            kept = [other for other, gap in zip(kept, gaps) if not _never_negative(-gap)]
            kept.append(arg)
    return kept


def _argument_key(arg: int | Expr) -> tuple[bool, str]:
    """Constants first, then by the text without its constant."""
    return isinstance(arg, Expr), str(arg - coefficient_of(arg, ()))


def _never_negative(size: int | Expr) -> bool:
    """True if the signs alone show it: no negative coefficient, no atom that may be negative."""
    return all(c >= 0 and all(map(_atom_never_negative, m)) for m, c in terms_of(size))


def _atom_never_negative(atom: Atom) -> bool:
    some = any if atom.kind == "max" else all
    return atom.kind == "symbol" or some(map(_never_negative, atom.args))
