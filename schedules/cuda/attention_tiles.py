"""Both products of attention on a block's tiles: queries, and a ring of steps of keys and values.

    scores[r, c]  =  query(row r) . key(c)           registers of a thread, all keys of a step
    totals[r, e] += weights[r, c] * value(c, e)

A thread has `rows` rows of scores and of totals; the `sharing` neighbours in its warp that have the
same rows have the other keys and columns. Who has what is all that the softmax has to know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import ceil

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch.cuda import WARP

from ..kernel.analysis import Axis
from ..kernel.attend import Attention
from ..kernel.emit import allocate, block, index, loop
from . import ptx
from .attention_choice import PAD, Decision, Sizes
from .launch import sync
from .operand import Source, source
from .tile import Tile

UNROLLED = ForKind.UNROLLED
AT_ONCE = 4
"""Loads of fragments that are under way before the first is used."""


class Products:
    """What both kinds of products share: tiles, the registers of results, who has what."""

    rows: int
    """Rows of a thread."""
    keys: int
    """Keys of a thread in each step."""
    columns: int
    """Columns of a thread."""
    sharing: int
    neighbours: int
    """Columns of a thread that are side by side."""

    def __init__(self, found: Attention, plan: Decision, sizes: Sizes, copies: bool) -> None:
        self.found, self.plan, self.sizes = found, plan, sizes
        reads = operands(found)
        # One buffer: TVM moves no addresses when it lays several into one.
        total = plan.shared(sizes) // sizes.element
        self.buffer = allocate([total], sizes.dtype, "tiles", "shared.dyn")
        ring = plan.rows * sizes.depth_room
        values = ring + plan.stages * plan.keys * sizes.depth_room

        def tile(which: int, start: int, extent: int, depth: int, stages: int) -> Tile:
            read, across = reads[which], self._across(which, reads[which])
            if read.inward == across:
                read = replace(read, run=1)
            way = "direct" if read.run_bytes < 4 else "async" if copies else "held"
            return Tile(read, self.buffer, start, extent, depth, stages, plan.threads, way, across)

        self.query = tile(0, 0, plan.rows, sizes.depth_room, 1)
        self.key = tile(1, ring, plan.keys, sizes.depth_room, plan.stages)
        self.value = tile(2, values, sizes.width_room, plan.keys, plan.stages)

    def registers(self) -> None:
        self.scores = allocate([self.rows * self.keys], "float32", "scores", "local")
        self.totals = allocate([self.rows * self.columns], "float32", "totals", "local")

    def _across(self, which: int, read: Source) -> bool:
        """Whether rows of the tile of query, key or value run along the operand's own axes."""
        raise NotImplementedError

    @property
    def buffers(self) -> tuple[Var, ...]:
        return self.buffer, self.scores, self.totals

    def row(self, r: Expr, thread: Expr) -> Expr:
        """Which row of the tile is the thread's `r`-th."""
        raise NotImplementedError

    def key_at(self, c: Expr, thread: Expr) -> Expr:
        """Which key of the step is the thread's `c`-th."""
        raise NotImplementedError

    def column(self, c: Expr, thread: Expr) -> Expr:
        """Which column of the output is the thread's `c`-th."""
        raise NotImplementedError

    def score(self, r: Expr, c: Expr) -> Expr:
        """Where in `scores` a thread's score is."""
        raise NotImplementedError

    def total(self, r: Expr, c: Expr) -> Expr:
        """Where in `totals` a thread's result is."""
        raise NotImplementedError

    def keep_queries(self, thread: Expr) -> Stmt | None:
        """Take from the tile of queries what stays in registers."""
        return None

    def multiply_keys(self, stage: Expr, thread: Expr) -> Stmt:
        raise NotImplementedError

    def multiply_values(self, stage: Expr, thread: Expr) -> Stmt:
        raise NotImplementedError


def operands(found: Attention) -> tuple[Source, Source, Source]:
    """How queries, keys and values are read over rows and depth, keys and depth, width and keys."""

    def read(load: TensorLoad, own: tuple[Axis, ...], inner: Axis) -> Source:
        return source(load, found.batch, own, (inner,))

    return (
        read(found.query, found.rows, found.depth),
        read(found.key, (found.keys,), found.depth),
        read(found.value, (found.width,), found.keys),
    )


