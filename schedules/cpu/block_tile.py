"""Weights of a few bits in blocks as products read them: unpacked into a panel, or in registers.

In registers, for a few rows,

    y[r, n] = sum over b of  scale[n, b] * (sum over k in b of  x[r, k] * (bits[n, k] - zero[n, b]))
            = sum over b of  u scale[n, b] * (sum over k in b of  x[r, k] * (1 + bits[n, k] / u)
                                              - (1 + zero[n, b] / u) * sum over k in b of x[r, k])

with u = 2 ** (number of bits), where ``1 + bits / u`` is a float32 whose mantissa begins with the
bits: shifted there, no more. Where x is infinite, y is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.passes.quantized.block_weight import Blocks

from ..kernel.analysis import constant, substitute
from ..kernel.contraction import Contraction, size
from ..kernel.emit import (
    UNROLLED,
    Values,
    allocate,
    block,
    ceildiv,
    index,
    loop,
    ravel,
    unravel,
    vectors,
    zeros,
)
from ..kernel.packed_weight import MANTISSA, ONE
from ..rule import Layout
from .panel import Panel
from .tile import Ahead, RegisterTile, Shape, Sums


@dataclass(frozen=True, eq=False)
class LaidBlocks:
    """The arrays of a weight in panels ``[N / width, .., width]``: words, scales, zero points."""

    blocks: Blocks
    buffers: tuple[Var, ...]
    layouts: tuple[Layout, ...]
    zero: float | None
    """The zero point, if it is one number."""

    @staticmethod
    def of(blocks: Blocks, arrays: tuple[Var, ...], zero: float | None, width: int) -> LaidBlocks:
        buffers, layouts = [], []
        for array in arrays:
            depth, columns = (constant(n) or 0 for n in array.shape)
            shape = (-(-columns // width), depth, width)
            k, n = (Var(name, "int64") for name in "kn")
            layouts.append(Layout(tirx.IndexMap([k, n], [n // width, k, n % width], None), shape))
            buffers.append(tirx.decl_buffer(list(map(index, shape)), str(array.dtype), array.name))
        return LaidBlocks(blocks, tuple(buffers), tuple(layouts), zero)

    def words(self, panel: Panel, k: Expr, j: Expr) -> Expr:
        return self.buffers[0][panel.number, k, j]

    def scale(self, panel: Panel, b: Expr, j: Expr) -> Expr:
        return self.buffers[1][panel.number, b, j]

    def zero_at(self, panel: Panel, b: Expr, j: Expr) -> Expr:
        if self.zero is not None:
            return tirx.const(self.zero, "float32")
        return tirx.Cast("float32", self.buffers[2][panel.number, b, j])


@dataclass(frozen=True, eq=False)
class Unpack:
    """A panel unpacked inside the kernel, columns past the last one as zero."""

    laid: LaidBlocks
    shape: Shape
    buffer: Var

    @staticmethod
    def of(total: Contraction, shape: Shape, laid: LaidBlocks) -> Unpack:
        return Unpack(laid, shape, allocate([size(total.reduce), shape.cols], "float32", "panel"))

    def fill(self, panel: Panel) -> tirx.Stmt:
        blocks, laid = self.laid.blocks, self.laid
        mask = _word((1 << blocks.bits) - 1)

        def put(w: Expr, e: Expr, j: Expr) -> tirx.Stmt:
            place = tirx.Cast("uint32", e * blocks.bits)
            bits = tirx.bitwise_and(tirx.shift_right(laid.words(panel, w, j), place), mask)
            whole = tirx.Cast("float32", tirx.Cast("int32", bits))
            b = w // (blocks.size // blocks.in_word)
            real = (whole - laid.zero_at(panel, b, j)) * laid.scale(panel, b, j)
            return tirx.BufferStore(self.buffer, real, [w * blocks.in_word + e, j])

        def word(w: Expr) -> tirx.Stmt:
            return loop(
                blocks.in_word,
                lambda e: vectors(self.shape.vectors, self.shape.lanes, lambda j: put(w, e, j)),
                UNROLLED,
            )

        depth = constant(self.buffer.shape[0]) or 0
        return loop(depth // blocks.in_word, word, name="w")


@dataclass(frozen=True, eq=False)
class FewRows(RegisterTile):
    """Sums of a few rows, the weight made floats in registers; `level` as `levels` has it."""

    laid: LaidBlocks
    level: Var

    def _parts(self, _height: int) -> int:
        return 1

    def _reduce(
        self,
        parts: list[Sums],
        panel: Panel,
        _ranges: Mapping[Var, tuple[Expr, Expr]],
        _ahead: Ahead | None,
    ) -> tirx.Stmt:
        (sums,) = parts
        own = tuple(allocate(buffer.shape, "float32", "part") for buffer in sums.buffers)
        part = replace(sums, buffers=own)
        blocks = self.laid.blocks
        inside = blocks.size // blocks.in_word

        def one(b: Expr) -> tirx.Stmt:
            words = loop(inside, lambda w: self._word(part, panel, b * inside + w), name="w")
            scaled = (self._scaled(sums, part, n, panel, b) for n in range(len(own)))
            return block(self._clear(part), words, *scaled)

        return block(part.allocate(), loop(self.level.shape[1], one, name="b"))

    def _word(self, part: Sums, panel: Panel, w: Expr) -> tirx.Stmt:
        """Add the products with the elements of a word, one after another."""
        bits, (k,) = self.laid.blocks.bits, self.sum.reduce
        mask = _word(((1 << bits) - 1) << MANTISSA - bits)

        def step(e: int) -> tirx.Stmt:
            place = MANTISSA - bits - bits * e

            def add(buffer: Var, i: Expr, j: Expr, at: Values) -> tirx.Stmt:
                word = self.laid.words(panel, w, j)
                moved = word << _word(place) if place > 0 else word >> _word(-place)
                top = tirx.bitwise_or(tirx.bitwise_and(moved, mask), _word(ONE))
                here = {**at, **panel.at, k.var: w * self.laid.blocks.in_word + e}
                x = substitute(self.sum.lhs.value, here)
                value = buffer[i, j] + x * tirx.reinterpret("float32", top)
                return tirx.BufferStore(buffer, value, [i, j])

            return part.each(add)

        return block(*map(step, range(self.laid.blocks.in_word)))

    def _scaled(self, sums: Sums, part: Sums, number: int, panel: Panel, b: Expr) -> tirx.Stmt:
        """The sums of a block, scaled onto those of the row."""
        mine, theirs = (side.buffers[number] for side in (sums, part))
        first = sum(constant(other.shape[0]) or 0 for other in sums.buffers[:number])
        unit = float(1 << self.laid.blocks.bits)

        def add(buffer: Var, i: Expr, j: Expr, at: Values) -> tirx.Stmt:
            row = ravel([at[axis.var] for axis in self.sum.rows], [a.extent for a in self.sum.rows])
            middle = self.laid.zero_at(panel, b, j) * _float(1 / unit) + _float(1)
            found = theirs[i, j] - middle * self.level[row, b]
            scale = self.laid.scale(panel, b, j) * _float(unit)
            return tirx.BufferStore(buffer, buffer[i, j] + found * scale, [i, j])

        only = replace(sums, buffers=(mine,), row=lambda i: sums.row(i + first))
        return only.each(add)


def levels(total: Contraction, laid: LaidBlocks, most: int) -> tuple[Var, tirx.Stmt]:
    """``level[row, block]``, the sums of `lhs`, for at most so many rows; and what fills it."""
    (k,), length = total.reduce, laid.blocks.size
    level = allocate([most, ceildiv(size(total.reduce), length)], "float32", "level")

    def one(r: Expr, b: Expr) -> tirx.Stmt:
        def more(i: Expr) -> tirx.Stmt:
            at = {**unravel(r, total.rows), k.var: b * length + i}
            value = level[r, b] + substitute(total.lhs.value, at)
            return tirx.BufferStore(level, value, [r, b])

        return block(zeros(level, [r, b]), loop(length, more))

    count = level.shape[1]
    return level, loop(size(total.rows), lambda r: loop(count, lambda b: one(r, b), name="b"))


def _float(value: float) -> Expr:
    return tirx.const(value, "float32")


def _word(value: int) -> Expr:
    return tirx.const(value, "uint32")
