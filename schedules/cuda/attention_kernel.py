"""The code of attention: FlashAttention-2 (arXiv 2307.08691), parts of the keys as flash-decoding.

for tile of rows, batch, part of the keys:                            one block of threads
    ask for the queries and the first `stages - 1` steps
    for each step of keys:
        wait for it, ask for the one `stages - 1` further on
        s = queries . keys;  s = bias(s);  m' = max(m, s);  f = exp(m - m')
        p = exp(s - m');  l = f l + p;  o = f o + p . values          all in registers, in float32
    out = o / l,   or (o, m, l) for the launch that joins the parts   (attention_parts.py)
"""

from __future__ import annotations

from collections.abc import Callable
from math import e, log2

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from tvmext.arch.cuda import WARP

from ..kernel.analysis import substitute
from ..kernel.attend import Attention, causal, mask
from ..kernel.contraction import size
from ..kernel.emit import (
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
    most,
)
from . import ptx
from .attention_choice import LEAST_STEPS, Decision, parts
from .attention_mask import Mask, Seen
from .attention_parts import Parts, Results
from .attention_tiles import UNROLLED, Products, cleared, unrolled
from .launch import Block, among, axes_at, launch, sync, when
from .reduce import FULL
from .tile import Loader, held

LOWEST = float("-inf")


