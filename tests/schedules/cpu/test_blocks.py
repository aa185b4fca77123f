"""Products with packed weights on every kind of machine, and where they are left to others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tvm import te

from tests.schedules.cpu.kernels import ARCH, composed, normal, run
from tests.schedules.packed import product, weight
from tvmext.arch import FAMILIES, CpuArch
from tvmext.passes.quantized.block_products import unpacking_product
from tvmext.passes.quantized.block_weight import Packed
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.blocks import FEW_ROWS, TILE_ROWS, Decision
from tvmext.schedules.layout import relayout
from tvmext.schedules.select import select

RUNNABLE = (ARCH, *(replace(FAMILIES[f"x86-64-v{n}"], cores=1) for n in (2, 3)))


def decided(one: Packed, rows: int | str, arch: CpuArch = ARCH) -> Decision:
    _, selection = select(product(one, rows), arch, RULES)
    assert selection.rule == "blocks"
    return selection.decision


@pytest.mark.parametrize(
    ("bits", "arch"),
    [(2, ARCH), (8, ARCH), *((4, arch) for arch in RUNNABLE)],
    ids=lambda value: getattr(value, "family", value),
)
def test_any_rows(bits: int, arch: CpuArch) -> None:
    one, real = weight(bits)
    made = product(one, "n")
    result, selection = select(made, arch, RULES)
    assert selection.rule == "blocks"
    laid = [relayout(array, result.layouts[i + 1]) for i, array in enumerate(one.arrays)]
    for rows in (0, 1, FEW_ROWS // 2, FEW_ROWS // 2 + 1):
        x = normal(2, rows, len(real))
        names = dict(zip(("x0", "x1", "x2", "x3"), [x, *laid]))
        (y,) = run(result.func, names, arch)
        wanted = x @ real * 2 + x[:, :, :1]
        bound = 1e-5 * np.abs(wanted).max(initial=1)
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=bound)


def test_what_is_known_of_rows_decides_what_is_compiled() -> None:
    one, _ = weight(4)
    few, many, free = decided(one, 1), decided(one, 40), decided(one, "n")
    assert (few.few is None, few.many is None) == (False, True)
    assert (many.few is None, many.many is None) == (True, False)
    assert free.few is not None and free.many is not None
    assert free.few.cols == free.many.cols
    assert free.few.rows == TILE_ROWS


@pytest.mark.parametrize("family", FAMILIES)
def test_tiles_fit_the_registers(family: str) -> None:
    arch = FAMILIES[family]
    tile = decided(weight(4, columns=512)[0], 100, arch).many
    assert tile is not None
    assert tile.rows * tile.vectors + tile.vectors + 1 <= arch.vector_registers


def test_must_not_fire_on_data() -> None:
    """A weight that only the run knows cannot be laid out."""
    made = product(weight(4)[0], 3)
    _, selection = select(replace(made, constant_args=frozenset({2, 3})), ARCH, RULES)
    assert selection.rule != "blocks"


def test_must_not_fire_on_other_arithmetic() -> None:
    one, _ = weight(4)
    other = replace(one, blocks=replace(one.blocks, bits=2))
    depth = len(one.words) * one.blocks.in_word
    inputs = [((3, depth), "float32")]
    inputs += [(array.shape, str(array.dtype)) for array in one.arrays]

    def build(x: te.Tensor, *arrays: te.Tensor) -> te.Tensor:
        return unpacking_product(other, x, *arrays)

    made = replace(composed(build, *inputs), constant_args=frozenset({1, 2, 3}))
    _, selection = select(made, ARCH, RULES)
    assert selection.rule != "blocks"
