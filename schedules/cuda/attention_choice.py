"""Tiles of attention, from the registers up, and what they cost.

rows of a warp in registers  ->  rows of a block, a step of keys and values in shared memory, more
of them on their way  ->  grid, the keys cut into parts where there are few blocks
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import ceil, log

from tvmext.arch import CudaArch, dtype_bits
from tvmext.arch.cuda import STATIC_SHARED, WARP

from .mma_choice import COPY_CYCLES, STEP_CYCLES
from .ptx import CHUNK_BYTES
from .waves import L2_BYTES_PER_CYCLE, LATENCY, SHARED_BYTES_PER_CYCLE, overlapped

UNKNOWN_ROWS = (1, 16, 128, 512, 2048)
"""What rows are taken for that are known at run time only: a choice has to be good for all."""
FEW = 16
"""Up to as many rows have a kernel of their own where they are not known."""
UNKNOWN_KEYS, UNKNOWN_BATCH = 1024, 16
FILL = 2
"""Blocks per multiprocessor below which the keys are cut into parts."""
LEAST_STEPS = 2
"""Steps of keys that a part has at the least."""
PAD = 4
"""Numbers between rows of weights in shared memory: rows of a warp's stores hit other banks."""
MASK_STEPS = 4096
"""Bits for steps of keys that a mask leaves to a block: of more steps several share one."""
MASK_BYTES = MASK_STEPS // 8 + CHUNK_BYTES
"""Of shared memory: the bits, and a word that says that all steps are seen."""
LOOKS = 3
"""Times that a block waits for the mask before it begins: rows, steps, another look at these."""
SEEN = 3 / 4
"""What a mask leaves of the steps, one that is causal leaving half and padding more: a guess."""
EXPONENTIALS = 16
"""Of a multiprocessor per cycle (CUDA C++ Programming Guide, Arithmetic Instructions)."""
OTHER_REGISTERS = 40
"""Registers of a thread for addresses, loop counters, the state of the softmax."""
CHAIN = 300
"""Cycles from one product to the other: a fragment, a product, two shuffles, an exponential, each
some 30 after the one before, twice. An estimate."""
WORK = 8
"""Instructions of float32 for each score: largest, difference, factor, sum, rounding."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of attention; None where they are known at run time only.

    `matrices`: the products are done by matrix instructions. `masked`: there is a mask that only
    the run knows.
    """

    batch: int | None
    rows: int | None
    keys: int | None
    depth: int
    width: int
    dtype: str
    matrices: bool
    masked: bool = False

    @property
    def element(self) -> int:
        """Bytes of an element of the tiles."""
        return dtype_bits(self.dtype) // 8

    @property
    def sharing(self) -> int:
        """Threads that have parts of the same rows: as many as 16 bytes of a row each fill."""
        if self.matrices:
            return 4
        return 16 if self._filled(16) <= self._filled(8) else 8

    def _filled(self, sharing: int) -> int:
        return ceil(self.width / (4 * sharing)) * 4 * sharing

    @property
    def depth_room(self) -> int:
        """Elements of a query or a key in its tile."""
        return room(self.depth, self.element)

    @property
    def width_room(self) -> int:
        """Elements of a value in its tile."""
        width = self.width if self.matrices else self._filled(self.sharing)
        return room(width, self.element)


def room(count: int, element: int) -> int:
    """A row of `count` elements in chunks that can be swizzled: a power of two, or eights."""
    chunks = max(2, ceil(count * element / CHUNK_BYTES))
    chunks = 1 << (chunks - 1).bit_length() if chunks <= 8 else ceil(chunks / 8) * 8
    return chunks * CHUNK_BYTES // element


