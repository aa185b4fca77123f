"""One tile of query rows against a block of keys: scores, their exponentials, weighted values.

    s[i, j] = query(i) . key(j)             registers, keys in panels
    s[i, j] = bias(s[i, j]);  m[i] = max    vectors of several rows at a time
    s[i, j] = exp(s[i, j] - m[i]);  l[i] = sum
    o[i, :] = sum_j s[i, j] value(j, :)     registers, values read in place

With several blocks of keys, sums and values so far are scaled by exp(m before - m now): online
softmax (Milakov and Gimelshein, arXiv 1805.02867), as in FlashAttention (arXiv 2205.14135).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from ..kernel.analysis import constant, substitute
from ..kernel.attend import Attention
from ..kernel.emit import (
    UNROLLED,
    VECTORIZED,
    Size,
    Values,
    allocate,
    bind,
    block,
    ceildiv,
    index,
    known,
    least,
    loop,
    unravel,
    zeros,
)
from .exponential import LOG2_E, exp2_of_negative
from .math import approximate
from .tile import Shape, Sums


@dataclass(frozen=True, eq=False)
class Running:
    """What several blocks of keys add up to for a tile: largest score, sum, weighted values."""

    highest: Var
    total: Var
    values: Var

    @staticmethod
    def of(rows: int, width: Size) -> Running:
        """Buffers for a tile of `rows` rows and an output of `width` columns."""
        shapes = {"highest": [rows], "total": [rows], "values": [rows, width]}
        return Running(*(allocate(shape, "float32", name) for name, shape in shapes.items()))

    @property
    def buffers(self) -> tuple[Var, ...]:
        return self.highest, self.total, self.values


@dataclass(frozen=True, eq=False)
class Tile:
    """`height` rows from `row` on, at `at` on the batch axes; `panels` holds the keys."""

    found: Attention
    scores: Shape
    values: Shape
    at: Values
    row: Expr
    height: int
    panels: Var
    buffer: Var
    """Scores of the tile, one row of `buffer` for a query row, with room for a vector more."""

    def attend_all(
        self, first: Expr, count: Size, per_block: Size, running: Running | None
    ) -> tirx.Stmt:
        """`count` keys from `first`, which starts a panel; in blocks if sums are kept `running`."""
        if running is None:
            return self.attend(first, count, None)

        def step(start: Expr) -> tirx.Stmt:
            left = first + count - start
            return bind(least(per_block, left), lambda n: self.attend(start, n, running), "keys")

        blocks = loop(
            ceildiv(count, per_block),
            lambda b: bind(first + b * per_block, step, "start"),
            name="block",
        )
        return block(self.begin(running), blocks, self.finish(running))

    def attend(self, first: Expr, count: Size, running: Running | None) -> tirx.Stmt:
        """`count` keys from `first`, which starts a panel; stored unless there is more to come."""
        peaks, sums = (
            allocate([self.height, self.scores.lanes], "float32", name)
            for name in ("peaks", "sums")
        )
        lowest = self.found.lowest

        def before(i: Expr) -> Expr:
            return lowest if running is None else running.highest[i]

        return block(
            self._products(first, count),
            tirx.AllocBuffer(peaks),
            self._lanes(lambda i, j: tirx.BufferStore(peaks, before(i), [i, j])),
            self._bias(first, count, peaks),
            self._pad(count),
            self._halves(peaks, lambda a, b: tirx.max(a, b)),
            tirx.AllocBuffer(sums),
            self._lanes(lambda i, j: zeros(sums, [i, j])),
            self._exponentials(count, peaks, sums),
            self._halves(sums, lambda a, b: a + b),
            None if running is None else self._rescale(running, peaks, sums),
            self._weighted(first, count, sums, running),
        )

    # ---------------------------------------------------------------- scores

    def _products(self, first: Expr, count: Size) -> tirx.Stmt:
        width, lanes = self.scores.cols, self.scores.lanes
        start = first // width
        if not isinstance(count, int):
            return loop(
                ceildiv(count, width),
                lambda p: self._panel(start + p, p * width, self.scores),
                name="p",
            )
        whole = count // width
        rest = Shape(self.height, -(-(count % width) // lanes), lanes)
        return block(
            loop(whole, lambda p: self._panel(start + p, p * width, self.scores), name="p"),
            self._panel(start + whole, index(whole * width), rest) if rest.vectors else None,
        )

    def _panel(self, number: Expr, column: Expr, shape: Shape) -> tirx.Stmt:
        sums = Sums.of(self.height, shape, "float32", self._row)

        def step(d: Expr) -> tirx.Stmt:
            def add(buffer: Var, i: Expr, j: Expr, at: Values) -> tirx.Stmt:
                query = substitute(self.found.query, {**self.at, **at, self.found.depth.var: d})
                term = query * self.panels[number, d, j]
                return tirx.BufferStore(buffer, buffer[i, j] + term, [i, j])

            return sums.each(add)

        def keep(buffer: Var, i: Expr, j: Expr, skipped: int) -> tirx.Stmt:
            return tirx.BufferStore(self.buffer, buffer[i, j], [i + skipped, column + j])

        return block(
            sums.allocate(),
            sums.each(lambda buffer, i, j, _at: zeros(buffer, [i, j])),
            loop(known(self.found.depth.extent), step, name="d"),
            sums.each_chunk(keep),
        )

    def _row(self, i: Expr) -> Values:
        return unravel(self.row + i, self.found.rows)

    def place(self, i: Expr) -> Values:
        """Where row `i` of the tile is, on the batch axes and those of the rows."""
        return {**self.at, **self._row(i)}

    # ---------------------------------------------------------------- softmax

    def _bias(self, first: Expr, count: Size, peaks: Var) -> tirx.Stmt:
        """Bias the scores and take their maximum, lane by lane.

        Scores past the last key are repetitions of its own, which a maximum may meet.
        """
        lanes = self.scores.lanes
        plain = self.found.biased.same_as(self.found.score)

        def element(i: Expr, j: Expr, lane: Expr) -> tirx.Stmt:
            here = {**self.at, **self._row(i), self.found.keys.var: first + j}
            score = self.buffer[i, j]
            values = {**here, self.found.score: score}
            names, value = approximate(substitute(self.found.biased, values))
            return block(
                *(tirx.Bind(var, expr) for var, expr in names),
                None if plain else tirx.BufferStore(self.buffer, value, [i, j]),
                tirx.BufferStore(peaks, tirx.max(peaks[i, lane], score), [i, lane]),
            )

        def vector(j: Expr, width: int) -> tirx.Stmt:
            return self._each_row(
                lambda i: self._vector(width, lambda lane: element(i, j + lane, lane))
            )

        whole, rest = count // lanes, count % lanes
        keys = known(self.found.keys.extent)
        tail: tirx.Stmt | None = None
        if plain:
            whole = ceildiv(count, lanes)
        elif not isinstance(keys, int):
            tail = loop(
                rest, lambda j: self._each_row(lambda i: element(i, whole * lanes + j, index(0)))
            )
        elif isinstance(rest, int):
            tail = vector(index(whole * lanes), rest) if rest else None
        elif keys % lanes:  # keys end in whole vectors or with the last key
            tail = tirx.IfThenElse(rest > 0, vector(whole * lanes, keys % lanes), None)
        return block(loop(known(whole), lambda v: vector(v * lanes, lanes), name="v"), tail)

    def _pad(self, count: Size) -> tirx.Stmt | None:
        """One vector after the last score whose exponentials are zero."""
        keys = known(self.found.keys.extent)
        if isinstance(keys, int) and keys % self.scores.lanes == 0:
            return None
        least = tirx.const(float("-inf"), "float32")
        return self._lanes(lambda i, j: tirx.BufferStore(self.buffer, least, [i, j + count]))

    def _exponentials(self, count: Size, peaks: Var, sums: Var) -> tirx.Stmt:
        lanes = self.scores.lanes

        def element(i: Expr, j: Expr, lane: Expr) -> tirx.Stmt:
            names, value = self._weight(self.buffer[i, j], peaks[i, 0])
            return block(
                *(tirx.Bind(var, expr) for var, expr in names),
                tirx.BufferStore(self.buffer, value, [i, j]),
                tirx.BufferStore(sums, sums[i, lane] + self.buffer[i, j], [i, lane]),
            )

        def vector(v: Expr) -> tirx.Stmt:
            return self._lanes(lambda i, lane: element(i, v * lanes + lane, lane))

        return loop(ceildiv(count, lanes), vector, name="v")

    def _weight(self, score: Expr, highest: Expr) -> tuple[list[tuple[Var, Expr]], Expr]:
        """``exp(scale * (score - highest))``: scalars to bind first, and the value."""
        factor = tirx.const(self.found.scale * LOG2_E, "float32")
        return exp2_of_negative((score - highest) * factor)

    def _halves(self, buffer: Var, join: Callable[[Expr, Expr], Expr]) -> tirx.Stmt:
        """Join the lanes of each row in lane 0."""

        def step(half: int) -> tirx.Stmt:
            def lane(i: Expr, j: Expr) -> tirx.Stmt:
                return tirx.BufferStore(buffer, join(buffer[i, j], buffer[i, j + half]), [i, j])

            return self._each_row(lambda i: self._vector(half, lambda j: lane(i, j)))

        halves = [self.scores.lanes >> n for n in range(1, self.scores.lanes.bit_length())]
        return block(*map(step, halves))

    @staticmethod
    def _vector(lanes: int, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        return loop(lanes, body, VECTORIZED, "lane")

    def _each_row(self, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        return loop(self.height, body, UNROLLED, "i")

    def _lanes(self, body: Callable[[Expr, Expr], tirx.Stmt]) -> tirx.Stmt:
        return self._each_row(lambda i: self._vector(self.scores.lanes, lambda lane: body(i, lane)))

    # ---------------------------------------------------------------- values

    def _rescale(self, running: Running, peaks: Var, sums: Var) -> tirx.Stmt:
        """Bring the sum so far to the new maximum; lane 1 of `sums` keeps the factor."""

        def row(i: Expr) -> tirx.Stmt:
            names, factor = self._weight(running.highest[i], peaks[i, 0])
            return block(
                *(tirx.Bind(var, expr) for var, expr in names),
                tirx.BufferStore(sums, factor, [i, 1]),
                tirx.BufferStore(running.highest, peaks[i, 0], [i]),
                tirx.BufferStore(running.total, running.total[i] * sums[i, 1] + sums[i, 0], [i]),
            )

        return self._each_row(row)

    def _weighted(self, first: Expr, count: Size, sums: Var, running: Running | None) -> tirx.Stmt:
        starts = range(0, constant(self.found.width.extent) or 0, self.values.cols)
        return block(*(self._columns(first, count, sums, running, start) for start in starts))

    def _columns(
        self, first: Expr, count: Size, sums: Var, running: Running | None, start: int
    ) -> tirx.Stmt:
        accumulated = Sums.of(self.height, self.values, "float32", self._row)

        def begin(buffer: Var, i: Expr, j: Expr, skipped: int) -> tirx.Stmt:
            if running is None:
                return zeros(buffer, [i, j])
            row = i + skipped
            return tirx.BufferStore(buffer, running.values[row, j + start] * sums[row, 1], [i, j])

        def step(k: Expr) -> tirx.Stmt:
            def add(buffer: Var, i: Expr, j: Expr, skipped: int) -> tirx.Stmt:
                here = {self.found.keys.var: first + k, self.found.width.var: j + start}
                value = substitute(self.found.value, {**self.at, **here})
                term = self.buffer[i + skipped, k] * value
                return tirx.BufferStore(buffer, buffer[i, j] + term, [i, j])

            return accumulated.each_chunk(add)

        def leave(buffer: Var, i: Expr, j: Expr, skipped: int) -> tirx.Stmt:
            row = i + skipped
            if running is not None:
                return tirx.BufferStore(running.values, buffer[i, j], [row, j + start])
            return self.store(row, j + start, buffer[i, j], sums[row, 0])

        return block(
            accumulated.allocate(),
            accumulated.each_chunk(begin),
            loop(count, step, name="k"),
            accumulated.each_chunk(leave),
        )

    def store(self, i: Expr, column: Expr, value: Expr, total: Expr) -> tirx.Stmt:
        """``out = value / total``, in the place where the output has it."""
        zero = tirx.const(0.0, "float32")
        inverse = tirx.const(1.0, "float32") / total
        if self.found.keys.size is None:  # no keys at all: an empty sum, no quotient of zeros
            inverse = tirx.Select(self.found.keys.extent > 0, inverse, zero)
        result = value * inverse
        if self.found.zero_for_nan:
            result = tirx.Select(total > zero, result, zero)
        here = {**self.at, **self._row(i), self.found.width.var: column}
        where = [substitute(at, here) for at in self.found.where]
        return tirx.BufferStore(self.found.out, result, where)

    # ---------------------------------------------------------------- several blocks

    def begin(self, running: Running) -> tirx.Stmt:
        """Nothing has been added up."""

        def row(i: Expr) -> tirx.Stmt:
            return block(
                tirx.BufferStore(running.highest, self.found.lowest, [i]),
                zeros(running.total, [i]),
                self._across(lambda j: zeros(running.values, [i, j])),
            )

        return self._each_row(row)

    def finish(self, running: Running) -> tirx.Stmt:
        """Store what has been added up."""
        return self._each_row(
            lambda i: self._across(
                lambda j: self.store(i, j, running.values[i, j], running.total[i])
            )
        )

    def _across(self, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        lanes, width = self.values.lanes, constant(self.found.width.extent) or 0
        return loop(
            width // lanes,
            lambda v: self._vector(lanes, lambda lane: body(v * lanes + lane)),
        )
