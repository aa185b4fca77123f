"""Tiles for products of warpgroups, from the registers up, and what they cost.

instruction 64 x cols, sums in registers  ->  `groups` warpgroups, each with one instruction's rows
or two's  ->  block tile in shared memory, `stages` steps of the sum in flight, brought by a
warpgroup of its own  ->  grid, the sum cut into `splits` where there are few tiles
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from tvmext.arch import CudaArch, dtype_bits
from tvmext.arch.cuda import WARP

from . import mma_choice
from .mma_choice import (
    MOST_SUMS,
    STEP_CYCLES,
    ByRows,
    Workload,
    by_rows,
    cheapest,
    copy_cycles,
    product_cycles,
    resident,
    shared_out,
    unpack_cycles,
)
from .results import stage_bytes
from .waves import L2_BYTES_PER_CYCLE, LATENCY, SHARED_BYTES_PER_CYCLE, Cost

WARPGROUP = 4 * WARP
"""Threads that issue one instruction together."""
GROUP_ROWS = 64
"""Rows of one instruction."""
COLS = (32, 64, 128, 256)
"""Of 8, 16, ... 256 (PTX ISA, wgmma.mma_async) those whose quotients in the epilogue are shifts."""
ROW_BYTES = 128
"""The longest row of a swizzle."""
OTHER_REGISTERS = 40
"""Registers of a thread for descriptors and counters: operands are in shared memory."""
BARRIER_BYTES = 8


@dataclass(frozen=True)
class Decision:
    """A block's tile of rows x cols, computed by `groups` warpgroups and brought by one more.

    `depth` elements of the sum are a step; `stages` steps are in shared memory at a time. The sum
    is cut into `splits` parts that other blocks add up; or `stream` blocks share out the steps of
    all tiles, if that is not 0 (stream.py).
    """

    rows: int
    cols: int
    depth: int
    groups: int
    stages: int
    splits: int = 1
    stream: int = 0

    @property
    def blocks(self) -> int:
        """Instructions' rows that a warpgroup has."""
        return self.rows // (GROUP_ROWS * self.groups)

    @property
    def threads(self) -> int:
        return WARPGROUP * (self.groups + 1)

    @property
    def sums(self) -> int:
        """Registers of a thread that hold sums."""
        return self.blocks * GROUP_ROWS * self.cols // WARPGROUP

    @property
    def registers(self) -> int:
        return self.sums + OTHER_REGISTERS

    @property
    def barriers(self) -> int:
        """Bytes of barriers: per stage one that says full and one that says empty."""
        return 2 * self.stages * BARRIER_BYTES

    def shared(self, dtype: str) -> int:
        """Bytes of shared memory; the results take the place of the operands."""
        tiles = self.stages * (self.rows + self.cols) * self.depth * dtype_bits(dtype) // 8
        return max(tiles, stage_bytes(self.groups * 4, self.cols)) + self.barriers


def panel(row_bytes: int) -> int:
    """Bytes of the widest swizzle that rows are whole multiples of."""
    return next(width for width in (ROW_BYTES, 64, 32) if row_bytes % width == 0)


@cache
def choose(
    work: Workload, brought: tuple[int, int], arch: CudaArch
) -> Decision | mma_choice.Decision | ByRows:
    """The cheapest tiles, those of `mma.sync` among them; a kernel for few rows may have those.

    `brought` are the bytes of each operand that a copy brings, 0 if tensor maps do.
    """

    def best(sizes: Sequence[Workload]) -> Decision | mma_choice.Decision:
        wide = [replace(one, copies=brought) for one in sizes]
        found = cheapest(wide, candidates, price, arch)
        other = cheapest(sizes, mma_choice.candidates, mma_choice.price, arch)
        return found[1] if found[0] <= other[0] else other[1]

    return by_rows(work, best)


def candidates(arch: CudaArch, work: Workload) -> Iterator[Decision]:
    """What fits, with as many parts of the sum as could be worth it."""
    element = dtype_bits(work.dtype) // 8
    whole = ROW_BYTES if work.reduce is None else work.reduce * element
    depth = next(n for n in (32, 64, ROW_BYTES) if whole <= n or n == ROW_BYTES) // element
    for groups, blocks, cols, stages in product((1, 2), (1, 2), COLS, (2, 3, 4, 6)):
        tile = Decision(groups * blocks * GROUP_ROWS, cols, depth, groups, stages)
        if (
            tile.sums <= MOST_SUMS
            and tile.shared(work.dtype) <= arch.shared_per_block
            and tile.registers * tile.threads <= arch.registers_per_sm
        ):
            yield from shared_out(work, tile, arch)


def price(work: Workload, tile: Decision, arch: CudaArch) -> float:
    """Cycles of the whole product. Every instruction reads both operands from shared memory."""
    element = dtype_bits(work.dtype) / 8
    deep = tile.depth * element
    read = deep * (tile.rows + tile.rows // GROUP_ROWS * tile.cols)
    written = deep * (tile.rows + tile.cols)
    cost = Cost(
        (
            tile.rows * tile.cols * tile.depth / (arch.matrix_fma * 2 / element),
            (read + written) / SHARED_BYTES_PER_CYCLE,
            written / L2_BYTES_PER_CYCLE,
            copy_cycles(work, (tile.rows, tile.cols), tile.depth),
            unpack_cycles(work, tile.cols, tile.depth, arch),
        ),
        # While one warpgroup waits, another computes.
        (STEP_CYCLES / tile.groups, LATENCY / (tile.stages - 1)),
        # The map and the barriers come first.
        2 * LATENCY + tile.rows * tile.cols / WARP,
        resident(tile, work.dtype, arch),
    )
    return product_cycles(work, tile, cost, arch)