class MatrixProducts(Products):
    """By `mma` of halves. A score's two neighbours along the keys are weights of the next product.

    The results of m16n8 are, for a thread, rows t // 4 and t // 4 + 8, columns 2 * (t % 4) and the
    next; the left operand of m16n8k16 wants just these of two results side by side. So weights stay
    in registers (FlashAttention-2, arXiv 2307.08691).
    """

    sharing = 4
    neighbours = 2

    def __init__(
        self,
        found: Attention,
        plan: Decision,
        sizes: Sizes,
        copies: bool,
        multiply: ptx.Multiply,
    ) -> None:
        super().__init__(found, plan, sizes, copies)
        self.multiply = multiply
        self.high = plan.warp_rows // 16
        self.deep = ceil((found.depth.size or 0) / 16)
        self.wide = ceil((found.width.size or 0) / 16)
        self.rows, self.keys, self.columns = 2 * self.high, plan.keys // 4, 4 * self.wide
        kept = self.deep if plan.holds else 1
        self.left = allocate([kept * self.high * 4], "uint32", "left", "local")
        self.right = allocate([AT_ONCE * 4], "uint32", "right", "local")
        self.registers()

    @property
    def buffers(self) -> tuple[Var, ...]:
        return *super().buffers, self.left, self.right

    def _across(self, which: int, read: Source) -> bool:
        return not read.inward

    def row(self, r: Expr, thread: Expr) -> Expr:
        first = thread // WARP * self.plan.warp_rows
        return first + r // 2 * 16 + r % 2 * 8 + thread % WARP // 4

    def key_at(self, c: Expr, thread: Expr) -> Expr:
        return c // 2 * 8 + thread % 4 * 2 + c % 2

    column = key_at

    def score(self, r: Expr, c: Expr) -> Expr:
        return self._result(r, c, self.plan.keys // 8)

    def total(self, r: Expr, c: Expr) -> Expr:
        return self._result(r, c, self.wide * 2)

    @staticmethod
    def _result(r: Expr, c: Expr, wide: int) -> Expr:
        return (r // 2 * wide + c // 2) * 4 + r % 2 * 2 + c % 2

    def keep_queries(self, thread: Expr) -> Stmt | None:
        if not self.plan.holds:
            return None
        return loop(self.deep, lambda k: self._queries(k, k, thread), UNROLLED, "k")

    def _queries(self, k: Expr, slot: Expr, thread: Expr) -> Stmt:
        """Fragments of all rows of the warp for the `k`-th 16 of the depth."""
        first, lane = thread // WARP * self.plan.warp_rows, thread % WARP

        def one(i: Expr) -> Stmt:
            target = ptx.address(self.left, (slot * self.high + i) * 4)
            return self.query.fragment(target, index(0), first + i * 16, k * 16, lane, True)

        return loop(self.high, one, UNROLLED, "i")

    def _groups(
        self, count: int, load: Callable[[Expr, Expr], Stmt], use: Callable[[int, Expr], Stmt]
    ) -> Stmt:
        """`load` 16 columns each into `right`, `AT_ONCE` of them, then `use` 8 of them each."""
        parts = []
        for start in range(0, count, AT_ONCE):
            here = min(AT_ONCE, count - start)

            def fetch(j: Expr, start: int = start) -> Stmt:
                return load(j + start, ptx.address(self.right, j * 4))

            parts += [
                loop(here, fetch, UNROLLED, "j"),
                loop(here * 2, partial(use, start * 2), UNROLLED, "j"),
            ]
        return block(*parts)

    def multiply_keys(self, stage: Expr, thread: Expr) -> Stmt:
        wide, lane = self.plan.keys // 8, thread % WARP

        def step(k: Expr) -> Stmt:
            slot = k if self.plan.holds else index(0)

            def load(j: Expr, target: Expr) -> Stmt:
                return self.key.fragment(target, stage, j * 16, k * 16, lane, False)

            def use(start: int, j: Expr) -> Stmt:
                def one(i: Expr) -> Stmt:
                    return self.multiply(
                        ptx.address(self.scores, (i * wide + start + j) * 4),
                        ptx.address(self.left, (slot * self.high + i) * 4),
                        ptx.address(self.right, j * 2),
                    )

                return loop(self.high, one, UNROLLED, "i")

            queries = None if self.plan.holds else self._queries(k, slot, thread)
            return block(queries, self._groups(wide // 2, load, use))

        return block(cleared(self.scores), loop(self.deep, step, UNROLLED, "k"))

    def multiply_values(self, stage: Expr, thread: Expr) -> Stmt:
        wide, lane = self.plan.keys // 8, thread % WARP
        weights = allocate([self.high * 4], "uint32", "weights", "local")

        def step(k: Expr) -> Stmt:
            def pack(i: Expr) -> Stmt:
                results = ptx.address(self.scores, (i * wide + k * 2) * 4)
                return ptx.round_pairs(ptx.address(weights, i * 4), results, self.multiply.lhs)

            def load(j: Expr, target: Expr) -> Stmt:
                return self.value.fragment(target, stage, j * 16, k * 16, lane, False)

            def use(start: int, j: Expr) -> Stmt:
                def one(i: Expr) -> Stmt:
                    return self.multiply(
                        ptx.address(self.totals, (i * self.wide * 2 + start + j) * 4),
                        ptx.address(weights, i * 4),
                        ptx.address(self.right, j * 2),
                    )

                return loop(self.high, one, UNROLLED, "i")

            return block(loop(self.high, pack, UNROLLED, "i"), self._groups(self.wide, load, use))

        return block(tirx.AllocBuffer(weights), loop(wide // 2, step, UNROLLED, "k"))


class PlainProducts(Products):
    """By multiply-adds of float32; weights go from thread to thread through shared memory."""

    neighbours = 4

    def __init__(self, found: Attention, plan: Decision, sizes: Sizes, copies: bool) -> None:
        super().__init__(found, plan, sizes, copies)
        self.sharing = sizes.sharing
        self.apart = WARP // self.sharing
        self.rows = plan.warp_rows // self.apart
        self.keys = plan.keys // self.sharing
        self.columns = sizes.width_room // self.sharing
        self.pitch = plan.keys + PAD
        self.left = allocate([self.rows * 4], "float32", "left", "local")
        self.right = allocate([max(self.keys * 4, self.columns)], "float32", "right", "local")
        self.weights = plan.tiles(sizes) // sizes.element
        self.registers()

    @property
    def buffers(self) -> tuple[Var, ...]:
        return *super().buffers, self.left, self.right

    def _across(self, which: int, read: Source) -> bool:
        return which == 2

    def row(self, r: Expr, thread: Expr) -> Expr:
        first = thread // WARP * self.plan.warp_rows
        return first + r * self.apart + thread % WARP // self.sharing

    def key_at(self, c: Expr, thread: Expr) -> Expr:
        return c * self.sharing + thread % self.sharing

    def column(self, c: Expr, thread: Expr) -> Expr:
        return c // 4 * (4 * self.sharing) + thread % self.sharing * 4 + c % 4

    def score(self, r: Expr, c: Expr) -> Expr:
        return r * self.keys + c

    def total(self, r: Expr, c: Expr) -> Expr:
        return r * self.columns + c

    def _four(self, target: Var, start: Expr, at: Expr) -> Stmt:
        return ptx.load_four(ptx.address(target, start), ptx.address(self.buffer, at))

    def multiply_keys(self, stage: Expr, thread: Expr) -> Stmt:
        def step(k: Expr) -> Stmt:
            def query(r: Expr) -> Stmt:
                at = self.query.place(index(0), self.row(r, thread), k * 4)
                return self._four(self.left, r * 4, at)

            def key(c: Expr) -> Stmt:
                at = self.key.place(stage, self.key_at(c, thread), k * 4)
                return self._four(self.right, c * 4, at)

            def add(r: Expr, c: Expr, v: Expr) -> Stmt:
                at = self.score(r, c)
                term = self.left[r * 4 + v] * self.right[c * 4 + v]
                return tirx.BufferStore(self.scores, self.scores[at] + term, [at])

            return block(
                loop(self.rows, query, UNROLLED, "r"),
                loop(self.keys, key, UNROLLED, "c"),
                unrolled((self.rows, self.keys, 4), add),
            )

        chunks = ceil((self.found.depth.size or 0) / 4)
        return block(cleared(self.scores), loop(chunks, step, name="k"))

    def multiply_values(self, stage: Expr, thread: Expr) -> Stmt:
        def put(r: Expr, c: Expr) -> Stmt:
            where = self.weights + self.row(r, thread) * self.pitch + self.key_at(c, thread)
            return tirx.BufferStore(self.buffer, self.scores[self.score(r, c)], [where])

        def step(k: Expr) -> Stmt:
            def weight(r: Expr) -> Stmt:
                at = self.weights + self.row(r, thread) * self.pitch + k * 4
                return self._four(self.left, r * 4, at)

            def key(v: Expr) -> Stmt:
                def value(c: Expr) -> Stmt:
                    at = self.value.place(stage, k * 4 + v, self.column(c * 4, thread))
                    return self._four(self.right, c * 4, at)

                def add(r: Expr, c: Expr) -> Stmt:
                    at = self.total(r, c)
                    term = self.left[r * 4 + v] * self.right[c]
                    return tirx.BufferStore(self.totals, self.totals[at] + term, [at])

                return block(
                    loop(self.columns // 4, value, UNROLLED, "c"),
                    unrolled((self.rows, self.columns), add),
                )

            return block(loop(self.rows, weight, UNROLLED, "r"), loop(4, key, UNROLLED, "v"))

        return block(
            unrolled((self.rows, self.keys), put),
            sync(),
            loop(self.plan.keys // 4, step, name="k"),
        )


def cleared(buffer: Var) -> Stmt:
    zero = tirx.const(0, str(buffer.ty.dtype))
    return loop(int(buffer.shape[0]), lambda i: tirx.BufferStore(buffer, zero, [i]), UNROLLED, "i")


def unrolled(extents: tuple[int, ...], body: Callable[..., Stmt]) -> Stmt:
    """``body(i, j, ..)`` for every point, each a piece of code of its own."""
    if not extents:
        return body()
    first, *rest = extents
    return loop(first, lambda i: unrolled(tuple(rest), lambda *at: body(i, *at)), UNROLLED, "i")
