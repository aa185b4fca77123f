"""Both products of attention by multiply-adds of float32."""

from __future__ import annotations

from math import ceil

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from tvmext.arch.cuda import WARP

from ..kernel.attend import Attention
from ..kernel.emit import allocate, block, index, loop
from . import ptx
from .attention_choice import PAD, Decision, Sizes
from .attention_tiles import UNROLLED, Products, cleared, unrolled
from .launch import sync
from .operand import Source


class PlainProducts(Products):
    """By multiply-adds of float32; weights go from thread to thread through shared memory."""

    neighbours = 4
    beside = 1

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
