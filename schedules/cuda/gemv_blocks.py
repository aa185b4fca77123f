"""A product with few rows by a weight of a few bits in blocks, which is unpacked in registers.

    y[r, n] = sum over units of  u scale[n] * (sum over k of  x[r, k] * (1 + bits[n, k] / u)
                                               - (1 + zero[n] / u) * sum over k of x[r, k])

with u = 2 ** (number of bits), where ``1 + bits / u`` is a float32 whose mantissa begins with the
bits: shifted there, no more. A unit is a step of the sum: words of one block, 16 bytes of each row
of them for a thread. Where x is infinite, y is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from ..kernel.analysis import substitute
from ..kernel.contraction import Contraction, known_size
from ..kernel.emit import Values, allocate, block, index, loop
from ..kernel.packed_weight import MANTISSA, ONE, PackedWeight
from .gemv_kernel import LOADS, Builder, Decision, Thin, unrolled
from .launch import axes_at, when
from .operand import source
from .ptx import CHUNK_BYTES

WORD_BYTES = 4


@dataclass(frozen=True)
class ThinPacked(Thin):
    """As `Thin`; steps of the sum are units of `loads` words."""

    weight: PackedWeight = field(kw_only=True, repr=False, compare=False)


def packed(found: Contraction, weight: PackedWeight) -> ThinPacked:
    """The product of a contraction with a packed weight; its rows are known and few."""
    rows, cols, reduce = (known_size(axes) for axes in (found.rows, found.cols, found.reduce))
    assert rows is not None and cols is not None and reduce is not None
    blocks = weight.blocks
    run, words = CHUNK_BYTES // WORD_BYTES, blocks.size // blocks.in_word
    while cols % run:
        run //= 2
    while words > LOADS:
        words = words // 2 if words % 2 == 0 else 1
    small, large = (
        source(operand.value, (), own, found.reduce)
        for operand, own in ((found.lhs, found.rows), (found.rhs, found.cols))
    )
    units = reduce // (words * blocks.in_word)
    return ThinPacked(
        1, rows, cols, units, run, False, "rhs", found, (small, large), words, weight=weight
    )


class BlockBuilder(Builder):
    """One kernel under construction."""

    def __init__(self, work: ThinPacked, plan: Decision) -> None:
        super().__init__(work, plan)
        assert work.reduce is not None
        self.weight, self.depth = work.weight, work.reduce
        self.in_word = work.weight.blocks.in_word
        run, deep = work.run, self.deep
        words, _, *zeros = work.weight.arrays
        self.left = allocate([work.rows * self.in_word], self.small.dtype, "left", "local")
        self.right = allocate([deep * work.loads * run], str(words.dtype), "right", "local")
        self.scale = allocate([deep * run], "float32", "scale", "local")
        self.zeros = [allocate([deep * run], str(zero.dtype), "zero", "local") for zero in zeros]
        self.part = allocate([work.rows * run], "float32", "part", "local")
        self.level = allocate([work.rows], "float32", "level", "local")
        self.registers = [self.sums, self.total, self.left, self.right, self.scale, *self.zeros]
        self.registers += [self.part, self.level]

    def _ask(self, at: Values, own: Expr, k: Expr, u: Expr) -> Stmt:
        """Load the words of a unit, the scale and the zero point; zeros past the ends."""
        count, run = self.work.loads, self.work.run
        words, *others = self.weight.arrays
        per_block = self.weight.blocks.size // self.in_word // count
        inside = tirx.And(k < index(self.depth), own < index(self.cols))

        def vector(target: Var, array: Var, row: Expr, place: Expr) -> Stmt:
            def put(v: Expr) -> Stmt:
                return tirx.BufferStore(target, array[row, own + v], [place * run + v])

            def nothing(v: Expr) -> Stmt:
                none = tirx.const(0, str(target.ty.dtype))
                return tirx.BufferStore(target, none, [place * run + v])

            there = loop(run, put, ForKind.VECTORIZED, "v")
            return when(inside, there, loop(run, nothing, ForKind.UNROLLED, "v"))

        return block(
            loop(
                count,
                lambda w: vector(self.right, words, k * count + w, u * count + w),
                ForKind.UNROLLED,
                "w",
            ),
            *(
                vector(target, array, k // per_block, u)
                for target, array in zip((self.scale, *self.zeros), others)
            ),
        )

    def _add(self, at: Values, k: Expr, u: Expr) -> Stmt:
        rows, run, count = self.work.rows, self.work.run, self.work.loads

        def clear(buffer: Var, size: int) -> Stmt:
            zero = tirx.const(0, "float32")
            return loop(size, lambda i: tirx.BufferStore(buffer, zero, [i]), ForKind.UNROLLED)

        unit = block(
            clear(self.part, rows * run),
            clear(self.level, rows),
            loop(count, lambda w: self._word(at, k * count + w, u * count + w), ForKind.UNROLLED),
            unrolled((rows, run), lambda m, c: self._scaled(u, m, c)),
        )
        return when(k < index(self.depth), unit)

    def _word(self, at: Values, k: Expr, place: Expr) -> Stmt:
        """Products with the elements of a word of each column; `place` is where the words are."""
        rows, run, bits = self.work.rows, self.work.run, self.weight.blocks.bits
        mask = _word(((1 << bits) - 1) << MANTISSA - bits)
        runs = self.small.run if self.small.inward else 1
        piece = min(runs, self.in_word)
        last = self.sum.reduce[-1].var

        def load(m: Expr, i: Expr) -> Stmt:
            start = k * self.in_word + i * piece
            values = {**at, **axes_at(self.rows_axes, m), **axes_at(self.sum.reduce, start)}

            def put(v: Expr) -> Stmt:
                x = substitute(self.small.value, {**values, last: values[last] + v})
                where = m * self.in_word + i * piece + v
                return tirx.BufferStore(self.left, x, [where])

            return loop(piece, put, ForKind.VECTORIZED if piece > 1 else ForKind.UNROLLED, "v")

        def add(m: Expr, e: int) -> Stmt:
            shift = MANTISSA - bits - bits * e
            x = tirx.Cast("float32", self.left[m * self.in_word + e])

            def column(c: Expr) -> Stmt:
                word = self.right[place * run + c]
                moved = word << _word(shift) if shift > 0 else word >> _word(-shift)
                top = tirx.bitwise_or(tirx.bitwise_and(moved, mask), _word(ONE))
                where = m * run + c
                value = self.part[where] + x * tirx.reinterpret("float32", top)
                return tirx.BufferStore(self.part, value, [where])

            level = tirx.BufferStore(self.level, self.level[m] + x, [m])
            return block(level, loop(run, column, ForKind.UNROLLED, "c"))

        def row(m: Expr) -> Stmt:
            return block(*(add(m, e) for e in range(self.in_word)))

        return block(
            unrolled((rows, self.in_word // piece), load), loop(rows, row, ForKind.UNROLLED, "m")
        )

    def _scaled(self, u: Expr, m: Expr, c: Expr) -> Stmt:
        """The sum of a unit, scaled onto that of the row."""
        unit = float(1 << self.weight.blocks.bits)
        zero = (
            tirx.const(self.weight.zero, "float32")
            if self.weight.zero is not None
            else tirx.Cast("float32", self.zeros[0][u * self.work.run + c])
        )
        middle = zero * tirx.const(1 / unit, "float32") + tirx.const(1, "float32")
        where = m * self.work.run + c
        found = self.part[where] - middle * self.level[m]
        scale = self.scale[u * self.work.run + c] * tirx.const(unit, "float32")
        return tirx.BufferStore(self.sums, self.sums[where] + found * scale, [where])


def _word(value: int) -> Expr:
    return tirx.const(value, "uint32")
