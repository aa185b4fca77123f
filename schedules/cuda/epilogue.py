"""What becomes of the sums of a product: stored through its epilogue, several neighbours at a time.

    out[b, m, n .. n + lanes] = epilogue(totals)

and, where blocks have parts of the sums:

    totals = parts[0][b, m, n] + parts[1][b, m, n] + ...                  a launch of its own
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr, TensorLoad
from tvm.tirx import ForKind, Stmt

from tvmext.arch import dtype_bits

from ..kernel.analysis import (
    analyzer,
    buffer_of,
    collect,
    constant,
    flat_index,
    stride,
    substitute,
)
from ..kernel.contraction import Contraction, size
from ..kernel.emit import Values, allocate, block, ceildiv, index, known, loop
from .launch import Block, axes_at, launch, split, when
from .operand import multiples, outside_of_loads
from .vectors import neighbours

STORE_BYTES = 16
"""The widest store of a thread."""
THREADS = 256


class Epilogue:
    """The results of a contraction at a position of its axes."""

    def __init__(self, found: Contraction) -> None:
        self.sum = found
        self.rows, self.cols = known(size(found.rows)), known(size(found.cols))
        self.lanes = _lanes(found)

    def store(self, at: Values, m: Expr, n: Expr, total: Callable[[Expr], Expr]) -> Stmt:
        """Results `n` and `lanes - 1` more of row `m`; `total(v)` is the sum of the v-th."""
        inside = tirx.And(m < index(self.rows), n < index(self.cols))
        return when(inside, self.write({**at, **axes_at(self.sum.rows, m)}, n, total, self.lanes))

    def write(self, at: Values, n: Expr, total: Callable[[Expr], Expr], lanes: int) -> Stmt:
        """As `store`, for `lanes` results of a row that is known to be there."""
        cols = axes_at(self.sum.cols, n)
        last = [axis.var for axis in self.sum.cols[-1:]]

        def one(v: Expr) -> Stmt:
            point = {
                **at,
                **cols,
                **{var: cols[var] + v for var in last},
                self.sum.total: tirx.Cast(self.sum.dtype, total(v)),
            }
            return block(
                *(
                    tirx.BufferStore(
                        out.buffer,
                        substitute(out.value, point),
                        [substitute(i, point) for i in out.indices],
                    )
                    for out in self.sum.outputs
                )
            )

        return neighbours(lanes, one)


class Parts:
    """Sums of parts of the products, `splits` for each result."""

    def __init__(self, found: Contraction, epilogue: Epilogue, dtype: str, splits: int) -> None:
        self.epilogue = epilogue
        self.lanes = self.epilogue.lanes
        self.splits = splits
        self.batch = found.batch
        self.each = known(size(found.batch) * self.epilogue.rows * self.epilogue.cols)
        self.buffer = allocate([known(self.each * splits)], dtype, "parts")

    def store(
        self, part: Expr, batch: Expr, m: Expr, n: Expr, total: Callable[[Expr], Expr]
    ) -> Stmt:
        """As `Epilogue.store`, for one part of the sum."""
        rows, cols = self.epilogue.rows, self.epilogue.cols
        start = part * self.each + (batch * rows + m) * cols + n

        def one(v: Expr) -> Stmt:
            return tirx.BufferStore(self.buffer, total(v), [start + v])

        inside = tirx.And(m < index(rows), n < index(cols))
        return when(inside, loop(self.lanes, one, ForKind.VECTORIZED, "v"))

    def launch(self) -> Stmt:
        """Add the parts up."""
        rows, cols, lanes = self.epilogue.rows, self.epilogue.cols, self.lanes
        per_row = ceildiv(cols, lanes)
        count = known(per_row * rows * size(self.batch))

        def body(number: Expr, x: Expr, _y: Expr) -> Stmt:
            flat = number * THREADS + x
            rest, column = split(flat, per_row)
            outer, row = split(rest, rows)
            total = allocate([lanes], str(self.buffer.ty.dtype), "total", "local")
            start = (outer * rows + row) * cols + column * lanes

            def part(s: Expr) -> Stmt:
                def add(v: Expr) -> Stmt:
                    new = self.buffer[s * self.each + start + v]
                    return tirx.BufferStore(total, total[v] + new, [v])

                return loop(lanes, add, ForKind.VECTORIZED, "v")

            def zero(v: Expr) -> Stmt:
                return tirx.BufferStore(total, tirx.const(0, str(total.ty.dtype)), [v])

            return block(
                tirx.AllocBuffer(total),
                loop(lanes, zero, ForKind.UNROLLED, "v"),
                when(
                    flat < index(count),
                    block(
                        loop(self.splits, part, ForKind.UNROLLED, "s"),
                        self.epilogue.store(
                            axes_at(self.batch, outer), row, column * lanes, lambda v: total[v]
                        ),
                    ),
                ),
            )

        return launch(ceildiv(count, THREADS), Block(THREADS), body)


def _lanes(found: Contraction) -> int:
    """Neighbours along the columns that are stored, and all else read, as one vector each."""
    if not found.cols:
        return 1
    last = found.cols[-1]
    axes = (*found.batch, *found.rows, *found.cols)
    accesses: list[Any] = list(found.outputs)
    for out in found.outputs:
        if last.var in outside_of_loads(out.value):
            return 1
        for load in collect(out.value, TensorLoad):
            step = stride(flat_index(load), last.var, analyzer(axes, load.source.shape))
            if step is None or constant(step) != 0:
                accesses.append(load)
    lanes = STORE_BYTES * 8 // max(dtype_bits(str(buffer_of(a).ty.dtype)) for a in accesses)
    while lanes > 1 and not all(multiples(access, last, lanes, axes) for access in accesses):
        lanes //= 2
    return lanes
