"""What matrix products may decide: register tiles, where operands stay, blocks, prefetching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from tvmext.arch import CpuArch, dtype_bits

from ..cost.terms import Terms, machine
from ..kernel.contraction import Contraction
from ..levels import (
    UNKNOWN_COLS,
    UNKNOWN_DEPTH,
    UNKNOWN_ROWS,
    Product,
    product_cycles,
    register_tiles,
)
from .dots import find_dot
from .gemm import Decision, Workload, decide, placed, register_units, variant
from .gemm_variants import Kept, candidates
from .tile import Shape, operations

MOST_TILES = 20
"""Tiles that are listed for a workload."""

FAR = 1.6
"""Times the least analytic price beyond which a tile is not worth a look: it errs less."""

VARIED = 3
"""Tiles whose other choices are varied as well."""

TALLEST = 14
"""Rows of a tile where their number is known."""

RHS = ("weight", "vectors", "memory", "sum")


class GemmChoices:
    """Candidates of `Gemm`."""

    def candidates(self, workload: Workload, arch: CpuArch) -> list[Decision]:
        picked = decide(workload, arch)
        if workload.rhs == "sum" or picked.others:
            return [picked]
        dot = picked.dot
        found = [picked, *_variants(workload, picked)]
        for number, shape in enumerate(_tiles(workload, arch)):
            one = placed(workload, shape, dot, arch)
            found += [one, *(_variants(workload, one) if number < VARIED else ())]
        return list(dict.fromkeys(found))

    def terms(self, workload: Workload, decisions: Sequence[Decision], arch: CpuArch) -> Terms:
        dot = find_dot(workload.types, arch)
        _, steps, _ = register_units(workload.dtype, workload.reduce, dot, arch)
        product = Product(workload.rows, workload.cols, steps)
        batch, depth = workload.batch or 1, workload.reduce or UNKNOWN_DEPTH
        item = 1 if dot else dtype_bits(workload.dtype) // 8
        sizes = (workload.batch, workload.rows, workload.cols, workload.reduce)
        units = [arch.fmas_per_cycle(_bits(d.tile, workload.dtype)) for d in decisions]
        return Terms.of(
            **tile_columns([d.tile for d in decisions]),
            **{**machine(arch), "units": units},
            family=0,
            batch=batch,
            rows=workload.rows if workload.rows is not None else UNKNOWN_ROWS,
            cols=workload.cols if workload.cols is not None else UNKNOWN_COLS,
            depth=depth,
            pitch=depth * item,
            item=item,
            rhs=RHS.index(workload.rhs),
            epilogue=epilogue(workload.contraction),
            free=sum(size is None for size in sizes),
            step=[1 if d.dot is None else d.dot.step for d in decisions],
            packs=[d.rhs == "pack" for d in decisions],
            block=[d.block_tiles for d in decisions],
            ahead=[d.ahead > 0 for d in decisions],
            parallel=[d.parallel for d in decisions],
            cycles=[
                batch * product_cycles(product, d.tile.rows, d.tile.vectors, d.tile.lanes, u)
                for d, u in zip(decisions, units)
            ],
        )


def each_alone(workload: Workload, picked: Decision, arch: CpuArch) -> list[Decision]:
    """A decision for each variant of which `picked` has the best few: that one for all sizes."""
    bare = replace(picked, others=())
    every = (Kept(*one, rows=0, cols=0) for one in candidates(workload, arch))
    return [variant(workload, bare, one, arch) for one in every]


def _tiles(work: Workload, arch: CpuArch) -> list[Shape]:
    """Register tiles by their price, those that are far from the best left out."""
    dot = find_dot(work.types, arch)
    widths, steps, registers = register_units(work.dtype, work.reduce, dot, arch)
    product = Product(work.rows, work.cols, steps)
    tallest = 8 if work.rows is None else TALLEST
    return nearest(
        (product_cycles(product, rows, vectors, lanes, units), Shape(rows, vectors, lanes))
        for lanes, units in widths
        for rows, vectors in fitting_tiles(product, registers, lanes, tallest)
    )


def fitting_tiles(
    product: Product, registers: int, lanes: int, tallest: int
) -> Iterator[tuple[int, int]]:
    """The register tiles that a product of that size fills."""
    for rows, vectors in register_tiles(registers, tallest):
        wide = product.cols is not None and (vectors - 1) * lanes >= max(product.cols, 1)
        tall = product.rows is not None and rows > max(product.rows, 1)
        if not wide and not tall:
            yield rows, vectors


def nearest(priced: Iterator[tuple[float, Shape]]) -> list[Shape]:
    """The cheapest of (price, tile), no more than `FAR` times as dear as the first."""
    ordered = sorted(priced, key=lambda one: one[0])[:MOST_TILES]
    return [shape for price, shape in ordered if price <= FAR * ordered[0][0]]


def _variants(work: Workload, decision: Decision) -> Iterator[Decision]:
    """The same tile with one of the other choices made differently."""
    if decision.rhs == "pack" and work.rhs == "vectors" and decision.dot is None:
        if work.cols is not None and work.cols >= decision.tile.cols:
            yield replace(decision, rhs="in place")
    elif decision.rhs == "in place":
        yield replace(decision, rhs="pack", block_tiles=0)
    if decision.rhs == "weight" and work.rows is not None:
        tiles = -(-work.rows // decision.tile.rows)
        if decision.ahead:
            yield replace(decision, ahead=0)
        elif tiles > 1:
            yield replace(decision, ahead=decision.block_tiles or tiles)
        for count in {-(-tiles // 4), -(-tiles // 2)} - {tiles, decision.block_tiles, 0}:
            yield replace(decision, block_tiles=count, ahead=min(decision.ahead, count))


def _bits(shape: Shape, dtype: str) -> int:
    return shape.lanes * dtype_bits(dtype)


def tile_columns(tiles: Sequence[Shape]) -> dict[str, list[int]]:
    """The columns of register tiles."""
    return {
        "tile_rows": [tile.rows for tile in tiles],
        "vectors": [tile.vectors for tile in tiles],
        "lanes": [tile.lanes for tile in tiles],
    }


@lru_cache(maxsize=4)  # every candidate asks
def epilogue(found: Contraction) -> int:
    """Vector operations on a result after its sum."""
    return sum(operations(out.value) for out in found.outputs)
