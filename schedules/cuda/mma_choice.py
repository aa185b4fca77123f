"""Tiles for warp-level matrix instructions, from the registers up, and what they cost.

instruction 16 x 8  ->  warp tile in registers  ->  block tile in shared memory, `stages` steps
of the sum in flight  ->  grid, the sum itself cut into `splits` where there are few tiles
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import ceil, log
from typing import Any, TypeVar

from tvmext.arch import CudaArch, dtype_bits
from tvmext.arch.cuda import STATIC_SHARED, WARP

from .ptx import CHUNK_BYTES, STEP_BYTES
from .results import stage_bytes
from .stream import LEAST_STEPS, shares
from .waves import (
    L2_BYTES_PER_CYCLE,
    LATENCY,
    SHARED_BYTES_PER_CYCLE,
    Cost,
    Tiling,
    grid_cycles,
    overlapped,
    stream_cycles,
)

T = TypeVar("T")
Shared = TypeVar("Shared", bound=Any)

UNKNOWN_ROWS = (16, 64, 256, 1024, 4096)
"""What rows are taken for that are known at run time only: a choice has to be good for all."""
FEW = 128
"""Up to as many rows have a kernel of their own where they are not known."""
UNKNOWN_COLS, UNKNOWN_DEPTH, UNKNOWN_BATCH = 1024, 1024, 1
"""What other sizes are taken for that are not known."""
FEW_WAVES = 4
"""Waves of tiles from which on their steps are not shared out."""
LAID_OVER = 16
"""TVM lays a buffer over one that is less than so many times larger (its StorageRewrite)."""
MOST_SUMS = 128
"""Sums that a thread keeps; half of its registers, the rest holds fragments and addresses."""
OTHER_REGISTERS = 64
"""Registers of a thread for addresses and loop counters."""
COPY_CYCLES = 4
"""What a warp's copy instruction takes: 512 bytes to memory of 128 bytes per cycle."""
DIRECT = 8
"""Instructions, in those of copies, for up to 4 bytes that travel by themselves: their index is
worked out each time."""
UNPACK = 2
"""Instructions for an element of a few bits, to take it out and to scale it (gemv_blocks.py)."""
STEP_CYCLES = 40
"""An estimate of what a barrier and a wait cost a block at each step of the sum."""
MMA_SYNC_SHARE = 0.63
"""Of the rate of wgmma, what `mma.sync` reaches on sm_90: somewhat over 60% (Luo et al.,
Benchmarking and Dissecting the Nvidia Hopper GPU Architecture, arXiv 2402.13499)."""
FRAGMENT_CYCLES = 30
"""About what a load from shared memory takes (28 for Volta's, same source)."""


@dataclass(frozen=True)
class Workload:
    """Sizes of a product; None where they are known at run time only.

    `copies` are the bytes of each operand that travel at a time. `least_rows` is what rows come to
    if all that is not known of them is 1. `unpacks`: elements of the right operand are worked out
    of a few bits each.
    """

    batch: int | None
    rows: int | None
    cols: int | None
    reduce: int | None
    dtype: str
    copies: tuple[int, int]
    least_rows: int = 1
    unpacks: bool = False


