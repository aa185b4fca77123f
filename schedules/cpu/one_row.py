"""One row times an operand that is contiguous along the sum: dot products, several at a time.

part[j, lane] += lhs(k + lane) * rhs(k + lane, j)         vectors along the sum, j unrolled
acc[j] = sum over lanes of part[j, lane]                  a square of vectors, turned and added
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from ..kernel.analysis import analyzer, constant, flat_index, stride, substitute
from ..kernel.contraction import Contraction, Operand, size
from ..kernel.emit import (
    VECTORIZED,
    Values,
    allocate,
    block,
    index,
    known,
    loop,
    nest,
    unravel,
    zeros,
)
from .maps import turned
from .panel import Panel
from .tile import CHAINS, RegisterTile, Shape, Sums


def contiguous_sum(total: Contraction) -> bool:
    """Whether both operands lie in memory in the order of the sum."""
    return all(_contiguous(total, operand) for operand in (total.lhs, total.rhs))


def _contiguous(total: Contraction, operand: Operand) -> bool:
    if not operand.direct:
        return False
    assert operand.load is not None
    axes = (*total.batch, *total.rows, *total.cols, *total.reduce)
    ana = analyzer(axes, operand.load.source.shape)
    step = stride(flat_index(operand.load), total.reduce[-1].var, ana)
    return step is not None and constant(step) == 1


def columns_at_once(lanes: int) -> Shape:
    """Enough dot products to hide the latency of an FMA, in whole squares of vectors."""
    return Shape(1, max(1, CHAINS // lanes), lanes)


@dataclass(frozen=True, eq=False)
class OneRow(RegisterTile):
    """A tile of one row whose sums are taken in the lanes of vectors."""

    def _parts(self, height: int) -> int:
        return 1

    def _reduce(
        self,
        parts: list[Sums],
        panel: Panel,
        _ranges: Mapping[Var, tuple[Expr, Expr]],
        _ahead: Callable[[Expr], tirx.Stmt] | None,
    ) -> tirx.Stmt:
        lanes, zero = self.shape.lanes, index(0)
        (sums,) = parts
        (acc,), row = sums.buffers, sums.row(zero)
        columns = [allocate([lanes], self.sum.dtype, "part") for _ in range(self.shape.cols)]
        *outer, last = (known(axis.extent) for axis in self.sum.reduce)
        whole = known(last // lanes)

        def term(ks: list[Expr], column: int | Expr) -> Expr:
            at = {axis.var: k for axis, k in zip(self.sum.reduce, ks)}
            return self._product(row, at, panel, index(column))

        def step(ks: list[Expr]) -> tirx.Stmt:
            *others, k = ks

            def add(number: int, part: Var) -> tirx.Stmt:
                def more(lane: Expr) -> tirx.Stmt:
                    value = part[lane] + term([*others, k * lanes + lane], number)
                    return tirx.BufferStore(part, value, [lane])

                return loop(lanes, more, VECTORIZED, "lane")

            return block(*(add(number, part) for number, part in enumerate(columns)))

        def rest(ks: list[Expr]) -> tirx.Stmt:
            *others, k = ks

            def more(j: Expr) -> tirx.Stmt:
                value = acc[zero, j] + term([*others, whole * lanes + k], j)
                return tirx.BufferStore(acc, value, [zero, j])

            return loop(self.shape.cols, more, name="j")

        return block(
            *(tirx.AllocBuffer(part) for part in columns),
            *(loop(lanes, lambda i, p=part: zeros(p, [i]), VECTORIZED) for part in columns),  # type: ignore[misc]
            nest([*outer, whole], step),
            self._across(columns, acc),
            nest([*outer, known(last - whole * lanes)], rest),
        )

    def _product(self, row: Values, ks: Values, panel: Panel, column: Expr) -> Expr:
        """Columns past the last one read the last one."""
        where = panel.start + column
        if panel.ragged:
            where = tirx.min(where, index(size(self.sum.cols)) - 1)
        cols = unravel(where, self.sum.cols)
        lhs = substitute(self.sum.lhs.value, {**row, **panel.at, **ks})
        return lhs * substitute(self.sum.rhs.value, {**panel.at, **ks, **cols})

    def _across(self, columns: list[Var], acc: Var) -> tirx.Stmt:
        """Sum up the lanes of each column: the vectors of a turned square, added in pairs."""
        lanes = self.shape.lanes
        ramp = tirx.Ramp(index(0), index(1), lanes)
        stmts = []
        for first in range(0, len(columns), lanes):
            binds, terms = turned([part[ramp] for part in columns[first : first + lanes]])
            while len(terms) > 1:
                terms = [a + b for a, b in zip(terms[::2], terms[1::2])]
            where = [index(0), tirx.Ramp(index(first), index(1), lanes)]
            stmts.append(block(*binds, tirx.BufferStore(acc, terms[0], where)))
        return block(*stmts)
