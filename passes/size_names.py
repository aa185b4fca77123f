"""Names for the sizes of one kernel, such that relations between them are kept.

    (h + 3)//4,  (h + 3)//4*w,  (h - 1)//8 + 1      become      n,  n*w,  (n + 1)//2

A size is an expression over earlier ones where it can be, and else takes a name of its own. What
schedules ask of sizes (equality, factors, a window inside its picture) holds as it did before.
"""

from __future__ import annotations

from collections.abc import Iterable

from tvmext.frontends.dims import Expr, floordiv, names_of, product, symbol
from tvmext.frontends.expr import Atom, Monomial, as_atom, as_symbol, make, of_atom, terms_of

Size = int | Expr


class SizeNames:
    """The names given to sizes: `names` has what each one stands for.

    They are numbered by the places of their sizes, so that like kernels have like names.
    """

    def __init__(self, sizes: Iterable[Size]) -> None:
        places = {size: place for place, size in enumerate(dict.fromkeys(sizes))}
        self.names: dict[str, Expr] = {}
        self._named: dict[Expr, Expr] = {}
        for size in sorted(places, key=_complexity):
            if self.express(size) is None:
                assert isinstance(size, Expr)
                self._named[size] = symbol(f"n{places[size]}")
                self.names[f"n{places[size]}"] = size

    @staticmethod
    def of(shapes: Iterable[Size], others: Iterable[Size]) -> SizeNames:
        """Names for the sizes in `shapes` such that `others` are expressions over them.

        Only what is in a shape may take a name, because only that is known not to be negative.
        """
        shapes = list(shapes)
        names = SizeNames(shapes)
        lacking = [size for size in others if names.express(size) is None]
        dims = [symbol(name) for size in lacking for name in sorted(names_of(size))]
        return SizeNames([*shapes, *dims]) if dims else names

    def express(self, size: Size) -> Size | None:
        """The size in terms of names, None if it is not an expression over them."""
        if isinstance(size, int):
            return size
        for known, name in self._named.items():
            gap = size - known
            if isinstance(gap, int):
                return name + gap
        total: Size = 0
        for monomial, coefficient in terms_of(size):
            term = self._term(monomial, coefficient)
            if term is None:
                return None
            total = total + term
        return total

    def _term(self, monomial: Monomial, coefficient: int) -> Size | None:
        """A product: what is named as a whole first, then its factors."""
        for known, name in self._named.items():
            ((own, times), *more) = terms_of(known)
            rest = None if more or coefficient % times else _without(monomial, own)
            if rest is not None and (len(own) > 1 or times > 1):
                other = self._term(rest, coefficient // times)
                return None if other is None else name * other
        factors = [factor for factor in map(self._atom, monomial) if factor is not None]
        return coefficient * product(factors) if len(factors) == len(monomial) else None

    def _atom(self, atom: Atom) -> Size | None:
        if of_atom(atom) in self._named:
            return self._named[of_atom(atom)]
        if atom.kind == "symbol":
            return None
        if atom.kind == "floordiv":
            found = self._coarser(atom)
            if found is not None:
                return found
        args = [arg for arg in map(self.express, atom.args) if arg is not None]
        return make(atom.kind, *args) if len(args) == len(atom.args) else None

    def _coarser(self, atom: Atom) -> Size | None:
        """floordiv(a + c*m, k*m) as floordiv(n + c, k), n being the name of floordiv(a, m)."""
        base, divisor = atom.args
        for known, name in self._named.items():
            other = as_atom(known)
            if other is None or other.kind != "floordiv":
                continue
            finer = other.args[1]
            gap = base - other.args[0]
            if not isinstance(divisor, int) or not isinstance(finer, int):
                continue
            if isinstance(gap, int) and divisor % finer == 0 and gap % finer == 0:
                return floordiv(name + gap // finer, divisor // finer)
        return None


def _without(monomial: Monomial, part: Monomial) -> Monomial | None:
    """The factors of a product that are not in `part`; None if it lacks one of those."""
    rest = list(monomial)
    for atom in part:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _complexity(size: Size) -> tuple[bool, int]:
    return as_symbol(size) is None, len(str(size))
