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
from ..kernel.choice import of_height
from ..kernel.emit import (
    VECTORIZED,
    Body,
    Size,
    Values,
    allocate,
    bind,
    bind_each,
    block,
    ceildiv,
    index,
    known,
    least,
    loop,
    turned,
    unravel,
    zeros,
)
from .exponential import LOG2_E, exp2_of_negative
from .math import approximate
from .tile import Shape, Sums
from .turns import turn


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
class State:
    """What a block of keys has for each row of a tile: its largest score, what its exponentials
    add up to, and the factor that brings sums before it to the new maximum."""

    highest: Var
    total: Var
    factor: Var

    @staticmethod
    def of(rows: int) -> State:
        """Buffers for a tile of `rows` rows."""
        names = ("block_highest", "block_total", "factor")
        return State(*(allocate([rows], "float32", name) for name in names))

    @property
    def buffers(self) -> tuple[Var, ...]:
        return self.highest, self.total, self.factor


@dataclass(frozen=True, eq=False)
class Tile:
    """`height` rows from `row` on, at `at` on the batch axes; `panels` holds the keys.

    `height` is one of `heights`. Products are code of their own for each; the softmax, which takes
    row by row, is the same for all.
    """

    found: Attention
    scores: Shape
    values: Shape
    at: Values
    row: Expr
    height: Expr
    heights: tuple[int, ...]
    panels: Var
    buffer: Var
    """Scores of the tile, one row of `buffer` for a query row, with room for a vector more."""
    state: State
    chains: int
    """Independent vectors of sums that hide the latency of an FMA."""

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
        return block(
            of_height(self.heights, self.height, lambda n: self._products(n, first, count)),
            loop(self.height, lambda i: self._largest(i, first, count, running), name="i"),
            loop(self.height, lambda i: self._exponentials(i, count, running), name="i"),
            of_height(
                self.heights, self.height, lambda n: self._weighted(n, first, count, running)
            ),
        )

    # ---------------------------------------------------------------- scores

    def _products(self, height: int, first: Expr, count: Size) -> tirx.Stmt:
        width, lanes = self.scores.cols, self.scores.lanes
        start = first // width
        if not isinstance(count, int):
            return loop(
                ceildiv(count, width),
                lambda p: self._panel(height, start + p, p * width, self.scores),
                name="p",
            )
        whole = count // width
        rest = Shape(height, -(-(count % width) // lanes), lanes)
        return block(
            loop(whole, lambda p: self._panel(height, start + p, p * width, self.scores), name="p"),
            self._panel(height, start + whole, index(whole * width), rest)
            if rest.vectors
            else None,
        )

    def _panel(self, height: int, number: Expr, column: Expr, shape: Shape) -> tirx.Stmt:
        sums = Sums.of(height, shape, "float32", self._row)

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
            self._turned(height, shape.vectors, known(self.found.depth.extent), step),
            sums.each_chunk(keep),
        )

    def _turned(self, rows: int, vectors: int, steps: Size, step: Body) -> tirx.Stmt:
        """The loop over the sum of a tile, if its steps are known in turns of several."""
        count = turn(rows, vectors, steps, self.chains) if isinstance(steps, int) else 1
        return turned(steps, count, step)

    def _row(self, i: Expr) -> Values:
        return unravel(self.row + i, self.found.rows)

    def place(self, i: Expr) -> Values:
        """Where row `i` of the tile is, on the batch axes and those of the rows."""
        return {**self.at, **self._row(i)}

    # ---------------------------------------------------------------- softmax

    def _largest(self, i: Expr, first: Expr, count: Size, running: Running | None) -> tirx.Stmt:
        """Bias the scores of row `i` of the tile, and find the largest of them."""
        peaks = allocate([self.scores.lanes], "float32", "peaks")
        peak = allocate([1], "float32", "peak")
        before = self.found.lowest if running is None else running.highest[i]

        def named(at: Values) -> tirx.Stmt:
            return block(
                tirx.AllocBuffer(peaks),
                tirx.AllocBuffer(peak),
                self._lanes(lambda lane: tirx.BufferStore(peaks, before, [lane])),
                tirx.BufferStore(peak, before, [index(0)]),
                self._bias(i, {**self.at, **at}, first, count, peaks, peak),
                self._pad(i, count),
                self._halves(peaks, lambda a, b: tirx.max(a, b)),
                tirx.BufferStore(self.state.highest, tirx.max(peaks[0], peak[0]), [i]),
            )

        return bind_each(self._row(i), named)

    def _bias(
        self, i: Expr, at: Values, first: Expr, count: Size, peaks: Var, peak: Var
    ) -> tirx.Stmt:
        """Bias the scores of row `i`, which is `at`, and take their maximum, lane by lane.

        Scores past the last key are repetitions of its own, which a maximum may meet.
        """
        lanes = self.scores.lanes
        plain = self.found.biased.same_as(self.found.score)

        def element(j: Expr, highest: Var, lane: Expr) -> tirx.Stmt:
            score = self.buffer[i, j]
            values = {**at, self.found.keys.var: first + j, self.found.score: score}
            names, value = approximate(substitute(self.found.biased, values))
            return block(
                *(tirx.Bind(var, expr) for var, expr in names),
                None if plain else tirx.BufferStore(self.buffer, value, [i, j]),
                tirx.BufferStore(highest, tirx.max(highest[lane], score), [lane]),
            )

        def vector(j: Expr, width: int) -> tirx.Stmt:
            return self._vector(width, lambda lane: element(j + lane, peaks, lane))

        whole, rest = count // lanes, count % lanes
        keys = known(self.found.keys.extent)
        tail: tirx.Stmt | None = None
        if plain:
            whole = ceildiv(count, lanes)
        elif not isinstance(keys, int):
            tail = loop(rest, lambda j: element(whole * lanes + j, peak, index(0)))
        elif isinstance(rest, int):
            tail = vector(index(whole * lanes), rest) if rest else None
        elif keys % lanes:  # keys end in whole vectors or with the last key
            tail = tirx.IfThenElse(rest > 0, vector(whole * lanes, keys % lanes), None)
        return block(loop(known(whole), lambda v: vector(v * lanes, lanes), name="v"), tail)

    def _pad(self, i: Expr, count: Size) -> tirx.Stmt | None:
        """One vector after the last score whose exponentials are zero."""
        keys = known(self.found.keys.extent)
        if isinstance(keys, int) and keys % self.scores.lanes == 0:
            return None
        least = tirx.const(float("-inf"), "float32")
        return self._lanes(lambda lane: tirx.BufferStore(self.buffer, least, [i, count + lane]))

    def _exponentials(self, i: Expr, count: Size, running: Running | None) -> tirx.Stmt:
        """The scores of row `i` become exponentials, of which `state` has the sum."""
        lanes = self.scores.lanes
        sums = allocate([lanes], "float32", "sums")

        def element(j: Expr, lane: Expr) -> tirx.Stmt:
            names, value = self._weight(self.buffer[i, j], self.state.highest[i])
            return block(
                *(tirx.Bind(var, expr) for var, expr in names),
                tirx.BufferStore(self.buffer, value, [i, j]),
                tirx.BufferStore(sums, sums[lane] + self.buffer[i, j], [lane]),
            )

        def vector(v: Expr) -> tirx.Stmt:
            return self._lanes(lambda lane: element(v * lanes + lane, lane))

        return block(
            tirx.AllocBuffer(sums),
            self._lanes(lambda lane: zeros(sums, [lane])),
            loop(ceildiv(count, lanes), vector, name="v"),
            self._halves(sums, lambda a, b: a + b),
            tirx.BufferStore(self.state.total, sums[0], [i]),
            None if running is None else self._rescale(i, running),
        )

    def _weight(self, score: Expr, highest: Expr) -> tuple[list[tuple[Var, Expr]], Expr]:
        """``exp(scale * (score - highest))``: scalars to bind first, and the value."""
        factor = tirx.const(self.found.scale * LOG2_E, "float32")
        return exp2_of_negative((score - highest) * factor)

    def _halves(self, buffer: Var, join: Callable[[Expr, Expr], Expr]) -> tirx.Stmt:
        """Join the lanes in lane 0."""

        def step(half: int) -> tirx.Stmt:
            return self._vector(
                half,
                lambda j: tirx.BufferStore(buffer, join(buffer[j], buffer[j + half]), [j]),
            )

        return block(
            *(step(self.scores.lanes >> n) for n in range(1, self.scores.lanes.bit_length()))
        )

    @staticmethod
    def _vector(lanes: int, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        return loop(lanes, body, VECTORIZED, "lane")

    def _lanes(self, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        return self._vector(self.scores.lanes, body)

    # ---------------------------------------------------------------- values

    def _rescale(self, i: Expr, running: Running) -> tirx.Stmt:
        """Bring the sum of row `i` so far to the new maximum; `state` keeps the factor."""
        highest, total, factor = self.state.buffers
        names, value = self._weight(running.highest[i], highest[i])
        return block(
            *(tirx.Bind(var, expr) for var, expr in names),
            tirx.BufferStore(factor, value, [i]),
            tirx.BufferStore(running.highest, highest[i], [i]),
            tirx.BufferStore(running.total, running.total[i] * factor[i] + total[i], [i]),
        )

    def _weighted(
        self, height: int, first: Expr, count: Size, running: Running | None
    ) -> tirx.Stmt:
        starts = range(0, constant(self.found.width.extent) or 0, self.values.cols)
        return block(*(self._columns(height, first, count, running, start) for start in starts))

    def _columns(
        self, height: int, first: Expr, count: Size, running: Running | None, start: int
    ) -> tirx.Stmt:
        accumulated = Sums.of(height, self.values, "float32", self._row)

        def begin(buffer: Var, i: Expr, j: Expr, skipped: int) -> tirx.Stmt:
            if running is None:
                return zeros(buffer, [i, j])
            row = i + skipped
            return tirx.BufferStore(
                buffer, running.values[row, j + start] * self.state.factor[row], [i, j]
            )

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
            return self.store(row, j + start, buffer[i, j], self.state.total[row])

        return block(
            accumulated.allocate(),
            accumulated.each_chunk(begin),
            self._turned(height, self.values.vectors, count, step),
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

        return loop(self.height, row, name="i")

    def finish(self, running: Running) -> tirx.Stmt:
        """Store what has been added up."""

        def row(i: Expr) -> tirx.Stmt:
            return self._across(lambda j: self.store(i, j, running.values[i, j], running.total[i]))

        return loop(self.height, row, name="i")

    def _across(self, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        lanes, width = self.values.lanes, constant(self.found.width.extent) or 0
        return loop(
            width // lanes,
            lambda v: self._vector(lanes, lambda lane: body(v * lanes + lane)),
        )