@dataclass(frozen=True)
class Decision:
    """A block's rows of queries, of which each warp has `warp_rows`, and keys of a step.

    `stages` steps are in shared memory at a time. Queries stay in registers if it `holds` them.
    The keys are cut into parts as long as there are fewer than `blocks` blocks. Steps of keys that
    a mask hides are left out if it `skips`.
    """

    rows: int
    keys: int
    warp_rows: int
    stages: int
    holds: bool
    blocks: int = 0
    skips: bool = False

    @property
    def threads(self) -> int:
        return self.rows // self.warp_rows * WARP

    def tiles(self, sizes: Sizes) -> int:
        """Bytes of shared memory for queries, keys and values."""
        steps = self.stages * self.keys * (sizes.depth_room + sizes.width_room)
        return (self.rows * sizes.depth_room + steps) * sizes.element

    def shared(self, sizes: Sizes) -> int:
        """Bytes of shared memory, with the weights where threads hand them over, and the steps
        that are seen."""
        weights = 0 if sizes.matrices else self.rows * (self.keys + PAD) * 4
        return self.tiles(sizes) + weights + (MASK_BYTES if self.skips else 0)

    def registers(self, sizes: Sizes) -> int:
        """Of a thread: results, scores, fragments, addresses."""
        results = self.warp_rows * (sizes.width_room + self.keys) // WARP
        if sizes.matrices:
            kept = self.warp_rows * sizes.depth_room * sizes.element // (4 * WARP)
            return results + (kept if self.holds else 4) + 20 + OTHER_REGISTERS
        own = self.warp_rows * sizes.sharing // WARP
        right = max(self.keys * 4, sizes.width_room) // sizes.sharing
        return results + own * 4 + right + OTHER_REGISTERS


@dataclass(frozen=True)
class ByRows:
    """Two kernels, told apart when they are launched: `few` takes up to `limit` rows."""

    limit: int
    few: Decision
    many: Decision


@cache
def choose(sizes: Sizes, arch: CudaArch) -> Decision | ByRows:
    """The cheapest of the candidates, or one for few rows and one for many."""
    if sizes.rows is not None:
        return _best([sizes], arch)
    usual = [replace(sizes, rows=rows) for rows in UNKNOWN_ROWS]
    few, many = (
        [one for one in usual if ((one.rows or 0) <= FEW) == kind] for kind in (True, False)
    )
    return ByRows(FEW, _best(few, arch), _best(many, arch))


def _best(usual: Sequence[Sizes], arch: CudaArch) -> Decision:
    """The candidate with the least product of prices over `usual`, which differ in rows alone."""

    def product_of_prices(decision: Decision) -> float:
        return sum(log(price(one, decision, arch)) for one in usual)

    return min(candidates(usual[0], arch), key=product_of_prices)


@cache
def candidates(sizes: Sizes, arch: CudaArch) -> tuple[Decision, ...]:
    """Rows that fit in registers, steps that fit in shared memory."""
    stages = (2, 3) if arch.has_async_copy else (2,)
    limit = arch.shared_per_block if arch.has_async_copy else STATIC_SHARED
    apart = WARP // sizes.sharing
    heights = (16, 32) if sizes.matrices else tuple(apart * n for n in (1, 2, 4, 8))
    steps = (32, 64, 128) if sizes.matrices else (16, 32, 64)
    holding = (True, False) if sizes.matrices else (False,)
    skipping = (False, True) if sizes.masked else (False,)
    made = product(heights, (1, 2, 4, 8), steps, stages, holding, skipping)
    plans = (
        Decision(height * warps, keys, height, stage, holds, FILL * arch.sms, skips)
        for height, warps, keys, stage, holds, skips in made
    )
    return tuple(
        plan
        for plan in plans
        if plan.shared(sizes) <= limit
        and plan.registers(sizes) <= arch.registers_per_thread
        and plan.registers(sizes) * plan.threads <= arch.registers_per_sm
    )


