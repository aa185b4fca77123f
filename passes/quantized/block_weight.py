"""Weights of a few bits in blocks along the sum, as kernels see them.

    real[k, n] = (bits[k, n] - zero[k // size, n]) * scale[k // size, n]

The bits of neighbours along the sum lie in a word of 32 bits, the first one lowest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir import Expr, Var

WORD = 32
WIDTHS = (2, 4, 8)
"""Bits of an element."""

_LARGEST_SCALE = np.finfo(np.float32).max / 256
"""Times a difference of two bytes it is finite."""


@dataclass(frozen=True)
class Blocks:
    """How many bits an element has, and how many elements share a scale and a zero point."""

    bits: int
    size: int

    @property
    def in_word(self) -> int:
        return WORD // self.bits

    def real(self, words: Var, scale: Var, zero: Var | float, k: Expr, n: Expr) -> Expr:
        """An element from uint32 ``words[k // in_word, n]`` and parameters ``[k // size, n]``.

        `zero` holds bytes, or is the one number that all of them are.
        """
        place = tirx.Cast("uint32", k % self.in_word * self.bits)
        mask = tirx.const((1 << self.bits) - 1, "uint32")
        bits = tirx.bitwise_and(tirx.shift_right(words[k // self.in_word, n], place), mask)
        whole = tirx.Cast("float32", tirx.Cast("int32", bits))
        return (whole - self.zero(zero, k // self.size, n)) * scale[k // self.size, n]

    @staticmethod
    def zero(zero: Var | float, block: Expr, n: Expr) -> Expr:
        if isinstance(zero, float):
            return tirx.const(zero, "float32")
        return tirx.Cast("float32", zero[block, n])


@dataclass(frozen=True, eq=False)
class Packed:
    """A weight: arrays as `Blocks.real` reads them; `zero` is a number where it is everywhere."""

    blocks: Blocks
    words: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | float

    @property
    def arrays(self) -> list[np.ndarray]:
        return [self.words, self.scale, *([] if isinstance(self.zero, float) else [self.zero])]


def packed(whole: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> Packed | None:
    """Integers [block, element, column], their zero points and scales [block, column].

    None if they have more than 8 bits, or blocks do not fill words, or if a real element may be no
    finite number: products take sums of a block before they are scaled.
    """
    count, size, columns = whole.shape
    if whole.size == 0 or not np.all(np.abs(scale) < _LARGEST_SCALE):
        return None
    least, most = int(whole.min()), int(whole.max())
    for bits in WIDTHS:
        moved = -(1 << bits - 1) if least < 0 else 0
        blocks = Blocks(bits, size)
        if moved <= least and most < moved + (1 << bits) and size % blocks.in_word == 0:
            break
    else:
        return None
    zeros = zero.astype(np.int64) - moved
    if zeros.min() < 0 or zeros.max() > 255:
        return None
    shape = (count * size // blocks.in_word, blocks.in_word, columns)
    places = np.arange(blocks.in_word, dtype=np.uint32)[:, None] * np.uint32(bits)
    unsigned = (whole.astype(np.int16) - moved).astype(np.uint32).reshape(shape)
    words = np.bitwise_or.reduce(unsigned << places, axis=1)
    same = np.all(zeros == zeros.flat[0])
    kept = float(zeros.flat[0]) if same else zeros.astype(np.uint8)
    return Packed(blocks, words, scale.astype(np.float32), kept)
