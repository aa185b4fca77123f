"""Register tiles of a matrix product, from the bottom of the memory levels up, and their price.

Only what the register file allows is a candidate: a tile of `rows` x `vectors` needs its sums, one
row of `vectors` and one broadcast element in registers (Vortex, arXiv 2409.01075, section 4, keeps
the same rule at its lowest level). Pure arithmetic: no TVM here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd, inf
from typing import Any, TypeVar

Choice = TypeVar("Choice")
Larger = Callable[[Any, Any], Any]

FMA_LATENCY = 4
"""Cycles from one FMA to a dependent one: Skylake and later, Zen 2 and later, Neoverse N1, V1."""

LOADS = 2
"""Vector loads per cycle on the same machines."""

PANEL_CYCLES = 0.1
"""Cycles that a vector from L2 costs beside the arithmetic, at 64 bytes a cycle mostly hidden."""

STREAM_CYCLES = 2.3
"""Cycles that a vector from L2 takes where no arithmetic hides it: 28 bytes a cycle were measured,
of the 64 that machines with 64-byte vectors have at their best."""

FAR_CYCLES = 6.4
"""The same from L3, at 10 bytes a cycle (price.py)."""

MOST_ROWS = 8
"""Rows of a tile: where they are a power of two apart they compete for one set of L1, of 8 ways
on x86 since Nehalem (12 since Ice Lake), and a tile that does not fit there loads every element
from L2."""

NARROW_GAIN = 0.95
"""The share of the price of full vectors below which half as wide ones are worth their loads."""

UNKNOWN_ROWS, UNKNOWN_COLS, UNKNOWN_DEPTH = 128, 768, 256
"""Sizes that tiles are priced at when they are known at run time only: many, and round."""

UNKNOWN_SIDE = 56
"""The side of an image that is known at run time only."""


LINE_BYTES, PAGE_BYTES = 64, 4096
"""Sets of an L1 cache are chosen by the offset in a page, so that it needs no translated address
(Intel 248966, section 2.2; AMD 56665, section 2.6): addresses a page apart compete for one set."""


@dataclass(frozen=True)
class Product:
    """A matrix product as prices see it; None is a size known at run time only."""

    rows: int | None
    cols: int | None
    reduce: int | None


def register_tiles(registers: int, max_rows: int = MOST_ROWS) -> Iterator[tuple[int, int]]:
    """Every (rows, vectors) that leaves a register for the broadcast element."""
    for vectors in range(1, 9):
        for rows in range(1, max_rows + 1):
            if rows * vectors + vectors + 1 <= registers:
                yield rows, vectors


def tile_cycles(rows: int, vectors: int, fma_units: int) -> float:
    """Cycles of one step of k: bound by the FMA units, by loads, or by the latency of the sums.

    Every vector of the panel also comes from L2 once a step, which is not quite hidden.
    """
    chains = rows * vectors
    bound = max(chains / fma_units, (rows + vectors) / LOADS, FMA_LATENCY / 2 if chains < 4 else 0)
    return bound + PANEL_CYCLES * vectors


def streamed_cycles(
    rows: int,
    vectors: int,
    fma_units: int,
    depth: int,
    stream: float = STREAM_CYCLES,
    split: bool = True,
) -> float:
    """Cycles of a tile of any height, low ones too, which wait for their panel or for themselves.

    A vector of the panel takes `stream` cycles to come. Sums that are not `split` into several
    depend on each other from step to step.
    """
    chains = FMA_LATENCY if not split else FMA_LATENCY / 2 if rows * vectors < FMA_LATENCY else 0
    step = max(tile_cycles(rows, vectors, fma_units), stream * vectors, chains)
    return depth * step + 2 * rows * vectors + 12


def product_cycles(product: Product, rows: int, vectors: int, lanes: int, fma_units: int) -> float:
    """Cycles of the whole product in tiles of nearly equal height and full panels.

    A tile also pays for clearing its sums and for its epilogue, which is about one pass more over
    them, so that short sums prefer large tiles. In a last panel that is not full the sums take
    another pass, through memory.
    """
    width = vectors * lanes
    panels = -(-(UNKNOWN_COLS if product.cols is None else product.cols) // width)
    total = UNKNOWN_ROWS if product.rows is None else product.rows
    count = -(-total // rows)
    if count == 0 or panels == 0:
        return 0.0
    depth = UNKNOWN_DEPTH if product.reduce is None else product.reduce
    base, extra = divmod(total, count)
    cost = 0.0
    for height, number in ((base + 1, extra), (base, count - extra)):
        steps = depth * tile_cycles(height, vectors, fma_units)
        cost += number * (steps + 2 * height * vectors + 12)
    ragged = 0 if product.cols is None or product.cols % width == 0 else 2 * total * vectors
    return panels * cost + ragged


SCALE = 20
"""Prices at run time are in twentieths of a cycle: whole numbers."""

PACKED = 5
"""Cycles that a vector of an operand costs to be packed."""

PANEL_MEMORY = 200
"""Cycles to have memory for panels and to give it back (60 ns)."""

PAGE_ELEMENTS = PAGE_BYTES // 4

PAGES_IN_PLACE = 2048
"""Pages that make a vector of an operand read in place dearer by a cycle: as many as a second level
of address translation holds (1536 to 3072 since Skylake and Zen)."""

TURNED = 16
"""Cycles that a vector costs to be packed whose elements are not side by side."""


def unknown_cycles(
    sizes: tuple[Any, Any, Any], tile: tuple[int, int, int], packed: int, units: int, larger: Larger
) -> Any:
    """The price of a product of `sizes` (rows, columns, steps), in ``1 / SCALE`` cycles.

    As `product_cycles`, in whole numbers and for panels whose last one is as narrow as need be, in
    tiles of (rows, vectors, lanes). `packed` is what a vector costs to be packed, 0 reads in place,
    where every step of the sum may be on a page of its own that other tiles come back to.
    Sizes are numbers, arrays of them or expressions of a kernel; `larger` is their maximum.
    """
    rows, columns, depth = sizes
    height, vectors, lanes = tile
    count = (rows + (height - 1)) // height
    pitch = columns + PAGE_ELEMENTS - larger(columns, PAGE_ELEMENTS)
    again = SCALE * packed
    if not packed:
        again = depth * pitch * SCALE // (PAGE_ELEMENTS * PAGES_IN_PLACE) * (count - 1)

    def panel(across: Any) -> Any:
        step = larger(SCALE * across * rows // units, (rows + across * count) * SCALE // LOADS)
        step = step + across * (SCALE // 10) * count + across * again
        return depth * step + count * (12 * SCALE) + (2 * SCALE) * across * rows

    width = vectors * lanes
    rest = columns % width
    some = (rest + (width - 1)) // width
    once = PANEL_MEMORY * SCALE if packed else 0
    return columns // width * panel(vectors) + some * panel((rest + (lanes - 1)) // lanes) + once


def best_tile(
    product: Product, lanes: int, registers: int, fma_units: int, max_rows: int = MOST_ROWS
) -> tuple[int, int]:
    """The (rows, vectors) of the least price; the larger tile among equals."""
    best, price = (1, 1), inf
    for rows, vectors in register_tiles(registers, max_rows):
        if product.cols is not None and (vectors - 1) * lanes >= max(product.cols, 1):
            continue
        if product.rows is not None and rows > max(product.rows, 1):
            continue
        cycles = product_cycles(product, rows, vectors, lanes, fma_units)
        if cycles < price or (cycles == price and rows * vectors > best[0] * best[1]):
            best, price = (rows, vectors), cycles
    return best


def widest(candidates: Sequence[tuple[Choice, float]]) -> Choice:
    """The first of (choice, price) unless a later one, for narrower vectors, gains something."""
    (best, price), *others = candidates
    for choice, cycles in others:
        if cycles < NARROW_GAIN * price:
            best, price = choice, cycles
    return best


def rows_in_l1(pitch: int, l1_bytes: int) -> int:
    """Rows `pitch` bytes apart that L1 holds a line of each of, one way left for what passes by."""
    ways = l1_bytes // PAGE_BYTES
    return max(1, ways - 1) * (PAGE_BYTES // gcd(pitch, PAGE_BYTES))