class Builder:
    """One kernel under construction."""

    def __init__(self, found: Attention, plan: Decision, products: Products) -> None:
        self.found, self.plan, self.products = found, plan, products
        self.rows, self.keys = known(size(found.rows)), known(found.keys.extent)
        self.batch = known(size(found.batch))
        self.factor = tirx.const(found.scale * log2(e), "float32")
        self.highest = allocate([products.rows], "float32", "highest", "local")
        self.sums = allocate([products.rows], "float32", "sums", "local")
        tiles = (products.query, products.key, products.value)
        self.held = tuple(held(t, f"held_{n}") for t, n in zip(tiles, ("query", "key", "value")))
        self.asynchronous = any(tile.way == "async" for tile in tiles)
        self.steps = ceildiv(self.keys, plan.keys)
        self.results = Results(found, products.neighbours, self.factor)
        hides = mask(found)
        self.mask = None if hides is None else Mask(found, found.biased, products.beside)
        self.places = allocate([plan.stages], "int64", "places", "local")
        self.read = self.mask.registers(1) if self.mask is not None else []
        self.seen: Seen | None = None
        if hides is not None and products.bits is not None:
            whole = Mask(found, hides, ptx.CHUNK_BYTES)
            self.seen = Seen(whole, plan.rows, plan.keys, self.steps, plan.threads, products.bits)

    def launch(self) -> Stmt:
        """The kernel, and the one that joins its parts if there are parts."""
        tall = ceildiv(self.rows, self.plan.rows)
        blocks = known(tall * self.batch)
        cut = self._cut(blocks)
        left = None if cut == 1 else Parts(self.results, cut)

        def body(number: Expr, thread: Expr, _y: Expr) -> Stmt:
            rest, tile = among(number, tall)
            part, batch = among(rest, self.batch)
            return bind_each(
                axes_at(self.found.batch, batch),
                lambda at: bind(
                    tile * self.plan.rows,
                    lambda first: self._block(at, batch, first, cut, part, left, thread),
                    "first",
                    "local",
                ),
                "local",
            )

        product = launch(known(blocks * cut), Block(self.plan.threads), body)
        if left is not None:
            buffers = map(tirx.AllocBuffer, (left.values, left.ends))
            product = block(*buffers, product, left.launch())
        some = index(known(self.batch * self.rows)) > 0
        return when(some if not isinstance(blocks, int) else blocks > 0, product)

    def _cut(self, blocks: Size) -> Size:
        """Parts of the keys: `parts` of attention_choice.py, for sizes that may not be known."""
        wanted = self.plan.blocks
        if isinstance(blocks, int) and isinstance(self.steps, int):
            return parts(blocks, self.steps, wanted)
        fill = tirx.floordiv(index(wanted), index(blocks) + 1)
        return most(least(fill, index(self.steps) // LEAST_STEPS), 1)

    def _steps(self, first: Expr) -> Size:
        """Steps until the last key that a row of the tile sees."""
        hides = causal(self.found)
        if hides is None:
            return self.steps
        axis, ahead = hides
        extent, last = known(axis.extent), first + (self.plan.rows - 1)
        # A tile that goes over the end of the axis has its last row in it.
        same = among(first, extent)[0].equal(among(last, extent)[0])
        row = tirx.Select(same, among(last, extent)[1], index(extent) - 1)
        if self.found.rows[-1] is not axis:
            row = index(extent) - 1
        return ceildiv(least(row + (ahead + 1), self.keys), self.plan.keys)

    def _block(
        self,
        at: Values,
        batch: Expr,
        first: Expr,
        cut: Size,
        part: Expr,
        left: Parts | None,
        thread: Expr,
    ) -> Stmt:
        start: Expr = index(0)
        steps = self._steps(first)
        if left is not None:
            each = among(index(steps) + cut - 1, cut)[0]
            start = part * each
            steps = most(least(each, steps - start), 0)
        buffers = (*self.products.buffers, self.highest, self.sums, *self.held, *self.read)
        if self.seen is not None:
            buffers += (*self.seen.buffers, self.places)
        return block(
            *map(tirx.AllocBuffer, buffers),
            None if self.seen is None else self.seen.look(at, first, start, steps, thread),
            self._each_row(
                lambda r: block(
                    tirx.BufferStore(self.highest, self.found.lowest, [r]),
                    tirx.BufferStore(self.sums, tirx.const(0, "float32"), [r]),
                )
            ),
            cleared(self.products.totals),
            self._pipeline(at, first, start, steps, thread),
            self._leave(at, batch, first, part, left, thread),
        )

    # ---------------------------------------------------------------- steps

    def _pipeline(self, at: Values, first: Expr, start: Expr, steps: Size, thread: Expr) -> Stmt:
        """Step s is computed while those up to s + stages - 1 are on their way."""
        found, products, ahead = self.found, self.products, self.plan.stages - 1
        depth, width = known(found.depth.extent), known(found.width.extent)
        query = Loader(
            products.query, found.rows, (found.depth,), at, first, self.rows, depth, self.held[0]
        )
        close = ptx.commit() if self.asynchronous else None

        def arrive(groups: int) -> Stmt | None:
            return ptx.wait(groups) if self.asynchronous else None

        def loaders(key: Expr) -> list[tuple[Loader, Expr]]:
            """The keys and values from `key` on, and where the sum of each begins."""
            keys, values = ((found.keys,), (found.depth,)), ((found.width,), (found.keys,))
            return [
                (Loader(products.key, *keys, at, key, self.keys, depth, self.held[1]), index(0)),
                (
                    Loader(products.value, *values, at, index(0), width, self.keys, self.held[2]),
                    key,
                ),
            ]

        def issue(step: Expr, stage: Expr) -> list[Stmt]:
            key = (start + step) * self.plan.keys
            return [one.issue(stage, k, thread) for one, k in loaders(key)]

        seen, places = self.seen, self.places

        def place(i: int, number: Expr) -> Expr:
            """The step that is the `i`-th to be worked on from the `number`-th on."""
            return places[index(i)] if seen is not None else number + i

        def advance(i: int, step: Expr) -> Stmt:
            assert seen is not None
            return tirx.BufferStore(places, seen.next(step, steps), [index(i)])

        def begin() -> list[Stmt]:
            if seen is None:
                return []
            later = [advance(i, places[index(i - 1)] + 1) for i in range(1, ahead + 1)]
            return [advance(0, index(0)), *later]

        def go_on() -> list[Stmt]:
            if seen is None:
                return []
            shift = [
                tirx.BufferStore(places, places[index(i + 1)], [index(i)]) for i in range(ahead)
            ]
            return [*shift, advance(ahead, places[index(ahead)] + 1)]

        def deliver(stage: Expr) -> list[Stmt | None]:
            return [one.deliver(stage, thread) for one, _ in loaders(index(0))]

        def step(number: Expr) -> Stmt:
            current = tirx.truncmod(number, index(self.plan.stages))
            coming = tirx.truncmod(number + ahead, index(self.plan.stages))
            return block(
                arrive(ahead - 1),
                sync(),
                *issue(place(ahead, number), coming),
                close,
                self._step(at, first, (start + place(0, number)) * self.plan.keys, current, thread),
                *deliver(coming),
                *go_on(),
            )

        zero = index(0)
        before = [*begin(), query.issue(zero, zero, thread), query.deliver(zero, thread), close]
        for i in range(ahead):
            stage = index(i)
            before += [*issue(place(i, zero), stage), *deliver(stage), close]
        keep = products.keep_queries(thread)
        if keep is not None:
            before += [arrive(ahead), sync(), keep]
        count = steps if seen is None else seen.count(steps)
        return block(*before, loop(count, step, name="step"), arrive(0))

    def _step(self, at: Values, first: Expr, key: Expr, stage: Expr, thread: Expr) -> Stmt:
        return block(
            self.products.multiply_keys(stage, thread),
            self._bias(at, first, key, thread),
            self._softmax(),
            self.products.multiply_values(stage, thread),
        )

    def _bias(self, at: Values, first: Expr, key: Expr, thread: Expr) -> Stmt | None:
        """What is added to the scores or hides them; keys past the last are hidden."""
        found, products, keys = self.found, self.products, self.keys
        scores = products.scores
        hidden = tirx.const(LOWEST, "float32")
        plain = found.biased.same_as(found.score)
        whole = isinstance(keys, int) and keys % self.plan.keys == 0
        if plain and whole:
            return None

        reads = self.mask or Mask(found, found.biased, 1)
        side = reads.side

        def some(r: Expr, c: Expr) -> Stmt:
            """`side` keys next to each other."""
            j = key + products.key_at(c * side, thread)
            # A row past the last sees what the last one does.
            row = tirx.min(first + products.row(r, thread), index(self.rows) - 1)
            here = {**at, **axes_at(found.rows, row), found.keys.var: j}

            def one(v: Expr) -> Stmt:
                where = products.score(r, c * side + v)
                value: Expr = scores[where]
                if not plain:
                    biased = reads.at(self.read, 0, here, v)
                    value = substitute(biased, {found.score: value})
                if not whole:
                    value = tirx.if_then_else(j + v < index(keys), value, hidden)
                return tirx.BufferStore(scores, value, [where])

            read = reads.read(self.read, 0, here)
            if read is not None and not whole:
                read = when(j < index(keys), read)
            return block(read, loop(side, one, UNROLLED, "v"))

        code = unrolled((products.rows, products.keys // side), some)
        return when(key + self.plan.keys > index(keys), code) if plain else code

    def _softmax(self) -> Stmt:
        """Scores become weights relative to the largest so far; what was summed up follows it."""
        products = self.products
        scores, totals = products.scores, products.totals
        most_, ratio = (allocate([1], "float32", name, "local") for name in ("largest", "ratio"))
        zero = index(0)

        def weight(r: Expr, c: Expr) -> Stmt:
            at = products.score(r, c)
            power = ptx.exp2((scores[at] - self.highest[r]) * self.factor)
            return block(
                tirx.BufferStore(scores, power, [at]),
                tirx.BufferStore(self.sums, self.sums[r] + scores[at], [r]),
            )

        def largest(r: Expr, c: Expr) -> Stmt:
            value = tirx.max(most_[zero], scores[products.score(r, c)])
            return tirx.BufferStore(most_, value, [zero])

        def scale(r: Expr, c: Expr) -> Stmt:
            at = products.total(r, c)
            return tirx.BufferStore(totals, totals[at] * ratio[zero], [at])

        def row(r: Expr) -> Stmt:
            power = ptx.exp2((self.highest[r] - most_[zero]) * self.factor)
            return block(
                tirx.BufferStore(most_, self.highest[r], [zero]),
                loop(products.keys, lambda c: largest(r, c), UNROLLED, "c"),
                *self._joined(most_, zero, tirx.max),
                tirx.BufferStore(ratio, power, [zero]),
                tirx.BufferStore(self.highest, most_[zero], [r]),
                tirx.BufferStore(self.sums, self.sums[r] * ratio[zero], [r]),
                loop(products.columns, lambda c: scale(r, c), UNROLLED, "c"),
                loop(products.keys, lambda c: weight(r, c), UNROLLED, "c"),
            )

        return block(tirx.AllocBuffer(most_), tirx.AllocBuffer(ratio), self._each_row(row))

    def _joined(self, buffer: Expr, at: Expr, join: Callable[[Expr, Expr], Expr]) -> list[Stmt]:
        """Every thread of a row gets what all of them have."""
        mask, joins, bit = tirx.const(FULL, "uint32"), [], self.products.sharing // 2
        while bit:
            other = tirx.op.tvm_warp_shuffle_xor(mask, buffer[at], bit, WARP, WARP)
            joins.append(tirx.BufferStore(buffer, join(buffer[at], other), [at]))
            bit //= 2
        return joins

    def _each_row(self, body: Callable[[Expr], Stmt]) -> Stmt:
        return loop(self.products.rows, body, UNROLLED, "r")

    # ---------------------------------------------------------------- results

    def _leave(
        self,
        at: Values,
        batch: Expr,
        first: Expr,
        part: Expr,
        left: Parts | None,
        thread: Expr,
    ) -> Stmt:
        """Store results, or what the launch that joins the parts needs."""
        products, side = self.products, self.products.neighbours

        def value(r: Expr, c: Expr) -> Callable[[Expr], Expr]:
            return lambda v: products.totals[products.total(r, c * side) + v]

        def row(r: Expr) -> Stmt:
            number = first + products.row(r, thread)

            def each(body: Callable[[Expr, Expr], Stmt]) -> Stmt:
                """`body` for groups of columns: which they are, the first of them."""
                return loop(
                    products.columns // side,
                    lambda c: body(c, products.column(c * side, thread)),
                    UNROLLED,
                    "c",
                )

            def whole(c: Expr, column: Expr) -> Stmt:
                return self.results.store(at, number, column, value(r, c), self.sums[r])

            def some(to: Parts, line: Expr) -> Stmt:
                end = to.end(line, self.highest[r], self.sums[r])
                return block(
                    when(thread % products.sharing < 1, end),
                    each(lambda c, column: to.store(line, column, value(r, c))),
                )

            code = (
                each(whole)
                if left is None
                else left.line(part, batch, number, lambda line: some(left, line))
            )
            joins = self._joined(self.sums, r, lambda a, b: a + b)
            return block(*joins, when(number < index(self.rows), code))

        return self._each_row(row)