def parts(blocks: int, steps: int, wanted: int) -> int:
    """Into how many parts the keys are cut: to have `wanted` blocks, with a few steps each.

    One block more than there are, since TVM may do a division before it asks whether there are any.
    """
    return max(1, min(wanted // (blocks + 1), steps // LEAST_STEPS))


def price(sizes: Sizes, plan: Decision, arch: CudaArch) -> float:
    """Cycles: waves of blocks, each wave bound by what its blocks share, or by its latency."""
    rows = UNKNOWN_ROWS[-1] if sizes.rows is None else sizes.rows
    keys = UNKNOWN_KEYS if sizes.keys is None else sizes.keys
    batch = UNKNOWN_BATCH if sizes.batch is None else sizes.batch
    blocks = max(1, ceil(rows / plan.rows) * batch)
    steps = ceil(keys / plan.keys)
    cut = parts(blocks, steps, plan.blocks)
    steps, blocks = ceil(steps / cut), blocks * cut
    warps = plan.threads // WARP
    copied = plan.keys * (sizes.depth_room + sizes.width_room) * sizes.element
    work = _work(sizes, plan, arch)
    shared = (
        work,
        warps * _reads(sizes, plan) / SHARED_BYTES_PER_CYCLE,
        copied / L2_BYTES_PER_CYCLE,
        copied / CHUNK_BYTES / WARP * COPY_CYCLES,
    )
    # A warp has a quarter of the multiprocessor at the most.
    alone = (STEP_CYCLES + CHAIN + work / warps * 4, LATENCY / (plan.stages - 1))
    once = 2 * LATENCY + plan.rows * sizes.width_room / WARP
    if plan.skips:
        steps, once = ceil(steps * SEEN), once + LOOKS * LATENCY
    resident = _resident(sizes, plan, arch)
    total, left = 0.0, blocks
    while left > 0:
        together = min(resident, -(-left // arch.sms))
        full = left // (arch.sms * together) or 1
        cycles = overlapped([*(together * part for part in shared), *alone]) * steps + once
        total += full * cycles
        left -= full * arch.sms * together
    moved = (rows + keys) * (sizes.depth + sizes.width) * sizes.element
    moved += 8 * cut * rows * sizes.width if cut > 1 else 0
    memory = batch * moved / (arch.dram_gb_s / arch.ghz)
    # Joining the parts is a kernel of its own.
    return overlapped([total, memory]) + (LATENCY * 3 if cut > 1 else 0)


def _work(sizes: Sizes, plan: Decision, arch: CudaArch) -> float:
    """Cycles of arithmetic for a block's step: two products and a softmax."""
    step = 16 if sizes.matrices else 4
    depth = ceil(sizes.depth / step) * step
    width = ceil(sizes.width / step) * step if sizes.matrices else sizes.width_room
    rate = arch.matrix_fma * 2 / sizes.element if sizes.matrices else arch.fp32_fma
    each = (depth + width) / rate + WORK / arch.fp32_fma + 1 / EXPONENTIALS
    return plan.rows * plan.keys * each


def _reads(sizes: Sizes, plan: Decision) -> float:
    """Bytes of shared memory that a warp reads for a step, and its neighbours with it."""
    depth, width = sizes.depth_room, sizes.width_room
    if sizes.matrices:
        queries = 0 if plan.holds else plan.warp_rows * depth
        return (plan.keys * (depth + width) + queries) * sizes.element
    # Threads with the same rows read the same queries and weights: one line for all.
    own = plan.warp_rows * sizes.sharing // WARP
    lines = own * (depth + plan.keys) / 4 * SHARED_BYTES_PER_CYCLE
    return lines + plan.keys * (depth + width) * sizes.element


def _resident(sizes: Sizes, plan: Decision, arch: CudaArch) -> int:
    """Blocks that a multiprocessor has room for."""
    return max(
        1,
        min(
            arch.shared_per_sm // plan.shared(sizes),
            arch.threads_per_sm // plan.threads,
            arch.registers_per_sm // (plan.registers(sizes) * plan.threads),
        ),
    )
