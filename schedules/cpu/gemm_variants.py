"""Products whose sizes are known at run time only: which tiles are kept, and the choice of one.

An operand that is not a weight may be read in place, which few rows want, or packed, which many do;
its last panel is as narrow as its columns allow. What is kept is a question of dispatch.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from tvmext.arch import CpuArch, dtype_bits

from ..dispatch import FAR, bends, fewest, grid
from ..kernel.choice import pick
from ..kernel.emit import Size, index
from ..kernel.ranges import Span
from ..levels import (
    PACKED,
    TURNED,
    UNKNOWN_COLS,
    UNKNOWN_DEPTH,
    UNKNOWN_ROWS,
    register_tiles,
    unknown_cycles,
)
from .tile import Shape

if TYPE_CHECKING:
    from .gemm import Decision, Workload

Variant = tuple[Shape, str]


@dataclass(frozen=True)
class Kept:
    """A variant, and the least rows and columns at which it is the cheapest one."""

    tile: Shape
    rhs: str
    rows: int
    cols: int


WORST = 1.5
"""How much dearer than the best a product may be at some size: variants are much code."""

NOT_PRICED = 4096
"""Multiplications that take no longer than the choice of a variant, some 40 ns of one core."""

NEAR = 1.2
"""How much wider than a panel of free width its tile may be: each width is code of its own."""

LEAST_BITS = 128
"""The narrowest vectors of all instruction sets."""

DEPTHS = (1, 8, 64, 512, 4096, 32768)
"""Steps of the sum that unknown ones are taken for, on a scale: they weigh what is done once."""


def variants(workload: Workload, arch: CpuArch) -> tuple[Kept, ...]:
    """Tiles and how the second operand is read: the best one for all sizes first."""
    lanes = arch.vector_lanes(workload.dtype)
    known = (workload.rows, workload.cols, workload.reduce)
    return _kept(known, workload.spans, workload.rhs, lanes, arch.vector_registers, arch.fma_units)


def candidates(workload: Workload, arch: CpuArch) -> Iterator[Variant]:
    """All of which `variants` are the fewest that are needed."""
    lanes = arch.vector_lanes(workload.dtype)
    known = (workload.rows, workload.cols, workload.reduce)
    return _candidates(known, workload.rhs, lanes, arch.vector_registers)


@cache
def _kept(
    known: tuple[int | None, int | None, int | None],
    spans: tuple[Span, Span],
    rhs: str,
    lanes: int,
    registers: int,
    units: int,
) -> tuple[Kept, ...]:
    every = list(_candidates(known, rhs, lanes, registers))
    heights = {tile.rows for tile, _ in every}
    rows, cols = spans
    ranges = (bends(heights, *rows), bends(range(lanes, 6 * lanes, lanes), *cols), DEPTHS)
    sizes = grid([own if n is None else [n] for own, n in zip(ranges, known)])

    def price(variant: Variant) -> np.ndarray:
        return _price(variant, sizes, rhs, units)

    kept = fewest(every, price, worst=WORST)
    best = np.argmin([price(variant) for variant in kept], axis=0)

    def least(number: int, axis: int) -> int:
        return int(sizes[axis][best == number].min(initial=FAR))

    return tuple(Kept(*one, least(n, 0), least(n, 1)) for n, one in enumerate(kept))


def _candidates(
    known: tuple[int | None, ...], rhs: str, lanes: int, registers: int
) -> Iterator[Variant]:
    rows, cols, _ = known
    for height, vectors in register_tiles(registers):
        wide = cols is not None and (vectors - 1) * lanes >= max(cols, 1)
        if wide or (rows is not None and height > max(rows, 1)):
            continue
        tile = Shape(height, vectors, lanes)
        yield tile, "pack"
        if rhs == "vectors" and (cols is None or cols >= tile.cols):
            yield tile, "in place"


def _price(variant: Variant, sizes: Sequence[np.ndarray], rhs: str, units: int) -> np.ndarray:
    tile, how = variant
    rows, columns, depth = sizes
    found: np.ndarray = unknown_cycles(
        (rows, columns, depth),
        (tile.rows, tile.vectors, tile.lanes),
        _packing(how, rhs),
        units,
        np.maximum,
    )
    return found


def prices_at(
    decisions: Sequence[Decision], sizes: Sequence[np.ndarray], rhs: str, units: int
) -> list[np.ndarray]:
    """What each decision costs at the sizes: rows, columns and steps of the sum."""
    return [_price((one.tile, one.rhs), sizes, rhs, units) for one in decisions]


def known_prices(workload: Workload, ways: Iterable[Variant], arch: CpuArch) -> list[float]:
    """What each way costs at the sizes that are known and usual ones for the others."""
    known = (workload.rows, workload.cols, workload.reduce)
    usual = (UNKNOWN_ROWS, UNKNOWN_COLS, UNKNOWN_DEPTH)
    sizes = [np.array([other if n is None else n]) for n, other in zip(known, usual)]
    return [float(_price(way, sizes, workload.rhs, arch.fma_units)[0]) for way in ways]


def narrower(shape: Shape, dtype: str, arch: CpuArch) -> list[Shape]:
    """Tiles for panels that are not full, the narrowest first: fewer vectors, and half as wide ones
    where those are as many multiplications a cycle, so that half of one need not be wasted."""
    half, bits = shape.lanes // 2, shape.lanes * dtype_bits(dtype)
    found = [Shape(shape.rows, vectors, shape.lanes) for vectors in range(1, shape.vectors)]
    if bits // 2 >= LEAST_BITS and arch.fmas_per_cycle(bits // 2) > arch.fmas_per_cycle(bits):
        found += [
            Shape(shape.rows, vectors, half)
            for vectors in range(1, 2 * shape.vectors, 2)
            if shape.rows * vectors + vectors < arch.vector_registers
        ]
    return sorted(found, key=lambda one: one.cols)


def apart(shapes: Sequence[Shape], widest: Shape, least: int) -> list[Shape]:
    """Those of `shapes`, the narrowest first, that the last panel of free width needs.

    The next one takes the columns of one that is left out: of all columns, which are `least` or
    more, it takes at most `NEAR` times as many. The widest takes all panels but the last.
    """
    kept = [widest]
    for one in reversed(shapes):
        whole = 0 if one.cols >= least else -(-(least - one.cols) // widest.cols) * widest.cols
        if whole + kept[-1].cols > NEAR * (whole + one.cols):
            kept.append(one)
    return kept[:0:-1]


def _packing(how: str, rhs: str) -> int:
    if how == "in place":
        return 0
    return PACKED if rhs == "vectors" else TURNED


def chosen(
    decisions: Sequence[Decision],
    sizes: tuple[Size, Size, Size, Size],
    rhs: str,
    units: int,
    bodies: Sequence[tirx.Stmt],
) -> tirx.Stmt:
    """The body of the decision whose price is the least at `sizes`, when the kernel runs.

    Sizes are the batch, rows, columns and steps of the sum. Those for few steps (`up_to`) have no
    price.
    """
    batch, rows, columns, depth = (index(n) for n in sizes)

    def price(decision: Decision) -> Expr:
        tile = decision.tile
        shape = (tile.rows, tile.vectors, tile.lanes)
        packed = _packing(decision.rhs, rhs)
        found: Expr = unknown_cycles((rows, columns, depth), shape, packed, units, _larger)
        return found

    priced = [(one, body) for one, body in zip(decisions, bodies) if not one.up_to]
    prices = [price(one) for one, _ in priced]
    picked = pick(prices, [body for _, body in priced], rows * columns * depth <= NOT_PRICED)
    for one, body in zip(decisions, bodies):
        if one.up_to:
            steps = batch * rows * ((columns + (one.tile.lanes - 1)) // one.tile.lanes) * depth
            picked = tirx.IfThenElse(steps <= one.up_to, body, picked)
    return picked


def _larger(a: Size, b: Size) -> Size:
    return tirx.max(index(a), index(b))
