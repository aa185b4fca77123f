"""Attention: two products around a softmax, in one kernel without the matrix of scores.

The kernel that is built:

    for batch, part of the rows in parallel:
        turn the keys into panels
        for tile of rows:
            find the keys that a mask leaves to it                             (attend_mask.py)
            for block of keys:  scores, exponentials, weighted values          (attend_tile.py)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import gcd

import numpy as np
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var

from tvmext.arch import CpuArch

from ..dispatch import Heights, mixture
from ..kernel.analysis import constant, substitute, variables
from ..kernel.attend import Attention, attention, mask
from ..kernel.contraction import size
from ..kernel.emit import (
    PARALLEL,
    SERIAL,
    VECTORIZED,
    Values,
    allocate,
    bind_each,
    block,
    ceildiv,
    index,
    known,
    loop,
    most,
    nest,
    unravel,
)
from ..levels import UNKNOWN_COLS, UNKNOWN_ROWS, register_tiles, streamed_cycles, tile_cycles
from ..rule import OWN_ADDRESSES, Declined, Kernel, Scheduled
from .attend_mask import Window
from .attend_tile import Running, State, Tile
from .gemm import PARALLEL_FLOPS, known_size
from .maps import turned
from .rows import Tiles, cut
from .tile import Shape
from .turns import hiding


@dataclass(frozen=True)
class Workload:
    """Attention in float32. Sizes are None when they are known at run time only."""

    batch: int | None
    rows: int | None
    keys: int | None
    depth: int
    width: int
    masked: bool
    """Whether some keys may be hidden from some rows."""
    told_apart: int | None
    """Rows that the mask tells apart: one, where the same keys are hidden from all."""
    attention: Attention = field(repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """Register tiles of both products, keys per block (0 is all), parts of the rows, threads.

    With `skips` keys that a mask hides from all rows of a tile are left out.
    """

    scores: Shape
    values: Shape
    block_keys: int
    parts: int
    parallel: bool
    skips: bool
    heights: Heights = ()
    """Heights of tiles, with their prices, where the number of rows is not known (rows.py)."""


class FusedAttention:
    """softmax(bias(Q K^T)) V in float32."""

    name = "attention"
    tells_sizes = True

    def match(self, kernel: Kernel) -> Workload | Declined:
        found = attention(kernel)
        if isinstance(found, Declined):
            return found
        tensors = (found.query.source, found.key.source, found.value.source, found.out)
        if any(str(buffer.dtype) != "float32" for buffer in tensors):
            return Declined("it is not in float32 throughout")
        if found.depth.size is None or found.width.size is None:
            return Declined("the size of a head is not known")
        if not found.unit_stride(found.value, found.width):
            return Declined("the values are not contiguous along a head")
        if found.keys.size == 0:
            return Declined("there are no keys")
        hides = mask(found)
        seen = variables(hides) if hides is not None else ()
        return Workload(
            known_size(found.batch),
            known_size(found.rows),
            found.keys.size,
            found.depth.size,
            found.width.size,
            hides is not None,
            known_size([axis for axis in found.rows if axis.var in seen]),
            found,
        )

    def choose(self, workload: Workload, arch: CpuArch) -> Decision:
        return decide(workload, arch)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch
    ) -> Scheduled:
        found, chains = workload.attention, hiding(arch.fma_units)
        body = cut(
            size(found.rows),
            decision.scores.rows,
            lambda tiles: _tasks(found, tiles, decision, chains),
            decision.heights,
        )
        func = tirx.PrimFunc(kernel.func.params, body, kernel.func.ret_type, kernel.func.attrs)
        return Scheduled(func.with_attr(OWN_ADDRESSES, True))


def decide(workload: Workload, arch: CpuArch) -> Decision:
    """The pair of register tiles of the least price, placed."""
    return placed(workload, *_best(workload, arch), arch)


def placed(workload: Workload, scores: Shape, values: Shape, arch: CpuArch) -> Decision:
    """Keys per block, and what runs in parallel, for a pair of register tiles."""
    row_bytes = 4 * scores.rows
    fits = workload.keys is not None and workload.keys * row_bytes <= arch.l1_bytes
    room = arch.l1_bytes // 2 // row_bytes // scores.cols * scores.cols
    block_keys = 0 if fits else max(room, scores.cols)
    flops = 2 * (workload.depth + workload.width) * (workload.keys or 128)
    flops *= (workload.rows or 128) * (workload.batch or 1)
    parallel = arch.cores > 1 and flops >= PARALLEL_FLOPS
    parts = 1
    if parallel and workload.batch is not None and workload.batch % arch.cores:
        parts = -(-arch.cores // max(workload.batch, 1))
    skips = _skips(workload, scores)
    heights = () if workload.rows is not None else _heights(workload, scores, values, arch)
    return Decision(scores, values, block_keys, parts, parallel, skips, heights)


def _tiles(workload: Workload, arch: CpuArch) -> Iterator[tuple[Shape, Shape]]:
    """Pairs of register tiles of equal height, a power of two if rows are not known."""
    lanes = arch.vector_lanes("float32")
    narrow = gcd(lanes, workload.width)
    for rows, vectors in register_tiles(arch.vector_registers):
        if vectors not in (1, 2, 4) or (workload.rows is None and rows not in (4, 8)):
            continue
        if workload.keys is not None and (vectors - 1) * lanes >= workload.keys:
            continue
        for same, across in register_tiles(arch.vector_registers):
            if same == rows and workload.width % (across * narrow) == 0:
                yield Shape(rows, vectors, lanes), Shape(rows, across, narrow)


SKIP_PANELS = 2
"""Panels of keys from which on looking for hidden ones may pay: it takes two looks at the least."""

LOOK_CYCLES = 12
"""Of a row and a vector of its mask: to load, compare and note it, and to join what was noted."""

NEARLY = 1.05
"""Tiles whose prices differ by less are told apart by what they load."""


def _best(workload: Workload, arch: CpuArch) -> tuple[Shape, Shape]:
    """The pair of the fewest loads among those of nearly the least price.

    Vectors of keys and values come from L2, elements of queries and scores from L1: half the price.
    """
    priced = prices(workload, arch)

    def loads(pair: tuple[Shape, Shape]) -> float:
        return sum((tile.rows + 2 * tile.vectors) / (tile.rows * tile.vectors) for tile in pair)

    least = min(priced.values())
    near = [pair for pair, cycles in priced.items() if cycles <= NEARLY * least]
    return min(near, key=lambda pair: (loads(pair), priced[pair]))


def prices(workload: Workload, arch: CpuArch) -> dict[tuple[Shape, Shape], float]:
    """Pairs of register tiles and the cycles of both products for one batch point.

    A mask that tells rows apart is taken for a causal one.
    """
    rows = UNKNOWN_ROWS if workload.rows is None else workload.rows
    keys = UNKNOWN_COLS if workload.keys is None else workload.keys

    def price(scores: Shape, values: Shape) -> float:
        first = _cycles(rows, keys, workload.depth, scores, arch.fma_units)
        whole = first + _cycles(rows, workload.width, keys, values, arch.fma_units)
        if not _skips(workload, scores):
            return whole
        told_apart = rows if workload.told_apart is None else workload.told_apart
        seen = _seen(told_apart, keys, scores)
        looks = ((keys - seen) / scores.cols + 2) * scores.vectors * rows
        return whole * seen / keys + looks * LOOK_CYCLES

    return {pair: price(*pair) for pair in _tiles(workload, arch)}


def _skips(workload: Workload, scores: Shape) -> bool:
    """Whether it may pay to look for panels of keys that are hidden from a whole tile."""
    long = workload.keys is None or workload.keys >= SKIP_PANELS * scores.cols
    return workload.masked and long


def _seen(rows: int, keys: int, scores: Shape) -> float:
    """Keys that a tile takes in the mean, in whole panels, if the last row sees the last key."""
    ends = np.minimum(np.arange(0, max(rows, 1), scores.rows) + scores.rows, rows) + keys - rows
    panels = -(-np.maximum(ends, 1) // scores.cols)
    return float(np.minimum(panels * scores.cols, keys).mean())


def _heights(workload: Workload, scores: Shape, values: Shape, arch: CpuArch) -> Heights:
    """Powers of two, so that the softmax of a tile runs in whole vectors."""
    keys = UNKNOWN_COLS if workload.keys is None else workload.keys

    def price(rows: int) -> float:
        """Panels of keys and rows of values come from L2."""
        first = streamed_cycles(rows, scores.vectors, arch.fma_units, workload.depth)
        last = streamed_cycles(rows, values.vectors, arch.fma_units, keys)
        across = -(-workload.width // values.cols)
        return -(-keys // scores.cols) * first + across * last

    powers = [1 << p for p in reversed(range(scores.rows.bit_length()))]
    return mixture(powers, price)


def _cycles(rows: int, cols: int, depth: int, tile: Shape, units: int) -> float:
    """Cycles of a product in tiles of nearly equal height, the last panel no wider than need be."""
    count = -(-rows // tile.rows)
    base, extra = divmod(rows, max(count, 1))
    whole, rest = divmod(-(-cols // tile.lanes), tile.vectors)
    total = 0.0
    for height, number in ((base + 1, extra), (base, count - extra)):
        for vectors, panels in ((tile.vectors, whole), (rest, min(rest, 1))):
            steps = depth * tile_cycles(height, vectors, units) + 2 * height * vectors + 12
            total += number * panels * steps
    return total


def _tasks(found: Attention, tiles: Tiles, decision: Decision, chains: int) -> tirx.Stmt:
    """One task for each batch point and part of its rows."""
    batch = [axis for axis in found.batch if axis.size != 1]
    units = {axis.var: index(0) for axis in (*found.batch, *found.rows) if axis.size == 1}
    parts = decision.parts

    def task(flat: Expr) -> tirx.Stmt:
        part = flat % parts if parts > 1 else index(0)
        return bind_each(
            unravel(flat // parts if parts > 1 else flat, batch),
            lambda at: _rows(found, tiles, decision, chains, {**units, **at}, part),
        )

    kind = PARALLEL if decision.parallel else SERIAL
    if any(constant(n) == 0 for n in (tiles.count, size(batch))):
        return tirx.Evaluate(index(0))
    return loop(known(size(batch) * parts), task, kind, "task")


def _rows(
    found: Attention, tiles: Tiles, decision: Decision, chains: int, at: Values, part: Expr
) -> tirx.Stmt:
    """Every ``decision.parts``-th tile of rows from `part` on: causal ones cost more and more."""
    keys, rows, width = known(found.keys.extent), decision.scores.rows, decision.scores.cols
    per_block = decision.block_keys or keys
    room = -(-per_block // width) * width + decision.scores.lanes
    panels = allocate([most(ceildiv(keys, width), 1), found.depth.extent, width], "float32", "keys")
    scores = allocate([rows, room], "float32", "scores")
    running = Running.of(rows, found.width.extent) if decision.block_keys else None

    state = State.of(rows)

    def tile(row: Expr, height: Expr) -> tirx.Stmt:
        one = Tile(
            found,
            decision.scores,
            decision.values,
            at,
            row,
            height,
            tiles.heights,
            panels,
            scores,
            state,
            chains,
        )
        hides = mask(found) if decision.skips else None
        if hides is None:
            return one.attend_all(index(0), keys, per_block, running)
        panel = decision.scores
        window = Window(found, hides, one.place, height, rows, panel.vectors, panel.lanes)
        return window.each(lambda first, n: one.attend_all(first, n, per_block, running))

    parts = decision.parts
    count = tiles.count if parts == 1 else ceildiv(most(tiles.count - part, 0), parts)
    buffers = [panels, scores, *state.buffers, *(running.buffers if running else ())]
    return block(
        *(tirx.AllocBuffer(buffer) for buffer in buffers),
        _pack(found, at, panels, decision.scores),
        loop(count, lambda t: tiles.at(t * parts + part, tile), name="t"),
    )


def _pack(found: Attention, at: Values, panels: Var, shape: Shape) -> tirx.Stmt:
    """Keys in panels ``[N / width, depth, width]``; the last vector repeats the last key."""
    keys, depth = known(found.keys.extent), found.depth.size or 0
    lanes, width = shape.lanes, shape.cols

    def key(j: Expr, d: Expr) -> TensorLoad:
        if not (isinstance(keys, int) and keys % lanes == 0):
            j = tirx.min(j, index(keys) - 1)
        return substitute(found.key, {**at, found.keys.var: j, found.depth.var: d})

    def square(group: Expr, part: Expr) -> tirx.Stmt:
        """`lanes` keys by `lanes` of their elements, turned in registers."""
        j, d = group * lanes, part * lanes
        rows = (key(j + row, d) for row in range(lanes))
        binds, columns = turned([_along(load, lanes) for load in rows])
        at_lanes = tirx.Ramp(j % width, index(1), lanes)
        stores = (
            tirx.BufferStore(panels, column, [j // width, d + row, at_lanes])
            for row, column in enumerate(columns)
        )
        return block(*binds, *stores)

    def element(group: Expr, d: Expr, lane: Expr) -> tirx.Stmt:
        j = group * lanes
        return tirx.BufferStore(panels, key(j + lane, d), [j // width, d, j % width + lane])

    def vector(group: Expr, d: Expr) -> tirx.Stmt:
        return loop(lanes, lambda lane: element(group, d, lane), VECTORIZED, "lane")

    groups = known(ceildiv(keys, lanes))
    along = [found.depth.var in variables(i) for i in found.key.indices]
    contiguous = not any(along[:-1]) and found.unit_stride(found.key, found.depth)
    if depth % lanes == 0 and contiguous:
        return nest([groups, depth // lanes], lambda at: square(*at))
    return nest([groups, depth], lambda at: vector(*at))


def _along(load: TensorLoad, lanes: int) -> Expr:
    """The vector of elements from `load` on."""
    *outer, last = load.indices
    return tirx.BufferLoad(load.source, [*outer, tirx.Ramp(last, index(1), lanes)])
