"""Simplification and proofs for index expressions, where every index variable has a range.

A `Scope` holds where an element exists: each index variable x lies in [0, extent), the extents
being sizes that may contain dims. Because the element exists, no extent is 0, so a dim that is a
factor of an extent is at least 1. With that,

    floordiv(x + n*y, n)            =  y                        0 <= x < n
    floordiv(g*a + r, g*n)          =  floordiv(a, n)           0 <= r < g
    x - n*floordiv(x, n)            lies in [0, n)

and the inverse of a reshape cancels by itself: ``n*floordiv(x, n) + (x - n*floordiv(x, n)) == x``
is how `Expr` adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

from tvmext.frontends.dims import Dim, Expr, at_least, floordiv, names_of, product, substitute
from tvmext.frontends.expr import Atom, Monomial, atoms, make, of_atom, rebuild, terms_of

Size = int | Expr
Bounds = tuple[Size | None, Size | None]
"""Smallest and largest value as sizes without index variables; None where no bound is known."""


class Scope:
    """The ranges of the index variables: 0 <= variable < extent."""

    def __init__(self, extents: Mapping[str, Size]) -> None:
        self.extents = dict(extents)
        dims = {name for extent in extents.values() for name in names_of(extent)}
        positive = {name for extent in extents.values() for name in _factors(extent)}
        self._ranges = {name: Dim(name, int(name in positive)) for name in dims}
        self._facts = [e - 1 for e in extents.values() if isinstance(e, Expr) and len(e.terms) > 1]
        self._simplified: dict[Size, Size] = {}
        self._bounds: dict[Size, Bounds] = {}

    def simplify(self, value: Size) -> Size:
        """An expression that is equal wherever the element exists, with fewer divisions."""
        if isinstance(value, int) or all(a.kind == "symbol" for a in atoms(value)):
            single = isinstance(value, int) or value.names.isdisjoint(self.extents)
            return value if single else self._without_unit_axes(value)
        if value not in self._simplified:
            slim = self._without_unit_axes(value)
            self._simplified[value] = rebuild(slim, self._simple_atom)
        return self._simplified[value]

    def proves(self, value: Size) -> bool:
        """Whether ``value >= 0`` wherever the element exists; False if that is not known."""
        if isinstance(value, int):
            return value >= 0
        low = self.bounds(value)[0]
        if low is None:
            return False
        return self._never_negative(low) or any(
            self._never_negative(low - fact) for fact in self._facts
        )

    def bounds(self, value: Size) -> Bounds:
        """Bounds of an expression over the index variables, in terms of the dims."""
        if value not in self._bounds:
            self._bounds[value] = self._found_bounds(value)
        return self._bounds[value]

    def _found_bounds(self, value: Size) -> Bounds:
        low: Size | None = 0
        high: Size | None = 0
        modulos, rest = self._split_modulos(value)
        for factor, largest in modulos:
            reach = factor * largest
            if not self._never_negative(factor):
                if not self._never_negative(-factor):
                    return None, None
                low, high = _plus(low, reach), high
            else:
                low, high = low, _plus(high, reach)
        for monomial, coefficient in terms_of(rest):
            smallest, largest_ = self._monomial_bounds(monomial)
            if coefficient < 0:
                smallest, largest_ = largest_, smallest
            low = _plus(low, _scaled(smallest, coefficient))
            high = _plus(high, _scaled(largest_, coefficient))
        return low, high

    def _without_unit_axes(self, value: Expr | int) -> Size:
        """A variable of extent 1 is 0."""
        units = {name: 0 for name in names_of(value) if self.extents.get(name) == 1}
        return substitute(value, units) if units else value

    def _simple_atom(self, atom: Atom) -> Size:
        if atom.kind == "symbol":
            return of_atom(atom)
        args = [self.simplify(arg) for arg in atom.args]
        if atom.kind == "floordiv":
            return self._quotient(args[0], args[1])
        sign = 1 if atom.kind == "max" else -1
        kept: list[Size] = []
        for k, arg in enumerate(args):
            rivals = kept + args[k + 1 :]
            if not any(self.proves(sign * (rival - arg)) for rival in rivals):
                kept.append(arg)
        return make(atom.kind, *kept)

    def _quotient(self, numerator: Size, divisor: Size) -> Size:
        """floor(numerator / divisor) by the equations of the module's docstring."""
        value = floordiv(numerator, divisor)
        whole = _lone_quotient(value)
        if whole is None:
            return rebuild(value, self._simple_atom) if _smaller(value, numerator) else value
        numerator, divisor = whole.args
        rest = value - of_atom(whole)
        if self.proves(numerator) and self.proves(divisor - 1 - numerator):
            return rest
        constant = self._constant_quotient(numerator, divisor)
        if constant is not None:
            return rest + constant
        for step in _common_factors(numerator, divisor):
            coarse, fine = _divide_terms(numerator, step)
            if fine != 0 and self.proves(fine) and self.proves(step - 1 - fine):
                return rest + self._quotient(coarse, floordiv(divisor, step))
        return value

    def _constant_quotient(self, numerator: Size, divisor: Size) -> Size | None:
        """The quotient if the numerator stays between two neighbouring multiples of the divisor."""
        low, high = self.bounds(numerator)
        if low is None or high is None:
            return None
        least, most = floordiv(low, divisor), floordiv(high, divisor)
        return least if least == most else None

    def _never_negative(self, value: Size) -> bool:
        """The same for an expression over the dims alone."""
        if isinstance(value, int):
            return value >= 0
        if never_negative(value):
            return True
        positive = {name: dim for name, dim in self._ranges.items() if dim.low}
        return _at_least_zero(value, frozenset(positive))

    def _monomial_bounds(self, monomial: Monomial) -> Bounds:
        if len(monomial) == 1:
            return self._atom_bounds(monomial[0])
        pairs = [self._atom_bounds(atom) for atom in monomial]
        if not all(low is not None and self._never_negative(low) for low, _ in pairs):
            return None, None
        low = product(low for low, _ in pairs if low is not None)
        highs = [high for _, high in pairs]
        return low, None if None in highs else product(h for h in highs if h is not None)

    def _atom_bounds(self, atom: Atom) -> Bounds:
        if atom.kind == "symbol":
            extent = self.extents.get(atom.text)
            return (of_atom(atom),) * 2 if extent is None else (0, extent - 1)
        if all(names_of(arg).isdisjoint(self.extents) for arg in atom.args):
            return of_atom(atom), of_atom(atom)
        pairs = [self.bounds(arg) for arg in atom.args]
        if atom.kind == "floordiv":
            (low, high), divisor = pairs[0], atom.args[1]
            if not names_of(divisor).isdisjoint(self.extents):
                return None, None
            return tuple(None if end is None else floordiv(end, divisor) for end in (low, high))  # type: ignore[return-value]
        lows, highs = ([pair[end] for pair in pairs] for end in (0, 1))
        return tuple(
            None if None in ends else make(atom.kind, *[end for end in ends if end is not None])
            for ends in (lows, highs)
        )  # type: ignore[return-value]

    def _split_modulos(self, value: Size) -> tuple[list[tuple[Size, Size]], Size]:
        """value = sum of factor * (something in [0, largest]) + rest, over the moduli it holds.

        ``p - n*floordiv(p, n)`` is a modulus; so is ``floordiv(a, m) - k*floordiv(a, k*m)``.
        """
        found: list[tuple[Size, Size]] = []
        for atom in sorted(atoms(value), key=lambda atom: -len(atom.text)):
            if atom.kind == "floordiv" and not names_of(of_atom(atom)).isdisjoint(self.extents):
                factor = _coefficient(value, atom)
                for base, modulus in _modulos_of(atom, atoms(value)):
                    share = floordiv(-factor, modulus)
                    if share == 0 or share * modulus != -factor:
                        continue
                    rest = value - share * (base - modulus * of_atom(atom))
                    if len(terms_of(rest)) < len(terms_of(value)):
                        found.append((share, modulus - 1))
                        value = rest
                        break
        return found, value


