"""Vectors of `rhs` that a product loads from where they are, where rows are too few for packing.

line[0 .. width] = rhs(k, col ..)         the last vectors under a mask, if columns may be missing
acc[i, j] += lhs(row + i, k) * line[j]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from ..kernel.analysis import replace_loads, substitute
from ..kernel.contraction import Contraction
from ..kernel.emit import Values, allocate, block, index
from . import masks
from .panel import Panel
from .tile import Kernel, Shape, Sums


def in_line(
    total: Contraction, shape: Shape, panel: Panel, k: Values
) -> tuple[Callable[[Expr], Expr], tirx.Stmt]:
    """One step of a panel in a buffer: how column `j` of it is read, and what fills it."""
    load, lanes = total.rhs.load, shape.lanes
    assert load is not None
    point = {**panel.at, **k}
    line = allocate([shape.cols], str(load.source.dtype), "line")

    def vector(first: int) -> tirx.Stmt:
        element = substitute(load, {**point, **panel.cols(index(first))})
        count = lanes if first + lanes <= panel.sure else panel.valid - first
        value = masks.load(element, masks.first(index(count), lanes), lanes)
        return tirx.BufferStore(line, value, [tirx.Ramp(index(first), index(1), lanes)])

    def read(j: Expr) -> Expr:
        value = replace_loads(total.rhs.value, load.source, lambda _at: line[j])
        return substitute(value, {**point, **panel.cols(j)})

    fill = block(*(vector(v * lanes) for v in range(shape.vectors)))
    return read, block(tirx.AllocBuffer(line), fill)


@dataclass(frozen=True, eq=False)
class InPlace(Kernel):
    """A tile over panels of which columns may be missing: `term` is for those that are whole."""

    lhs: Callable[[Values, Values], Expr]

    @staticmethod
    def of(
        total: Contraction, shape: Shape, lhs: Callable[[Values, Values], Expr], chains: int
    ) -> InPlace:
        def term(at: Values, k: Values, panel: Panel, j: Expr) -> Expr:
            return lhs(at, k) * substitute(total.rhs.value, {**panel.at, **k, **panel.cols(j)})

        return InPlace(total, shape, term, lhs, chains=chains)

    def _add(self, part: Sums, ks: Values, panel: Panel) -> tirx.Stmt:
        if not (panel.ragged and panel.masks):
            return super()._add(part, ks, panel)
        line, fill = in_line(self.sum, self.shape, panel, ks)

        def add(buffer: tirx.Var, i: Expr, j: Expr, at: Values) -> tirx.Stmt:
            term = self.lhs({**at, **panel.at}, ks) * line(j)
            return tirx.BufferStore(buffer, buffer[i, j] + term, [i, j])

        return block(fill, part.each(add))
