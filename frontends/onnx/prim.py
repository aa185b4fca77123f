"""`Expr` -> TVM: dims as primitive int64 expressions over one `tirx.Var` per symbol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tvm import relax, tirx

from ..dims import Expr
from ..expr import Atom


class Prims:
    """Translates dims for one function; a symbol is always the same variable."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = {name: tirx.Var(name, "int64") for name in symbols}
        self._cache: dict[Expr, tirx.PrimExpr] = {}

    def prim(self, dim: int | Expr) -> tirx.PrimExpr:
        """The dim as an int64 expression."""
        if not isinstance(dim, Expr):
            return tirx.IntImm("int64", int(dim))
        if dim not in self._cache:
            self._cache[dim] = self._translate(dim)
        return self._cache[dim]

    def shape(self, dims: Sequence[int | Expr]) -> relax.ShapeExpr:
        return relax.ShapeExpr([self.prim(dim) for dim in dims])

    def _translate(self, expr: Expr) -> tirx.PrimExpr:
        """Positive terms first, so that differences read `a - b`."""
        total = None
        for monomial, coefficient in sorted(expr.terms, key=lambda term: term[1] < 0):
            product = None
            for atom in monomial:
                factor = self._atom(atom)
                product = factor if product is None else product * factor
            size = abs(coefficient) if total is not None else coefficient
            if product is None:
                term = tirx.IntImm("int64", size)
            else:
                term = product if size == 1 else product * tirx.IntImm("int64", size)
            if total is None:
                total = term
            else:
                total = total - term if coefficient < 0 else total + term
        return total

    def _atom(self, atom: Atom) -> tirx.PrimExpr:
        match atom.kind:
            case "symbol":
                return self.symbols[atom.text]
            case "floordiv":
                combine = tirx.floordiv
            case "min":
                combine = tirx.min
            case _:
                combine = tirx.max
        first, *rest = [self.prim(arg) for arg in atom.args]
        for arg in rest:
            first = combine(first, arg)
        return first
