"""Products with weights of a few bits in blocks, as kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tvm import te

from tests.schedules.cpu.kernels import composed
from tvmext.passes.quantized.block_products import unpacking_product
from tvmext.passes.quantized.block_weight import Packed, packed
from tvmext.schedules.rule import Kernel


def weight(
    bits: int, depth: int = 64, columns: int = 70, block: int = 32
) -> tuple[Packed, np.ndarray]:
    """A packed weight with zero points, and the numbers that it stands for."""
    rng = np.random.default_rng(bits)
    count = depth // block
    whole = rng.integers(0, 1 << bits, (count, block, columns))
    zero = rng.integers(0, 1 << bits, (count, columns))
    scale = rng.uniform(0.5, 1.5, (count, columns))
    found = packed(whole, zero, scale)
    assert found is not None and found.blocks.bits == bits
    real = (whole - zero[:, None]) * scale[:, None]
    return found, real.reshape(depth, columns)


def product(one: Packed, rows: int | str, dtype: str = "float32") -> Kernel:
    """``2 x @ weight + x[.., 0]``: something is computed after."""
    depth = len(one.words) * one.blocks.in_word
    inputs = [((2, rows, depth), dtype)]
    inputs += [(array.shape, str(array.dtype)) for array in one.arrays]

    def build(x: te.Tensor, *arrays: te.Tensor) -> te.Tensor:
        y = unpacking_product(one, x, *arrays)

        def wide(value: Any) -> Any:
            return value.astype("float32")

        return te.compute(y.shape, lambda b, i, j: y[b, i, j] * 2.0 + wide(x[b, i, 0]), "after")

    made = composed(build, *inputs)
    return replace(made, constant_args=frozenset(range(1, len(inputs))))
