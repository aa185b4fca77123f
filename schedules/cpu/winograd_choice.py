"""What Winograd's method costs (winograd.py), and its decision: tiles, blocks, threads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

from tvmext.arch import CpuArch

from ..dispatch import WORST, Heights, mixture
from ..levels import (
    FAR_CYCLES,
    LOADS,
    STREAM_CYCLES,
    Product,
    product_cycles,
    register_tiles,
    streamed_cycles,
)
from ..rule import Matrix
from .gemm import PARALLEL_FLOPS, known_size
from .gemm_blocks import fetches_ahead
from .tile import Shape
from .winograd import FILTERS
from .winograd_tiles import Tiles, Windows

MOST_TILES = 14
"""Tiles in registers at once; they lie one after another, and so do not thrash a set of L1."""

MOST_MIXED = 8
"""Of the heights that are mixed where the number of tiles is not known, beside the highest one: a
third of the time is transforms, which take as long in tiles of any height."""

SPREAD = 1.25
"""How much longer than evenly spread blocks may take before panels are spread instead."""


@dataclass(frozen=True)
class Plan:
    """Winograd's method: `step` outputs along each dim, `tile.rows` tiles in registers at once."""

    step: int
    tile: Shape
    cycles: float


def best_plan(found: Windows, steps: Iterable[int], arch: CpuArch) -> Plan | None:
    """The plan of the least price among the filters `steps`; None without any."""
    every = (plan for step in steps for plan in plans(found, step, arch))
    return min(every, key=lambda plan: plan.cycles, default=None)


def plans(found: Windows, step: int, arch: CpuArch) -> list[Plan]:
    """A plan for each register tile; the transforms are priced by their vector operations.

    The last register tile is computed in full.
    """
    lanes, used = arch.vector_lanes("float32"), FILTERS[step]
    channels, columns = found.sizes
    dims = len(found.bounds)
    groups = known_size(found.total.batch) or 1
    tiles = Tiles(found, step).usual_count()
    points = used.size**dims

    def price(tile: tuple[int, int]) -> float:
        rows = ceil(tiles / tile[0]) * tile[0]
        work = Product(rows, columns, channels)
        return points * product_cycles(work, *tile, lanes, arch.fma_units)

    ends = 0.0
    vectors = (channels // found.chunk(lanes), ceil(columns / lanes))
    for count, matrix in zip(vectors, (used.inputs, used.outputs)):
        operations = 3 * points + _additions(matrix, dims)
        ends += tiles * count * operations / LOADS
    return [
        Plan(step, Shape(*tile, lanes), groups * (price(tile) + ends))
        for tile in register_tiles(arch.vector_registers, MOST_TILES)
    ]


def _additions(matrix: Matrix, dims: int) -> int:
    """Additions of a transform in `dims` dims."""
    lines = sum(sum(map(bool, row)) - 1 for row in matrix)
    outputs, inputs = len(matrix), len(matrix[0])
    return sum(lines * outputs**d * inputs ** (dims - 1 - d) for d in range(dims))


@dataclass(frozen=True)
class Decision:
    """How many outputs a tile has, the register tile, the blocks, and what runs in parallel."""

    step: int
    """Outputs of a tile along each dim: F(step, 3)."""
    tile: Shape
    """`rows` tiles by a panel of output channels."""
    block_tiles: int
    """Register tiles whose transformed input is kept in L2."""
    parallel: str
    """"none", "blocks" or "panels"."""
    ahead: int = 0
    """Register tiles that pass over a panel, if they fetch the next one into L2; else 0."""
    merged: int = 1
    """Groups that are taken together as one (conv_groups.py)."""
    heights: Heights = ()
    """Heights of register tiles, with their prices, if the number of tiles is not known."""

    manner = "winograd"


def decide(found: Windows, plan: Plan, arch: CpuArch) -> Decision:
    """Blocks that leave half of L2 to the weight, and feed the cores."""
    channels, columns = found.sizes
    points = FILTERS[plan.step].size ** len(found.bounds)
    depth, rows, width = points * channels, plan.tile.rows, plan.tile.cols
    tile_bytes = 4 * rows * points * (channels + width)
    most = max(1, arch.l2_bytes // 2 // tile_bytes)
    groups = known_size(found.total.batch) or 1
    tiles = known_size(Tiles(found, plan.step).axes)
    count = None if tiles is None else max(1, ceil(tiles / rows))
    blocks = 1 if count is None else ceil(count / most)
    flops = 2 * groups * depth * columns * rows * (count or most)
    parallel = "none"
    if arch.cores > 1 and flops >= PARALLEL_FLOPS:
        parallel = "panels"
        if 4 * depth * columns <= arch.l2_bytes:
            parallel, blocks = _spread(groups, count, blocks, arch.cores)
    block_tiles = most if count is None else ceil(count / blocks)
    ahead = block_tiles if fetches_ahead(depth, columns, width, arch) else 0
    decision = Decision(plan.step, plan.tile, block_tiles, parallel, ahead)
    if count is not None:
        return decision

    def price(height: int) -> float:
        stream = FAR_CYCLES if ahead and block_tiles == 1 else STREAM_CYCLES
        return streamed_cycles(height, plan.tile.vectors, arch.fma_units, channels, stream)

    among = {rows, *range(2, min(rows, MOST_MIXED) + 1)}
    heights = mixture(sorted(among), price, high=rows * most, worst=WORST)
    return replace(decision, heights=heights)


def _spread(groups: int, count: int | None, blocks: int, cores: int) -> tuple[str, int]:
    """What runs in parallel, and the number of blocks: blocks, if they come out nearly even."""
    if count is None:
        return "blocks", blocks
    shared = blocks if groups >= cores else ceil(blocks / cores) * cores
    height = ceil(count / shared)
    rounds = ceil(groups * ceil(count / height) / cores)
    even = rounds * height * cores <= SPREAD * groups * count
    return ("blocks", shared) if even else ("panels", blocks)
