"""A weight of a few bits in blocks (passes/quantized) as the right operand of a contraction."""

from __future__ import annotations

from dataclasses import dataclass

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad, Var

from tvmext.passes.quantized.block_weight import WIDTHS, WORD, Blocks

from .analysis import analyzer, collect, constant
from .contraction import Contraction

MANTISSA, ONE = 23, 0x3F800000
"""Bits of the mantissa of a float32, and those of 1.0: bits of an element become its first ones."""


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """``arrays``: words ``[K / in_word, N]``, scales and perhaps zero points ``[K / size, N]``."""

    blocks: Blocks
    arrays: tuple[Var, ...]
    zero: float | None
    """The zero point, if it is one number."""


def packed_weight(found: Contraction) -> PackedWeight | None:
    """The second operand, if it is unpacked from words where it is read."""
    value = found.rhs.value
    while isinstance(value, tirx.Cast):
        value = value.value
    loads = collect(value, TensorLoad)
    if len(found.cols) != 1 or len(found.reduce) != 1 or found.batch or len(loads) not in (2, 3):
        return None
    (col,), (step,) = found.cols, found.reduce
    words, *zeros, scale = (load.source for load in loads)
    if len({words, scale, *zeros}) != len(loads) or str(words.dtype) != f"uint{WORD}":
        return None
    if any(len(array.shape) != 2 for array in (words, scale, *zeros)):
        return None
    depths = [constant(array.shape[0]) for array in (words, scale, *zeros)]
    if not col.size or not step.size or not all(n and step.size % n == 0 for n in depths):
        return None
    in_word, length = (step.size // (n or 1) for n in depths[:2])
    bits = WORD // in_word
    if bits not in WIDTHS or length % in_word:
        return None
    blocks, numbers = Blocks(bits, length), collect(value, tirx.FloatImm)
    zero: Var | float = zeros[0] if zeros else float(numbers[0].value) if len(numbers) == 1 else 0.0
    ana = analyzer((col, step))
    expected = blocks.real(words, scale, zero, step.var, col.var)
    if not tvm_ffi.structural_equal(
        ana.simplify(expected), ana.simplify(value), map_free_vars=False
    ):
        return None
    return PackedWeight(blocks, (words, scale, *zeros), zero if isinstance(zero, float) else None)
