"""Results of attention: stored, or joined from the parts that the keys were cut into.

m = max_s m_s       o = sum_s exp(m_s - m) o_s / sum_s exp(m_s - m) l_s     a launch of its own
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import ForKind, Stmt

from ..kernel.analysis import substitute
from ..kernel.attend import Attention
from ..kernel.contraction import Output, size
from ..kernel.emit import Size, Values, allocate, bind, block, ceildiv, index, known, loop
from . import ptx
from .launch import Block, axes_at, launch, split, when
from .operand import multiples

THREADS = 128


class Results:
    """The output at a position of its axes, up to `neighbours` columns at a time."""

    def __init__(self, found: Attention, neighbours: int, factor: Expr) -> None:
        self.found, self.factor, self.neighbours = found, factor, neighbours
        self.rows, self.width = known(size(found.rows)), found.width.size or 0
        out = Output(found.out, found.where, tirx.const(0, "float32"))
        axes = (*found.batch, *found.rows, found.width)
        self.lanes = neighbours
        while self.lanes > 1 and not multiples(out, found.width, self.lanes, axes):
            self.lanes //= 2

    def store(
        self, at: Values, row: Expr, column: Expr, value: Callable[[Expr], Expr], total: Expr
    ) -> Stmt:
        """``out = value / total`` for columns from `column` on."""
        found, dtype = self.found, str(self.found.out.ty.dtype)
        zero = tirx.const(0, "float32")
        inverse = tirx.const(1, "float32") / total
        rows = axes_at(found.rows, row)
        some: Expr | bool = True
        if found.zero_for_nan:
            some = total > zero
        elif found.keys.size is None:  # no keys at all: an empty sum, no quotient of zeros
            some = found.keys.extent > 0

        def put(v: Expr, result: Expr) -> Stmt:
            here = {**at, **rows, found.width.var: column + v}
            where = [substitute(i, here) for i in found.where]
            return tirx.BufferStore(found.out, tirx.Cast(dtype, result), where)

        return when(
            some,
            self.each(column, self.lanes, lambda v: put(v, value(v) * inverse)),
            None if some is True else self.each(column, 1, lambda v: put(v, zero)),
        )

    def each(self, column: Expr, lanes: int, body: Callable[[Expr], Stmt]) -> Stmt:
        """`body` for `neighbours` columns from `column` on that there are, `lanes` at a time."""

        def some(u: Expr) -> Stmt:
            code = loop(lanes, lambda v: body(u * lanes + v), ForKind.VECTORIZED, "v")
            return when(column + u * lanes < index(self.width), code)

        return loop(self.neighbours // lanes, some, ForKind.UNROLLED, "u")


class Parts:
    """What the blocks leave: weighted values, and the largest score and the sum of the weights."""

    def __init__(self, results: Results, cut: Size) -> None:
        self.results, self.cut = results, cut
        found = self.found = results.found
        self.batch = known(size(found.batch))
        self.each = known(self.batch * results.rows)
        self.lanes = results.neighbours
        while results.width % self.lanes:
            self.lanes //= 2
        lines = known(index(cut) * self.each)
        self.values = allocate([known(index(lines) * results.width)], "float32", "part_values")
        self.ends = allocate([known(index(lines) * 2)], "float32", "part_ends")

    def line(self, part: Expr, batch: Expr, row: Expr, body: Callable[[Expr], Stmt]) -> Stmt:
        """`body` for the number of a row, as a name: TVM shrinks a buffer to what it sees of it."""
        return bind(part * self.each + batch * self.results.rows + row, body, "line", "local")

    def store(self, line: Expr, column: Expr, value: Callable[[Expr], Expr]) -> Stmt:
        """Weighted values of one part, `neighbours` columns of them."""
        start = line * self.results.width + column

        def one(v: Expr) -> Stmt:
            return tirx.BufferStore(self.values, value(v), [start + v])

        return self.results.each(column, self.lanes, one)

    def end(self, line: Expr, highest: Expr, total: Expr) -> Stmt:
        return block(
            tirx.BufferStore(self.ends, highest, [line * 2]),
            tirx.BufferStore(self.ends, total, [line * 2 + 1]),
        )

    def launch(self) -> Stmt:
        """Join the parts: a thread has `lanes` columns of a row."""
        width, lanes = self.results.width, self.results.neighbours
        per_row = -(-width // lanes)
        count = known(index(self.each) * per_row)
        names = ("largest", "total", "ratio")
        largest, total, ratio = (allocate([1], "float32", name, "local") for name in names)
        values = allocate([lanes], "float32", "joined", "local")
        zero, nothing = index(0), tirx.const(0, "float32")

        def body(number: Expr, x: Expr, _y: Expr) -> Stmt:
            flat = number * THREADS + x
            line, group = split(flat, per_row)
            batch, row = split(line, self.results.rows)
            column = group * lanes

            def each(body: Callable[[Expr], Stmt]) -> Stmt:
                return loop(self.cut, lambda s: self.line(s, batch, row, body), name="s")

            def look(line: Expr) -> Stmt:
                value = tirx.max(largest[zero], self.ends[line * 2])
                return tirx.BufferStore(largest, value, [zero])

            def add(line: Expr) -> Stmt:
                power = ptx.exp2((self.ends[line * 2] - largest[zero]) * self.results.factor)
                own, start = self.ends[line * 2 + 1], line * width + column

                def one(v: Expr) -> Stmt:
                    new = values[v] + self.values[start + v] * ratio[zero]
                    return tirx.BufferStore(values, new, [v])

                return block(
                    tirx.BufferStore(ratio, power, [zero]),
                    tirx.BufferStore(total, total[zero] + own * ratio[zero], [zero]),
                    self.results.each(column, self.lanes, one),
                )

            def clear(v: Expr) -> Stmt:
                return tirx.BufferStore(values, nothing, [v])

            at = axes_at(self.found.batch, batch)
            work = block(
                tirx.BufferStore(largest, self.found.lowest, [zero]),
                tirx.BufferStore(total, nothing, [zero]),
                loop(lanes, clear, ForKind.UNROLLED, "v"),
                each(look),
                each(add),
                self.results.store(at, row, column, lambda v: values[v], total[zero]),
            )
            buffers = (largest, total, ratio, values)
            return block(*map(tirx.AllocBuffer, buffers), when(flat < index(count), work))

        return launch(ceildiv(count, THREADS), Block(THREADS), body)
