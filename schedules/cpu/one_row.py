"""One row times an operand that is contiguous along the sum: dot products, several at a time.

part[j, lane] += lhs(k + lane) * rhs(k + lane, j)         vectors along the sum, j unrolled
acc[j] = sum over lanes of part[j, lane]                  a square of vectors, turned and added
"""

from __future__ import annotations

from collections.abc import Mapping
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
from . import masks
from .maps import turned
from .panel import Panel
from .tile import Ahead, RegisterTile, Shape, Sums
from .turns import CHAINS

LONG_SUM = 1024
"""Steps of a sum from which on a few columns have code of their own."""

FEW = 4
"""Columns that are a few."""


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


def masks_fit(total: Contraction) -> bool:
    """Whether what is left of the sum after whole vectors can be loaded under masks."""
    loads = (total.lhs.load, total.rhs.load)
    fits = total.dtype in masks.TYPES
    return fits and all(load is not None and str(load.ty.dtype) == total.dtype for load in loads)


def columns_at_once(lanes: int) -> Shape:
    """Enough dot products to hide the latency of an FMA, in whole squares of vectors."""
    return Shape(1, max(1, CHAINS // lanes), lanes)


@dataclass(frozen=True, eq=False)
class OneRow(RegisterTile):
    """A tile of one row whose sums are taken in the lanes of vectors.

    `masked` says that the last steps, fewer than lanes, are loaded under masks (masks.py).
    """

    masked: bool = False

    def _parts(self, height: int) -> int:
        return 1

    def _reduce(
        self,
        parts: list[Sums],
        panel: Panel,
        _ranges: Mapping[Var, tuple[Expr, Expr]],
        _ahead: Ahead | None,
    ) -> tirx.Stmt:
        (sums,) = parts
        body = self._dots(sums, panel, self.shape.cols)
        last = panel.total % panel.width if isinstance(panel.total, int) else None
        depth = size(self.sum.reduce)
        fewer = (FEW, 1) if isinstance(depth, int) and depth >= LONG_SUM else (1,)
        for few in fewer:
            if few < self.shape.cols and (last is None or 0 < last <= few):
                dots = self._dots(sums, panel, few)
                body = tirx.IfThenElse(panel.valid <= few, dots, body)
        return body

    def _dots(self, sums: Sums, panel: Panel, count: int) -> tirx.Stmt:
        """The first `count` columns, each in as many partial sums as hide the latency."""
        lanes, zero = self.shape.lanes, index(0)
        (acc,), row = sums.buffers, sums.row(zero)
        chains = max(1, CHAINS // count)
        columns = [
            [allocate([lanes], self.sum.dtype, "part") for _ in range(chains)] for _ in range(count)
        ]
        *outer, last = (known(axis.extent) for axis in self.sum.reduce)
        rounds, whole = known(last // (lanes * chains)), known(last // lanes)

        def term(ks: list[Expr], column: int | Expr) -> Expr:
            at = {axis.var: k for axis, k in zip(self.sum.reduce, ks)}
            return self._product(row, at, panel, index(column))

        def add(others: list[Expr], first: Expr, number: int, part: Var) -> tirx.Stmt:
            def more(lane: Expr) -> tirx.Stmt:
                value = part[lane] + term([*others, first + lane], number)
                return tirx.BufferStore(part, value, [lane])

            return loop(lanes, more, VECTORIZED, "lane")

        def step(ks: list[Expr]) -> tirx.Stmt:
            *others, k = ks
            return block(
                *(
                    add(others, (k * chains + chain) * lanes, number, part)
                    for chain in range(chains)
                    for number, part in enumerate(column[chain] for column in columns)
                )
            )

        def left(ks: list[Expr]) -> tirx.Stmt:
            *others, k = ks
            first = (rounds * chains + k) * lanes
            return block(*(add(others, first, n, column[0]) for n, column in enumerate(columns)))

        def rest(ks: list[Expr]) -> tirx.Stmt:
            *others, k = ks

            def more(j: Expr) -> tirx.Stmt:
                value = acc[zero, j] + term([*others, whole * lanes + k], j)
                return tirx.BufferStore(acc, value, [zero, j])

            return loop(count, more, name="j")

        def masked(ks: list[Expr]) -> tirx.Stmt:
            k, ramp = index(whole * lanes), tirx.Ramp(zero, index(1), lanes)
            at = {axis.var: k for axis, k in zip(self.sum.reduce, [*ks, k])}
            mask = masks.first(index(last) - k, lanes)
            lhs = masks.load(self._lhs(row, at, panel), mask, lanes)
            return block(
                *(
                    tirx.BufferStore(part, part[ramp] + lhs * masks.load(rhs, mask, lanes), [ramp])
                    for part, rhs in (
                        (column[0], self._rhs(at, panel, index(number)))
                        for number, column in enumerate(columns)
                    )
                )
            )

        every = [part for column in columns for part in column]
        remains = not isinstance(last, int) or last % lanes != 0
        under_masks = remains and self.masked
        return block(
            *(tirx.AllocBuffer(part) for part in every),
            *(loop(lanes, lambda i, p=part: zeros(p, [i]), VECTORIZED) for part in every),  # type: ignore[misc]
            nest([*outer, rounds], step),
            *([nest([*outer, known(whole - rounds * chains)], left)] if chains > 1 else []),
            *([nest(outer, masked)] if under_masks else []),
            self._across(columns, acc),
            *([] if under_masks else [nest([*outer, known(last - whole * lanes)], rest)]),
        )

    def _product(self, row: Values, ks: Values, panel: Panel, column: Expr) -> Expr:
        return self._lhs(row, ks, panel) * self._rhs(ks, panel, column)

    def _lhs(self, row: Values, ks: Values, panel: Panel) -> Expr:
        return substitute(self.sum.lhs.value, {**row, **panel.at, **ks})

    def _rhs(self, ks: Values, panel: Panel, column: Expr) -> Expr:
        """Columns past the last one read the last one."""
        where = panel.start + column
        if panel.ragged:
            where = tirx.min(where, index(size(self.sum.cols)) - 1)
        cols = unravel(where, self.sum.cols)
        return substitute(self.sum.rhs.value, {**panel.at, **ks, **cols})

    def _across(self, columns: list[list[Var]], acc: Var) -> tirx.Stmt:
        """Sum up the lanes of each column: the vectors of a turned square, added in pairs."""
        lanes = self.shape.lanes
        ramp = tirx.Ramp(index(0), index(1), lanes)
        nothing = tirx.Broadcast(tirx.const(0, self.sum.dtype), lanes)
        vectors = [_added([part[ramp] for part in parts]) for parts in columns]
        stmts = []
        for first in range(0, len(columns), lanes):
            square = vectors[first : first + lanes]
            binds, terms = turned([*square, *[nothing] * (lanes - len(square))])
            where = [index(0), tirx.Ramp(index(first), index(1), lanes)]
            stmts.append(block(*binds, tirx.BufferStore(acc, _added(terms), where)))
        return block(*stmts)


def _added(terms: list[Expr]) -> Expr:
    """The sum of a power of two of terms, in pairs."""
    while len(terms) > 1:
        terms = [a + b for a, b in zip(terms[::2], terms[1::2])]
    return terms[0]