def never_negative(value: Size) -> bool:
    """Whether the signs alone show it, every symbol being at least 0."""
    return all(c >= 0 and all(map(_atom_never_negative, m)) for m, c in terms_of(value))


def _atom_never_negative(atom: Atom) -> bool:
    some = any if atom.kind == "max" else all
    return atom.kind == "symbol" or some(map(never_negative, atom.args))


def _plus(a: Size | None, b: Size | None) -> Size | None:
    return None if a is None or b is None else a + b


def _scaled(a: Size | None, factor: int) -> Size | None:
    return None if a is None else a * factor


def _factors(extent: Size) -> Iterable[str]:
    """The dims without which the extent would be 0: those of a single product."""
    if isinstance(extent, int) or len(extent.terms) != 1:
        return ()
    return [
        name
        for atom in extent.terms[0][0]
        for name in ([atom.text] if atom.kind == "symbol" else _factors_of_atom(atom))
    ]


def _factors_of_atom(atom: Atom) -> Iterable[str]:
    """floordiv(n, 4) > 0 and min(n, 4) > 0 both need n > 0."""
    if atom.kind == "floordiv" and isinstance(atom.args[1], int):
        return _factors(atom.args[0])
    if atom.kind == "min":
        return [name for arg in atom.args for name in _factors(arg)]
    return ()


