"""Both products of attention by matrix instructions; weights never leave the registers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from tvmext.arch.cuda import WARP

from ..kernel.attend import Attention
from ..kernel.emit import allocate, block, index, loop
from . import ptx
from .attention_choice import Decision, Sizes
from .attention_tiles import UNROLLED, Products, cleared
from .operand import Source

AT_ONCE = 4
"""Loads of fragments that are under way before the first is used."""


class MatrixProducts(Products):
    """By `mma` of halves. A score's two neighbours along the keys are weights of the next product.

    The results of m16n8 are, for a thread, rows t // 4 and t // 4 + 8, columns 2 * (t % 4) and the
    next; the left operand of m16n8k16 wants just these of two results side by side. So weights stay
    in registers (FlashAttention-2, arXiv 2307.08691).
    """

    sharing = 4
    neighbours = 2
    beside = 2

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
