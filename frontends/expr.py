"""Exact integer expressions over named sizes: the algebra behind symbolic dims.

Normal form. An `Expr` is a polynomial with integer coefficients: a sorted tuple of
``(monomial, coefficient)`` pairs, a monomial being a sorted tuple of atoms (repeated for a power).
An atom is one of

    symbol          a size, hence an integer >= 0
    floordiv(a, n)  n a positive int: every coefficient of `a` lies in [0, n), their greatest common
                    divisor with n is 1, and no term of `a` is a floordiv with coefficient 1
    floordiv(a, b)  b an Expr that does not divide `a`, no monomial or integer factor in common
    min(...)        at least two arguments, none provably dominated, no common term or factor, and
    max(...)        no constant in the first argument that is not itself a constant

A constant is a plain `int`, so a dim is ``int | Expr``. ``a % b`` has no atom of its own: it is
``a - b*(a//b)``, so that ``4*(h//4) == h`` and ``h % 4 == 0`` are one equation. Equality, hash and
``str`` follow the normal form and ``parse(str(e)) == e``; two expressions that are equal for every
size are the same object value except for identities between nested min, max and floordiv that the
rules above do not reach (`bounds` of the difference often still decides those).

Division rounds down, as in Python. ``a // b`` with a symbolic divisor means what it means for
every ``b != 0``; where b is 0, so is the network's reshape undefined.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, reduce

from tvmext.errors import DimError

Monomial = tuple["Atom", ...]


class Atom:
    """A symbol, floordiv, min or max; identified by its normalised text."""

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

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        """Takes terms in normal form; `symbol`, `parse` and arithmetic build expressions."""
        self.terms = terms
        self._hash = hash(terms)

    @property
    def names(self) -> frozenset[str]:
        """The symbols it depends on."""
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
        return rebuild(self, lambda atom: _replace_atom(atom, values))

    def __add__(self, other: int | Expr) -> int | Expr:
        return _sum([(self, 1), (other, 1)])

    def __sub__(self, other: int | Expr) -> int | Expr:
        return _sum([(self, 1), (other, -1)])

    def __rsub__(self, other: int) -> int | Expr:
        return _sum([(other, 1), (self, -1)])

    def __neg__(self) -> int | Expr:
        return _sum([(self, -1)])

    def __mul__(self, other: int | Expr) -> int | Expr:
        if isinstance(other, int):
            return _sum([(self, other)])
        product: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in other.terms:
                monomial = _times(left, right)
                product[monomial] = product.get(monomial, 0) + a * b
        return _normal(product)

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: int | Expr) -> int | Expr:
        return floordiv(self, other)

    def __rfloordiv__(self, other: int) -> int | Expr:
        return floordiv(other, self)

    def __mod__(self, other: int | Expr) -> int | Expr:
        return self - other * floordiv(self, other)

    def __rmod__(self, other: int) -> int | Expr:
        return other - self * floordiv(other, self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self._hash == other._hash and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            factors = [] if abs(coefficient) == 1 and monomial else [str(abs(coefficient))]
            factors += [atom.text for atom in monomial]
            sign = ("-" if coefficient < 0 else "+") if text else ("-" if coefficient < 0 else "")
            text += f" {sign} " if text else sign
            text += "*".join(factors)
        return text

    __repr__ = __str__


def symbol(name: str) -> Expr:
    """The size called `name`, a Python identifier."""
    if not name.isidentifier():
        raise DimError(f"'{name}' cannot name a dim", hint="letters, digits and underscores")
    return of_atom(Atom("symbol", (), name))


def floordiv(a: int | Expr, b: int | Expr) -> int | Expr:
    """The quotient rounded down. Raises DimError if b is the constant 0."""
    if isinstance(b, int):
        if b == 0:
            raise DimError(f"'{a}' is divided by zero")
        return _div_const(a, b) if b > 0 else _div_const(-a, -b)
    return _div_expr(a, b)


def ceildiv(a: int | Expr, b: int | Expr) -> int | Expr:
    """The quotient rounded up."""
    return -floordiv(-a, b)


def minimum(*args: int | Expr) -> int | Expr:
    """The smallest of the arguments."""
    return _extreme("min", args)


def maximum(*args: int | Expr) -> int | Expr:
    """The largest of the arguments."""
    return _extreme("max", args)


def product(sizes: Iterable[int | Expr]) -> int | Expr:
    """The product of sizes, 1 if there are none."""
    result: int | Expr = 1
    for size in sizes:
        result = result * size
    return result


def names_of(size: int | Expr) -> frozenset[str]:
    """The symbols of a size; none for an int."""
    return size.names if isinstance(size, Expr) else frozenset()


def evaluate(size: int | Expr, values: Mapping[str, int]) -> int:
    """The value of a size that may be an int already."""
    return size.evaluate(values) if isinstance(size, Expr) else size


def substitute(size: int | Expr, values: Mapping[str, int | Expr]) -> int | Expr:
    """`Expr.substitute` for a size that may be an int already."""
    return size.substitute(values) if isinstance(size, Expr) else size


def atoms(size: int | Expr) -> set[Atom]:
    """The atoms of the polynomial itself, not those inside its atoms."""
    return {atom for monomial, _ in terms_of(size) for atom in monomial}


def as_symbol(size: int | Expr) -> str | None:
    """The name, if the size is a bare symbol."""
    if isinstance(size, Expr) and len(size.terms) == 1:
        monomial, coefficient = size.terms[0]
        if coefficient == 1 and len(monomial) == 1 and monomial[0].kind == "symbol":
            return monomial[0].text
    return None


def terms_of(size: int | Expr) -> tuple[tuple[Monomial, int], ...]:
    """The terms of a size, a constant being a multiple of the empty monomial."""
    if isinstance(size, Expr):
        return size.terms
    return (((), size),) if size else ()


def rebuild(expr: Expr, replace: Callable[[Atom], int | Expr]) -> int | Expr:
    """The polynomial with every atom replaced."""
    known = {atom: replace(atom) for atom in atoms(expr)}
    return _sum(
        (product(known[atom] for atom in monomial), coefficient)
        for monomial, coefficient in expr.terms
    )


def from_atom(kind: str, args: Iterable[int | Expr]) -> int | Expr:
    """floordiv, min or max of `args`, normalised."""
    return floordiv(*args) if kind == "floordiv" else _extreme(kind, tuple(args))


# ---- the normal form of sums and products ----


def of_atom(atom: Atom) -> Expr:
    """The atom as an expression."""
    return Expr((((atom,), 1),))


def _times(left: Monomial, right: Monomial) -> Monomial:
    return tuple(sorted(left + right, key=_atom_key)) if left and right else left or right


def _atom_key(atom: Atom) -> tuple[bool, str]:
    return atom.kind != "symbol", atom.text


def _term_key(term: tuple[Monomial, int]) -> tuple[bool, list[tuple[bool, str]]]:
    return not term[0], [_atom_key(atom) for atom in term[0]]


def _normal(terms: Mapping[Monomial, int]) -> int | Expr:
    """Terms sorted, zeros dropped, the constant last; an int if nothing else is left."""
    kept = {m: c for m, c in terms.items() if c}
    if not kept.keys() - {()}:
        return kept.get((), 0)
    return Expr(tuple(sorted(kept.items(), key=_term_key)))


def _sum(parts: Iterable[tuple[int | Expr, int]]) -> int | Expr:
    """The sum of size * factor over the pairs."""
    total: dict[Monomial, int] = {}
    for size, factor in parts:
        for monomial, coefficient in terms_of(size):
            total[monomial] = total.get(monomial, 0) + coefficient * factor
    return _normal(total)


def _constant(size: int | Expr) -> int:
    return dict(terms_of(size)).get((), 0)


def _content(*sizes: int | Expr) -> int:
    """Greatest common divisor of all coefficients."""
    return math.gcd(*(c for size in sizes for _, c in terms_of(size)))


def _shrink(size: int | Expr, divisor: int) -> int | Expr:
    """The size divided by an integer that divides all its coefficients."""
    return _normal({m: c // divisor for m, c in terms_of(size)})


def _replace_atom(atom: Atom, values: Mapping[str, int | Expr]) -> int | Expr:
    if atom.kind == "symbol":
        return values.get(atom.text, of_atom(atom))
    return from_atom(atom.kind, [substitute(arg, values) for arg in atom.args])


# ---- floordiv ----


@lru_cache(maxsize=65536)
def _div_const(a: int | Expr, n: int) -> int | Expr:
    """floor(a / n), n > 0."""
    # floor((n*q + r) / n) = q + floor(r / n), coefficient by coefficient
    quotient = _normal({m: c // n for m, c in terms_of(a)})
    rest = _normal({m: c % n for m, c in terms_of(a)})
    if isinstance(rest, int):
        return quotient
    # floor((g*b + c) / (g*n)) = floor((b + floor(c / g)) / n)
    common = math.gcd(n, *(c for m, c in rest.terms if m))
    if common > 1:
        shrunk = _normal({m: c // common for m, c in rest.terms})
        return quotient + _div_const(shrunk, n // common)
    # floor((floor(b / m) + r) / n) = floor((b + m*r) / (m*n))
    for monomial, coefficient in rest.terms:
        if coefficient == 1 and len(monomial) == 1 and monomial[0].kind == "floordiv":
            inner, divisor = monomial[0].args
            if isinstance(divisor, int):
                others = rest - of_atom(monomial[0])
                return quotient + _div_const(inner + divisor * others, divisor * n)
    return quotient + of_atom(Atom("floordiv", (rest, n)))


@lru_cache(maxsize=65536)
def _div_expr(a: int | Expr, b: Expr) -> int | Expr:
    """floor(a / b), b not constant."""
    # the part that b divides exactly moves out: floor((b*q + r) / b) = q + floor(r / b)
    quotient, rest = _divide(a, b)
    if rest == 0:
        return quotient
    # floor((c*r) / (c*b)) = floor(r / b) for an integer or a monomial c
    shared = _shared_monomial([rest, b])
    over, under = _strip(rest, shared), _strip(b, shared)
    content = math.copysign(_content(over, under), terms_of(under)[0][1])
    over, under = _shrink(over, int(content)), _shrink(under, int(content))
    if isinstance(under, int):
        return quotient + floordiv(over, under)
    if shared or content != 1:
        return quotient + _div_expr(over, under)
    return quotient + of_atom(Atom("floordiv", (over, under)))


def _divide(a: int | Expr, b: Expr) -> tuple[int | Expr, int | Expr]:
    """Polynomial division by the leading term of b: a = b*quotient + rest."""
    lead, factor = max(b.terms, key=lambda term: _lead_key(term[0]))
    quotient: int | Expr = 0
    rest = a
    # a term may come back only through a smaller one, so each is looked at in descending order
    for _ in range(64):
        for monomial, coefficient in sorted(
            terms_of(rest), key=lambda term: _lead_key(term[0]), reverse=True
        ):
            left = _without(monomial, lead)
            if left is not None and coefficient % factor == 0:
                step = _normal({left: coefficient // factor})
                quotient, rest = quotient + step, rest - step * b
                break
        else:
            return quotient, rest
    return 0, a


def _lead_key(monomial: Monomial) -> tuple[int, list[tuple[bool, str]]]:
    return len(monomial), [_atom_key(atom) for atom in monomial]


def _without(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    """monomial / divisor, None if it is not one."""
    left = list(monomial)
    for atom in divisor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _shared_monomial(sizes: Iterable[int | Expr]) -> Monomial:
    """The largest monomial that divides every term of every size."""
    powers = [Counter(monomial) for size in sizes for monomial, _ in terms_of(size)]
    shared = reduce(operator.and_, powers)
    return tuple(sorted(shared.elements(), key=_atom_key))


def _strip(size: int | Expr, monomial: Monomial) -> int | Expr:
    return _normal({_without(m, monomial) or (): c for m, c in terms_of(size)})


# ---- min and max ----


def _extreme(kind: str, args: tuple[int | Expr, ...]) -> int | Expr:
    """min or max of `args` in normal form."""
    flat = _undominated(kind, _flatten(kind, args))
    if len(flat) == 1:
        return flat[0]
    # min(a + c, b + c) = min(a, b) + c for the terms c that all arguments share
    shared = set.intersection(*(set(terms_of(arg)) for arg in flat))
    offset = _normal({m: c for m, c in shared if m})
    flat = sorted((arg - offset for arg in flat), key=_argument_key)
    # ... and for the constant of the first argument that is more than a constant
    first = next(arg for arg in flat if isinstance(arg, Expr))
    constant = _constant(first)
    flat = [arg - constant for arg in flat]
    # min(g*a, g*b) = g*min(a, b), g > 0
    factor = _content(*flat)
    flat = [_shrink(arg, factor) for arg in flat]
    return offset + constant + factor * of_atom(Atom(kind, tuple(flat)))


def _flatten(kind: str, args: Iterable[int | Expr]) -> list[int | Expr]:
    """min(min(a, b), c) = min(a, b, c), each argument once."""
    flat: dict[int | Expr, None] = {}
    for arg in args:
        inner = terms_of(arg)[0] if isinstance(arg, Expr) and len(arg.terms) == 1 else None
        if inner and inner[1] == 1 and len(inner[0]) == 1 and inner[0][0].kind == kind:
            flat |= dict.fromkeys(inner[0][0].args)
        else:
            flat[arg] = None
    return list(flat)


def _undominated(kind: str, args: list[int | Expr]) -> list[int | Expr]:
    """The arguments that are not decided by another one, whatever the sizes."""
    kept: list[int | Expr] = []
    for arg in args:
        gaps = [(other - arg) if kind == "max" else (arg - other) for other in kept]
        if any(never_negative(gap) for gap in gaps):
            continue
        kept = [other for other, gap in zip(kept, gaps) if not never_negative(-gap)]
        kept.append(arg)
    return kept


def _argument_key(arg: int | Expr) -> tuple[bool, str]:
    """Constants first, then by the text without its constant."""
    return isinstance(arg, Expr), str(arg - _constant(arg))


def never_negative(size: int | Expr) -> bool:
    """True if the signs alone show it: no negative coefficient, no atom that may be negative."""
    return all(c >= 0 and all(map(_atom_never_negative, m)) for m, c in terms_of(size))


def _atom_never_negative(atom: Atom) -> bool:
    some = any if atom.kind == "max" else all
    return atom.kind == "symbol" or some(map(never_negative, atom.args))