@lru_cache(maxsize=65536)
def _at_least_zero(value: Expr, positive: frozenset[str]) -> bool:
    return at_least(value, 0, {name: Dim(name, 1) for name in positive}) is True


def _lone_quotient(value: Size) -> Atom | None:
    """The floordiv whose coefficient in `value` is 1, if it is the only one of its kind."""
    lone = [
        monomial[0]
        for monomial, coefficient in terms_of(value)
        if coefficient == 1 and len(monomial) == 1 and monomial[0].kind == "floordiv"
    ]
    return lone[0] if len(lone) == 1 else None


def _smaller(value: Size, than: Size) -> bool:
    return isinstance(value, Expr) and len(str(value)) < len(str(than))


def _coefficient(value: Size, atom: Atom) -> Size:
    """The polynomial that multiplies `atom` in `value` (which holds it to the first power)."""
    total: Size = 0
    for monomial, coefficient in terms_of(value):
        if atom in monomial:
            others = list(monomial)
            others.remove(atom)
            total = total + coefficient * product(map(of_atom, others))
    return total


def _modulos_of(atom: Atom, others: Iterable[Atom]) -> Iterable[tuple[Size, Size]]:
    """(base, modulus) with ``atom == floordiv(base, modulus)``."""
    numerator, divisor = atom.args
    yield numerator, divisor
    for other in others:
        if other.kind == "floordiv" and other is not atom and other.args[0] == numerator:
            modulus = floordiv(divisor, other.args[1])
            if modulus != 0 and modulus * other.args[1] == divisor:
                yield of_atom(other), modulus


def _common_factors(numerator: Size, divisor: Size) -> list[Size]:
    """Factors of the divisor that some term of the numerator has as well, largest first."""
    steps: dict[Size, None] = {}
    for monomial, coefficient in terms_of(numerator):
        gcd = math.gcd(coefficient, *(c for _, c in terms_of(divisor)))
        shared = [
            atom for atom in dict.fromkeys(monomial) if all(atom in m for m, _ in terms_of(divisor))
        ]
        steps[gcd * product(map(of_atom, shared))] = None
    content = math.gcd(*(c for _, c in terms_of(divisor)))
    if isinstance(divisor, Expr) and content > 1:
        steps[floordiv(divisor, content)] = None
    return sorted((s for s in steps if s not in (1, divisor)), key=lambda s: (-len(str(s)), str(s)))


def _divide_terms(value: Size, step: Size) -> tuple[Size, Size]:
    """(q, r) with value = step*q + r, dividing term by term.

    Where the step is a sum, by polynomial division: r is what is left inside its one quotient.
    """
    coarse: Size = 0
    if isinstance(step, Expr) and len(step.terms) > 1:
        coarse = floordiv(value, step)
        left = [a for a in atoms(coarse) if a.kind == "floordiv" and a.args[1] == step]
        for atom in left:
            coarse = coarse - _coefficient(coarse, atom) * of_atom(atom)
    else:
        for monomial, coefficient in terms_of(value):
            term = coefficient * product(map(of_atom, monomial))
            if isinstance(step, int):
                coarse = coarse + coefficient // step * product(map(of_atom, monomial))
            elif (share := floordiv(term, step)) * step == term:
                coarse = coarse + share
    return coarse, value - step * coarse
