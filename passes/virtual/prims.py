"""TVM's primitive expressions <-> the index algebra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tvm import ir, tirx

from tvmext.frontends.dims import Expr, floordiv, maximum, minimum, symbol
from tvmext.frontends.expr import Atom, atoms, of_atom, terms_of

from .scope import Size


class UnmappedError(Exception):
    """An operator or expression is not a map of indices that this package knows; says why."""


class Prims:
    """One function's symbolic variables and the symbols that stand for them.

    Symbols have the variables' names, made unique; names that begin with "_" are the algebra's own.
    `known` variables stand for given expressions instead.
    """

    def __init__(self, known: Mapping[ir.Var, Size] | None = None) -> None:
        self._known = dict(known or {})
        self._symbols: dict[ir.Var, Expr] = {}
        self._variables: dict[str, ir.Var] = {}

    def size(self, prim: Any) -> Size:
        """The integer expression in the algebra.

        Raises UnmappedError for what it has no word for: conditions, loads, truncating division.
        """
        if isinstance(prim, int):
            return prim
        if isinstance(prim, tirx.IntImm):
            return int(prim.value)
        if isinstance(prim, ir.Var):
            return self._known[prim] if prim in self._known else self._symbol(prim)
        if isinstance(prim, tirx.Cast):
            return self.size(prim.value)
        combine = _COMBINE.get(type(prim))
        if combine is None:
            raise UnmappedError(f"the expression {prim} is not one of the index algebra")
        return combine(self.size(prim.a), self.size(prim.b))

    def shape(self, ty: Any) -> tuple[Size, ...]:
        """The sizes of a tensor type. Raises UnmappedError if they are not known."""
        shape = getattr(ty, "shape", None)
        if shape is None:
            raise UnmappedError("the shape is not known")
        values = shape.values if hasattr(shape, "values") else shape
        return tuple(self.size(size) for size in values)

    def prim_shape(self, shape: Iterable[Size]) -> list[Any]:
        """Sizes as primitive expressions over the function's own variables."""
        return [to_prim(size, self._variables) for size in shape]

    def variables(self, names: Iterable[str]) -> list[ir.Var]:
        """The variables behind symbols."""
        return [self._variables[name] for name in names]

    def _symbol(self, var: ir.Var) -> Expr:
        if var not in self._symbols:
            name = "".join(c if c.isalnum() else "_" for c in var.name).lstrip("_") or "dim"
            name = name if name.isidentifier() else f"dim{name}"
            while name in self._variables:
                name += "_"
            self._symbols[var] = symbol(name)
            self._variables[name] = var
        return self._symbols[var]


_COMBINE: dict[type, Callable[[Size, Size], Size]] = {
    tirx.Add: lambda a, b: a + b,
    tirx.Sub: lambda a, b: a - b,
    tirx.Mul: lambda a, b: a * b,
    tirx.FloorDiv: floordiv,
    tirx.FloorMod: lambda a, b: a - b * floordiv(a, b),
    tirx.Min: minimum,
    tirx.Max: maximum,
}


def to_prim(size: Size, values: Mapping[str, Any]) -> Any:
    """The expression in TVM's terms, int64, with `values` in place of symbols.

    ``n*floordiv(a, n)`` is written as a modulus where that is what it is part of.
    """
    if isinstance(size, int):
        return tirx.IntImm("int64", size)
    moduli, rest = _moduli(size)
    terms: list[tuple[int, Any]] = []
    for coefficient, base, modulus in moduli:
        terms.append((coefficient, tirx.floormod(to_prim(base, values), to_prim(modulus, values))))
    for monomial, coefficient in terms_of(rest):
        terms.append((coefficient, _product(monomial, values)))
    terms.sort(key=lambda term: term[0] < 0)  # so that a difference reads a - b
    total = None
    for coefficient, term in terms:
        factor = abs(coefficient)
        scaled = term if factor == 1 else term * tirx.IntImm("int64", factor)
        if total is None:
            total = scaled if coefficient > 0 else tirx.IntImm("int64", 0) - scaled
        else:
            total = total + scaled if coefficient > 0 else total - scaled
    return total


def _product(monomial: tuple[Atom, ...], values: Mapping[str, Any]) -> Any:
    product = None
    for atom in monomial:
        factor = _atom(atom, values)
        product = factor if product is None else product * factor
    return tirx.IntImm("int64", 1) if product is None else product


def _atom(atom: Atom, values: Mapping[str, Any]) -> Any:
    if atom.kind == "symbol":
        return values[atom.text]
    combine = {"floordiv": tirx.floordiv, "min": tirx.min, "max": tirx.max}[atom.kind]
    first, *rest = [to_prim(arg, values) for arg in atom.args]
    for arg in rest:
        first = combine(first, arg)
    return first


def _moduli(size: Expr) -> tuple[list[tuple[int, Size, Size]], Size]:
    """(c, a, n) of the terms ``c*(a % n)`` in a sum, and the rest of it."""
    found: list[tuple[int, Size, Size]] = []
    rest: Size = size
    for atom in sorted(atoms(size), key=lambda atom: -len(atom.text)):
        if atom.kind != "floordiv":
            continue
        base, modulus = atom.args
        for coefficient in {abs(c) for _, c in terms_of(rest)}:
            for sign in (1, -1):
                scale = sign * coefficient
                less = rest - scale * (base - modulus * of_atom(atom))
                if len(terms_of(less)) < len(terms_of(rest)) and atom not in atoms(less):
                    found.append((scale, base, modulus))
                    rest = less
    return found, rest