@dataclass(frozen=True)
class Decision:
    """A block's tile of rows x cols, of which each warp has `warp_rows` x `warp_cols`.

    `depth` elements of the sum are a step; `stages` steps are in shared memory at a time. The sum
    is cut into `splits` parts that other blocks add up; or `stream` blocks share out the steps of
    all tiles, if that is not 0 (stream.py).
    """

    rows: int
    cols: int
    depth: int
    warp_rows: int
    warp_cols: int
    stages: int
    splits: int = 1
    stream: int = 0

    @property
    def warps(self) -> tuple[int, int]:
        return self.rows // self.warp_rows, self.cols // self.warp_cols

    @property
    def threads(self) -> int:
        high, wide = self.warps
        return high * wide * WARP

    @property
    def sums(self) -> int:
        """Registers of a thread that hold sums."""
        return self.warp_rows * self.warp_cols // WARP

    def tiles(self, dtype: str) -> int:
        """Bytes of shared memory for the operands."""
        return self.stages * (self.rows + self.cols) * self.depth * dtype_bits(dtype) // 8

    @property
    def results(self) -> int:
        """Bytes of shared memory for the results."""
        high, wide = self.warps
        return stage_bytes(high * wide, self.warp_cols)

    def shared(self, dtype: str) -> int:
        """Bytes of shared memory; the results take the place of the operands."""
        return max(self.tiles(dtype), self.results)

    @property
    def registers(self) -> int:
        fragments = (self.warp_rows // 16 + self.warp_cols // 16) * 4
        return self.sums + fragments + OTHER_REGISTERS


@dataclass(frozen=True)
class ByRows:
    """Two kernels, told apart when they are launched: `few` takes up to `limit` rows."""

    limit: int
    few: Any
    many: Any


@cache
def choose(work: Workload, arch: CudaArch) -> Decision | ByRows:
    """The cheapest of the candidates, or one for few rows and one for many."""

    def best(sizes: Sequence[Workload]) -> Decision:
        return cheapest(sizes, candidates, price, arch)[1]

    return by_rows(work, best)


def by_rows(work: Workload, best: Callable[[Sequence[Workload]], T]) -> T | ByRows:
    """What `best` finds for the rows, or for few and for many where they are not known."""
    if work.rows is not None:
        return best([work])
    usual = [replace(work, rows=max(rows, work.least_rows)) for rows in UNKNOWN_ROWS]
    few, many = (
        [one for one in usual if ((one.rows or 0) <= FEW) == kind] for kind in (True, False)
    )
    if not few:
        return best(many)
    tiles = best(few), best(many)
    return tiles[0] if tiles[0] == tiles[1] else ByRows(FEW, *tiles)


def cheapest(
    sizes: Sequence[Workload],
    candidates: Callable[[CudaArch, Workload], Iterable[T]],
    price: Callable[[Workload, T, CudaArch], float],
    arch: CudaArch,
) -> tuple[float, T]:
    """The least product of prices over `sizes`, which differ in rows alone: (its log, whose)."""

    def logarithm(decision: T) -> float:
        return sum(log(price(one, decision, arch)) for one in sizes)

    # The sum is cut into parts for rows that are known.
    work = sizes[0] if len(sizes) == 1 else replace(sizes[0], rows=None)
    prices = [(logarithm(one), one) for one in candidates(arch, work)]
    return min(prices, key=lambda pair: pair[0])


def candidates(arch: CudaArch, work: Workload) -> Iterator[Decision]:
    """What fits, with as many parts of the sum as could be worth it."""
    for tile in _tiles(arch, work.dtype):
        if work.rows is not None or _holds_addresses(tile, work.dtype, arch):
            yield from shared_out(work, tile, arch)


def _holds_addresses(tile: Decision, dtype: str, arch: CudaArch) -> bool:
    """Whether a thread has registers for 64 bits of address for each copy that it makes in a step.

    It keeps them where sizes are not known: what is added to them in a step is the same for all.
    """
    step = (tile.rows + tile.cols) * tile.depth * dtype_bits(dtype) // 8
    copies = step // CHUNK_BYTES // tile.threads
    return tile.registers + 2 * copies <= arch.registers_per_thread


@cache
def _tiles(arch: CudaArch, dtype: str) -> tuple[Decision, ...]:
    """Warp tiles that fit in registers, blocks of 1 to 8 of them, stages that fit in memory."""
    found = []
    element = dtype_bits(dtype) // 8
    stages = (2, 3, 4) if arch.has_async_copy else (2,)
    limit = arch.shared_per_block if arch.has_async_copy else STATIC_SHARED
    for high, wide in product((16, 32, 64), (16, 32, 64, 128)):
        for across, along in product((1, 2, 4), (1, 2, 4)):
            for step, stage in product((STEP_BYTES * 2, STEP_BYTES * 4), stages):
                tile = Decision(high * across, wide * along, step // element, high, wide, stage)
                if (
                    tile.sums <= MOST_SUMS
                    and 2 * WARP <= tile.threads <= 8 * WARP
                    and tile.shared(dtype) <= limit
                    and tile.tiles(dtype) < LAID_OVER * tile.results
                    and tile.registers * tile.threads <= arch.registers_per_sm
                ):
                    found.append(tile)
    return tuple(found)


def shared_out(work: Workload, tile: Shared, arch: CudaArch) -> Iterator[Shared]:
    """The tile with its sum in one piece, cut into parts, and shared out among blocks that stay."""
    for splits in split_counts(work, tile, arch):
        yield replace(tile, splits=splits)
    for blocks in stream_counts(work, tile, arch):
        yield replace(tile, stream=blocks)


def stream_counts(work: Workload, tile: Tiling, arch: CudaArch) -> Iterator[int]:
    """A block for each multiprocessor, or as many as it has room for, where tiles leave some idle.

    Of many waves the last, which is not full, is a small part.
    """
    if work.reduce is None or work.reduce < tile.depth * LEAST_STEPS:
        return
    for blocks in sorted({arch.sms, arch.sms * resident(tile, work.dtype, arch)}):
        tiles = _blocks(work, tile)
        if work.rows is None or (tiles % blocks and tiles < FEW_WAVES * blocks):
            yield blocks


def split_counts(work: Workload, tile: Tiling, arch: CudaArch) -> Iterator[int]:
    """1, and powers of two while there are idle multiprocessors and work enough for each part."""
    yield 1
    if work.rows is None or work.reduce is None:
        return
    steps = work.reduce // tile.depth
    splits = 2
    while splits * 4 <= steps and _blocks(work, tile) * splits <= 2 * arch.sms:
        yield splits
        splits *= 2


def _blocks(work: Workload, tile: Tiling) -> int:
    rows, cols, batch = _sizes(work)
    return -(-rows // tile.rows) * -(-cols // tile.cols) * batch


def parts(work: Workload, tile: Tiling) -> float:
    """Blocks for each tile."""
    return tile.stream / max(1, _blocks(work, tile)) if tile.stream else tile.splits


def _sizes(work: Workload) -> tuple[int, int, int]:
    pairs = (
        (work.rows, max(UNKNOWN_ROWS[-1], work.least_rows)),
        (work.cols, UNKNOWN_COLS),
        (work.batch, UNKNOWN_BATCH),
    )
    rows, cols, batch = (unknown if n is None else n for n, unknown in pairs)
    return rows, cols, batch


def price(work: Workload, tile: Decision, arch: CudaArch) -> float:
    """Cycles of the whole product."""
    element = dtype_bits(work.dtype) / 8
    rate = arch.matrix_fma * 2 / element * (MMA_SYNC_SHARE if arch.has_wgmma else 1)
    if arch.has_wgmma and work.dtype.startswith("float8"):
        rate /= 2  # made halves first: sm_90 has no such instruction for a warp (its machine code)
    high, wide = tile.warps
    moved = tile.depth * element * (tile.rows * (wide + 1) + tile.cols * (high + 1))
    cost = Cost(
        (
            tile.rows * tile.cols * tile.depth / rate,
            moved / SHARED_BYTES_PER_CYCLE,
            tile.depth * element * (tile.rows + tile.cols) / L2_BYTES_PER_CYCLE,
            copy_cycles(work, (tile.rows, tile.cols), tile.depth),
            unpack_cycles(work, tile.cols, tile.depth, arch),
        ),
        (
            STEP_CYCLES + FRAGMENT_CYCLES * tile.depth * element / STEP_BYTES,
            LATENCY / (tile.stages - 1),
        ),
        LATENCY + tile.rows * tile.cols / WARP,
        resident(tile, work.dtype, arch),
    )
    return product_cycles(work, tile, cost, arch)


def unpack_cycles(work: Workload, cols: int, depth: int, arch: CudaArch) -> float:
    """Of the arithmetic that a step's part of a packed operand takes."""
    return cols * depth * UNPACK / arch.fp32_fma if work.unpacks else 0.0


def copy_cycles(work: Workload, extents: tuple[int, int], depth: int) -> float:
    """Of the copy instructions for a step; an operand that no thread copies has 0 bytes a copy."""
    element = dtype_bits(work.dtype) / 8
    copies = sum(
        extent * depth * element / CHUNK_BYTES * _slowness(size)
        for extent, size in zip(extents, work.copies)
        if size
    )
    return copies / WARP * COPY_CYCLES


def product_cycles(work: Workload, tile: Tiling, cost: Cost, arch: CudaArch) -> float:
    """Cycles of all blocks; device memory, the operands and the results are a bound."""
    rows, cols, batch = _sizes(work)
    tiles = max(1, _blocks(work, tile))
    element = dtype_bits(work.dtype) / 8
    depth = UNKNOWN_DEPTH if work.reduce is None else work.reduce
    steps = ceil(depth / tile.depth)
    if tile.stream:
        shared = shares(tiles, steps, tile.stream)
        total = stream_cycles(shared, steps, cost, arch)
        parts = shared.pieces(steps) * tile.rows * tile.cols
    else:
        total = grid_cycles(tiles * tile.splits, ceil(steps / tile.splits), cost, arch)
        parts = rows * cols * batch * tile.splits if tile.splits > 1 else 0
    operands = (rows * depth + cols * depth) * element * batch
    results = rows * cols * batch * element
    speed = arch.dram_gb_s / arch.ghz
    memory = (operands + (0 if tile.splits > 1 else results) + 4 * parts) / speed
    # Adding up the parts is a kernel of its own, which reads them again.
    return overlapped([total, memory]) + (LATENCY * 3 + 4 * parts / speed if parts else 0)


def _slowness(size: int) -> float:
    """Instructions for what one copy of `CHUNK_BYTES` does."""
    return CHUNK_BYTES / size * (1 if size >= 8 else DIRECT)


def resident(tile: Tiling, dtype: str, arch: CudaArch) -> int:
    """Blocks that a multiprocessor has room for."""
    return max(
        1,
        min(
            arch.shared_per_sm // tile.shared(dtype),
            arch.threads_per_sm // tile.threads,
            arch.registers_per_sm // (tile.registers * tile.threads),
        ),
    )
