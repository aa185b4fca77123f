"""Exact integer expressions over named sizes: the algebra behind symbolic dims.

Normal form. An `Expr` is a polynomial with integer coefficients: a sorted tuple of
``(monomial, coefficient)`` pairs, a monomial being a sorted tuple of atoms (repeated for a power).
An atom is one of

    symbol          a size, hence an integer >= 0
    floordiv(a, n)  n a positive int: every coefficient of `a` lies in [0, n), their greatest common
                    divisor with n is 1, no term of `a` is a floordiv with coefficient 1, and of
                    floordiv(a, n) = -floordiv(n - 1 - a, n) it is the one of smaller coefficients
    floordiv(a, b)  b an Expr that divides no part of `a`; no monomial or integer factor in common
    min(...)        at least two arguments, none that the signs of its terms show to be superfluous,
    max(...)        no common term or factor, no term of the same kind in an argument, and no
                    constant in the first argument that is not itself a constant

A constant is a plain `int`, so a dim is ``int | Expr``. ``a % b`` has no atom of its own: it is
``a - b*(a//b)``, so that ``4*(h//4) == h`` and ``h % 4 == 0`` are one equation. Equality, hash and
``str`` follow the normal form, and ``parse(str(e)) == e``. Equal expressions are equal objects,
except for identities between nested min, max and floordiv that the rules above do not reach; the
`bounds` of their difference often decide those.

Division rounds down, as in Python. ``a // b`` with a symbolic divisor means what it means for
every ``b != 0``; where b is 0, so is the network's reshape undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from keyword import iskeyword

from tvmext.errors import DimError

Monomial = tuple["Atom", ...]


class Atom:
    """A symbol, floordiv, min or max; identified by its text, which is normalised."""

    __slots__ = ("args", "kind", "text")

    def __init__(self, kind: str, args: tuple[int | Expr, ...], name: str = "") -> None:
        self.kind = kind  # "symbol", "floordiv", "min" or "max"
        self.args = args
        self.text = name or f"{kind}({', '.join(map(str, args))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Atom) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return self.text


class Expr:
    """An integer expression that is not constant, in normal form. Immutable and hashable."""

    __slots__ = ("_hash", "_names", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        """Takes terms in normal form; `symbol`, `parse` and arithmetic build expressions."""
        self.terms = terms
        self._hash = hash(terms)
        self._names: frozenset[str] | None = None

    @property
    def names(self) -> frozenset[str]:
        """The symbols it depends on."""
        if self._names is None:
            self._names = self._symbols()
        return self._names

    def _symbols(self) -> frozenset[str]:
        found: set[str] = set()
        for atom in atoms(self):
            if atom.kind == "symbol":
                found.add(atom.text)
            for arg in atom.args:
                found |= names_of(arg)
        return frozenset(found)

    def evaluate(self, values: Mapping[str, int]) -> int:
        """The value for these sizes. Raises DimError for a missing size or a division by zero."""
        value = self.substitute(values)
        if isinstance(value, Expr):
            missing = ", ".join(sorted(value.names))
            raise DimError(f"'{self}' needs the size of {missing}")
        return value

    def substitute(self, values: Mapping[str, int | Expr]) -> int | Expr:
        """The expression with symbols replaced, in normal form."""
        if self.names.isdisjoint(values):
            return self
        return rebuild(self, lambda atom: _replace_symbols(atom, values))

    def __add__(self, other: int | Expr) -> int | Expr:
        return _sum([(self, 1), (other, 1)]) if other else self

    def __sub__(self, other: int | Expr) -> int | Expr:
        return _sum([(self, 1), (other, -1)]) if other else self

    def __rsub__(self, other: int) -> int | Expr:
        return _sum([(other, 1), (self, -1)])

    def __neg__(self) -> int | Expr:
        return _sum([(self, -1)])

    def __mul__(self, other: int | Expr) -> int | Expr:
        if isinstance(other, int):
            return _sum([(self, other)])
        terms: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in other.terms:
                monomial = tuple(sorted(left + right, key=atom_key))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return normal(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: int | Expr) -> int | Expr:
        return make("floordiv", self, other)

    def __rfloordiv__(self, other: int) -> int | Expr:
        return make("floordiv", other, self)

    def __mod__(self, other: int | Expr) -> int | Expr:
        return self - other * (self // other)

    def __rmod__(self, other: int) -> int | Expr:
        return other - self * (other // self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self._hash == other._hash and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            factors = [] if abs(coefficient) == 1 and monomial else [str(abs(coefficient))]
            factors += [atom.text for atom in monomial]
            sign = "-" if coefficient < 0 else "+" if text else ""
            text += f" {sign} " if text else sign
            text += "*".join(factors)
        return text

    __repr__ = __str__


# ---- building ----


def symbol(name: str) -> Expr:
    """The size called `name`, a Python identifier."""
    if not name.isidentifier() or iskeyword(name):
        raise DimError(f"'{name}' cannot name a dim", hint="letters, digits and underscores")
    return of_atom(Atom("symbol", (), name))


def product(sizes: Iterable[int | Expr]) -> int | Expr:
    """The product of sizes, 1 if there are none."""
    result: int | Expr = 1
    for size in sizes:
        result = result * size
    return result


def make(kind: str, *args: int | Expr) -> int | Expr:
    """floordiv, min or max of the arguments, in normal form."""
    from .expr_atoms import CONSTRUCTORS  # which are written in terms of this module

    return CONSTRUCTORS[kind](*args)


def of_atom(atom: Atom) -> Expr:
    """The atom as an expression."""
    return Expr((((atom,), 1),))


def normal(terms: Mapping[Monomial, int]) -> int | Expr:
    """A sum of terms: sorted, zeros dropped, the constant last; an int if nothing else is left."""
    kept = [term for term in terms.items() if term[1]]
    if len(kept) > 1:
        kept.sort(key=_term_key)
    elif not kept or not kept[0][0]:
        return kept[0][1] if kept else 0
    return Expr(tuple(kept))


def rebuild(size: int | Expr, replace: Callable[[Atom], int | Expr]) -> int | Expr:
    """The polynomial with every atom replaced."""
    known = {atom: replace(atom) for atom in atoms(size)}
    return _sum(
        (product(known[atom] for atom in monomial), coefficient)
        for monomial, coefficient in terms_of(size)
    )


def replace_atom(size: int | Expr, atom: Atom, value: int | Expr) -> int | Expr:
    """The polynomial with one of its atoms replaced."""
    return rebuild(size, lambda other: value if other == atom else of_atom(other))


def substitute(size: int | Expr, values: Mapping[str, int | Expr]) -> int | Expr:
    """`Expr.substitute` for a size that may be an int."""
    return size.substitute(values) if isinstance(size, Expr) else size


# ---- looking inside ----


def evaluate(size: int | Expr, values: Mapping[str, int]) -> int:
    """`Expr.evaluate` for a size that may be an int."""
    return size.evaluate(values) if isinstance(size, Expr) else size


def names_of(size: int | Expr) -> frozenset[str]:
    """The symbols of a size; none for an int."""
    return size.names if isinstance(size, Expr) else frozenset()


def terms_of(size: int | Expr) -> tuple[tuple[Monomial, int], ...]:
    """The terms of a size, a constant being a multiple of the empty monomial."""
    if isinstance(size, Expr):
        return size.terms
    return (((), size),) if size else ()


def atoms(size: int | Expr) -> set[Atom]:
    """The atoms of the polynomial itself, not those inside its atoms."""
    return {atom for monomial, _ in terms_of(size) for atom in monomial}


def as_atom(size: int | Expr) -> Atom | None:
    """The atom, if the size is nothing else."""
    if isinstance(size, Expr) and len(size.terms) == 1:
        monomial, coefficient = size.terms[0]
        if coefficient == 1 and len(monomial) == 1:
            return monomial[0]
    return None


def as_symbol(size: int | Expr) -> str | None:
    """The name, if the size is a bare symbol."""
    atom = as_atom(size)
    return atom.text if atom is not None and atom.kind == "symbol" else None


def coefficient_of(size: int | Expr, monomial: Monomial) -> int:
    """The coefficient of one monomial, of the empty one for the constant."""
    return dict(terms_of(size)).get(monomial, 0)


def content(*sizes: int | Expr) -> int:
    """Greatest common divisor of all coefficients, 0 if there are none."""
    return math.gcd(*(c for size in sizes for _, c in terms_of(size)))


def atom_key(atom: Atom) -> tuple[bool, str]:
    """Orders symbols before other atoms, then by text."""
    return atom.kind != "symbol", atom.text


def _term_key(term: tuple[Monomial, int]) -> tuple[bool, list[tuple[bool, str]]]:
    return not term[0], [atom_key(atom) for atom in term[0]]


def _sum(parts: Iterable[tuple[int | Expr, int]]) -> int | Expr:
    """The sum of size * factor over the pairs."""
    total: dict[Monomial, int] = {}
    for size, factor in parts:
        for monomial, coefficient in terms_of(size):
            total[monomial] = total.get(monomial, 0) + coefficient * factor
    return normal(total)


def _replace_symbols(atom: Atom, values: Mapping[str, int | Expr]) -> int | Expr:
    if atom.kind == "symbol":
        return values.get(atom.text, of_atom(atom))
    return make(atom.kind, *(substitute(arg, values) for arg in atom.args))
