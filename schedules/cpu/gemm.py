"""Matrix products: GEMM, batched GEMM, GEMV, 1x1 convolution; static and symbolic sizes.

The kernel that is built:

    for batch, block of rows, panel of columns in parallel:
        pack the panel                               unless it is a weight or read in place
        for tile of rows in block:  registers, then epilogue      (see tile.py)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod

from tvm.ir import Var

from tvmext.arch import CpuArch, dtype_bits

from ..dispatch import Heights
from ..kernel.analysis import analyzer, constant, flat_index, stride
from ..kernel.contraction import (
    Contraction,
    known_size,
    least_size,
    strided,
    windowed,
)
from ..kernel.ranges import ANY, Span, span
from ..kernel.read_contraction import contraction
from ..levels import (
    UNKNOWN_COLS,
    UNKNOWN_DEPTH,
    UNKNOWN_ROWS,
    Product,
    best_tile,
    product_cycles,
    widest,
)
from ..rule import OWN_ADDRESSES, Declined, Kernel, Scheduled
from . import masks, shared_tile
from .dots import Dot, find_dot
from .flat_rows import steps_from_places
from .gemm_blocks import block_tiles_for, fetches_ahead, near_rows
from .gemm_kernel import build
from .gemm_variants import LEAST_BITS, Kept, known_prices, variants
from .heights import tile_heights
from .one_column import free_columns, of_one_column
from .one_row import columns_at_once, contiguous_sum
from .panels import weight
from .tile import Shape
from .tile_function import TILES
from .turned import crosses
from .words import factor_types

PARALLEL_FLOPS = 1 << 20
"""Work below which a parallel launch (about 3 us) costs more than it saves."""

THIN_ROWS = 3
"""A product of fewer rows takes as long as one of so many: as its weight takes from L3."""

AHEAD_ROWS = 4
"""Rows below which a product streams through its weight as fast as memory gives it anyway."""

ALONE_ROWS = 4
"""Rows of the tile of products that one core takes alone: sums that hide the latency of an FMA."""

ALONE_STEPS = 1 << 13
"""Steps of one vector that one core has taken when a parallel launch is through, some 3 us."""

TYPES = ("float32", "float64", "int32")
"""What sums are kept in; half types and 64-bit integers are left to other rules."""


@dataclass(frozen=True)
class Workload:
    """A matrix product. Sizes are None when they are known at run time only."""

    batch: int | None
    rows: int | None
    cols: int | None
    reduce: int | None
    dtype: str
    rhs: str
    """"weight" (laid out at compile time), "vectors" (unit stride along columns), "sum" (along the
    sum, for a single row) or "memory"."""
    contraction: Contraction = field(repr=False, compare=False)
    weight_arg: int | None = None
    types: tuple[str, str] | None = None
    """What is multiplied, if neighbours along the sum may be taken together: bytes, perhaps."""
    least_rows: int = 1
    """Rows of all products together where dims that are not known are 1."""
    spans: tuple[Span, Span] = (ANY, ANY)
    """What rows and columns may be that are known at run time only."""
    column: Column | None = field(default=None, repr=False, compare=False)
    """The same for one column, if there may be one and vectors then run along the sum."""


@dataclass(frozen=True)
class Column:
    """A product for one column, where their number is `columns`."""

    columns: Var
    kernel: Kernel
    workload: Workload


@dataclass(frozen=True)
class Decision:
    """A register tile, how vectors of `rhs` are had, rows per block, and what runs in parallel."""

    tile: Shape
    rhs: str
    """"weight", "pack", "in place" or "dots"."""
    block_tiles: int
    """Tiles of rows that pass over one panel before the next, their `lhs` kept in L2; 0 is all."""
    parallel: bool
    ahead: int = 0
    """Tiles that pass over a panel, if they fetch the next one into L2 meanwhile; else 0."""
    dot: Dot | None = None
    """The instruction for products of bytes."""
    others: tuple[Decision, ...] = ()
    """What is better for other sizes, where they are known at run time only (dispatch.py)."""
    up_to: int = 0
    """Steps of one vector up to which it is taken without a look at prices, if it is for few."""
    least_cols: int = 1
    """Columns below which another one is taken, where their number is known at run time only."""
    column: Decision | None = None
    """What is taken for one column, where their number is known at run time only."""
    heights: Heights = ()
    """Rows of tiles, with their prices, where the number of rows is not known (rows.py)."""
    near_rows: int = 0
    """Rows above which, where their number is not known, a block is one tile; 0 is never."""
    shared: bool = False
    """Whether tiles are those that products of a library share (shared_tile.py)."""

    @property
    def manner(self) -> str:
        return "words" if self.dot else ""


class Gemm:
    """Products of two operands that are read without a sliding window."""

    name = "gemm"

    def match(self, kernel: Kernel) -> Workload | Declined:
        found = contraction(kernel)
        if isinstance(found, Declined):
            return found
        reason = declines(found)
        if reason:
            return Declined(reason)
        return describe(found, kernel)

    def choose(self, workload: Workload, arch: CpuArch) -> Decision:
        return decide(workload, arch)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch
    ) -> Scheduled:
        result = build(kernel, workload, decision, arch)
        if decision.rhs != "weight" or decision.dot is not None:
            return result
        if _ragged(workload, decision) and not decision.shared:
            return result
        if steps_from_places(workload.contraction):
            return result
        return replace(result, func=result.func.with_attr(OWN_ADDRESSES, True))


def _ragged(workload: Workload, decision: Decision) -> bool:
    """Whether columns of the last panel are left out.

    Without better addresses LLVM then keeps sums in memory (4x19x5422: 22 us instead of 9).
    """
    return workload.cols is None or workload.cols % decision.tile.cols != 0


def declines(found: Contraction) -> str:
    reason = unfit(found)
    if reason:
        return reason
    if found.lhs.source is not None or found.lhs.load is None:
        return "the elements of the broadcast operand are computed"
    if windowed(found.lhs, found.reduce) or strided(found):
        return "rows are read through a window or with a stride"
    if crosses(found):
        return "results are stored across the order of their vectors, block by block"
    return ""


def unfit(found: Contraction) -> str:
    """Why a contraction is not one for register tiles at all; empty if it is."""
    if found.dtype not in TYPES:
        return f"sums in {found.dtype}"
    if not found.cols:
        return "no axis that only one operand has: nothing to run vectors along"
    return "" if found.reduce else "nothing is summed up"


def describe(found: Contraction, kernel: Kernel) -> Workload | Declined:
    position = found.constant_rhs(kernel)
    rhs = "memory"
    if position is not None and weight(found, Shape(1, 1, 8)) is not None:
        rhs = "weight"
    elif found.rhs.direct and unit_stride(found):
        rhs = "vectors"
    rows = known_size(found.rows)
    if rows == 1 and rhs == "memory":
        if not contiguous_sum(found):
            return Declined("one row over an operand without unit stride: a reduction")
        rhs = "sum"
    return Workload(
        known_size(found.batch),
        rows,
        known_size(found.cols),
        known_size(found.reduce),
        found.dtype,
        rhs,
        found,
        position if rhs == "weight" else None,
        factor_types(found),
        least_size((*found.batch, *found.rows)),
        (span(found.rows, kernel.func), span(found.cols, kernel.func)),
        _column(found, kernel) if rhs in ("vectors", "memory") else None,
    )


def _column(found: Contraction, kernel: Kernel) -> Column | None:
    """The product for one column, if its sums are taken in the lanes of vectors."""
    columns = free_columns(found, kernel)
    if columns is None:
        return None
    alone = of_one_column(kernel, columns)
    workload = Gemm().match(alone)
    if isinstance(workload, Declined) or workload.rhs != "sum":
        return None
    return Column(columns, alone, workload)


def unit_stride(found: Contraction) -> bool:
    assert found.rhs.load is not None
    if len(found.cols) != 1:
        return False
    axes = (*found.batch, *found.cols, *found.reduce)
    step = stride(
        flat_index(found.rhs.load), found.cols[0].var, analyzer(axes, found.rhs.load.source.shape)
    )
    return step is not None and constant(step) == 1


def decide(workload: Workload, arch: CpuArch) -> Decision:
    """The tile of the least price, and where the operands stay."""
    dot = None if workload.rhs == "sum" else find_dot(workload.types, arch)
    widths, steps, registers = register_units(workload.dtype, workload.reduce, dot, arch)
    product = Product(_usual(workload.rows, workload.spans[0]), workload.cols, steps)

    def tile(lanes: int, units: int) -> tuple[Shape, float]:
        best = best_tile(product, lanes, registers, units)
        return Shape(*best, lanes), product_cycles(product, *best, lanes, units)

    shape = widest([tile(*width) for width in widths])
    if workload.rhs == "sum":
        shape = columns_at_once(arch.vector_lanes(workload.dtype))
    column = None if workload.column is None else decide(workload.column.workload, arch)
    return replace(_varied(workload, placed(workload, shape, dot, arch), arch), column=column)


def placed(workload: Workload, shape: Shape, dot: Dot | None, arch: CpuArch) -> Decision:
    """Where the operands of tiles of `shape` stay, and what runs in parallel."""
    rhs = _rhs(workload, shape, arch)
    if dot is not None and rhs == "in place":
        rhs = "pack"
    depth = UNKNOWN_DEPTH if workload.reduce is None else workload.reduce
    width = 1 if dot else 4
    tiles = None if workload.rows is None else -(-workload.rows // shape.rows)
    block_tiles = 0 if rhs == "pack" else block_tiles_for(tiles, width * depth * shape.rows, arch)
    lines = shape.rows if workload.rows is None else max(THIN_ROWS, workload.rows)
    lines = max(lines * (workload.batch or 1), workload.least_rows)
    flops = 2 * depth * (workload.cols or UNKNOWN_COLS) * lines
    parallel = arch.cores > 1 and flops >= PARALLEL_FLOPS
    ahead = 0
    busy = workload.rows is None or workload.rows >= AHEAD_ROWS
    if rhs == "weight" and busy and fetches_ahead(width * depth, workload.cols, shape.cols, arch):
        ahead = min(tiles or TILES, block_tiles or TILES)
    near = 0
    if rhs == "weight" and workload.cols is not None and workload.cols > shape.cols:
        near = near_rows(workload.cols, width * depth, workload.dtype, arch)
    if near and (workload.rows or 0) > near:
        block_tiles = 1
    return Decision(
        shape,
        rhs,
        block_tiles,
        parallel,
        ahead,
        dot,
        heights=_heights(workload, shape, dot, arch, far=ahead > 0),
        near_rows=near if workload.rows is None else 0,
        shared=dot is None and _shares(workload, rhs),
    )


def _varied(workload: Workload, decision: Decision, arch: CpuArch) -> Decision:
    """The decision, or where sizes are not known those that are kept in its place."""
    unknown = workload.rows is None or workload.cols is None
    if decision.rhs == "dots":
        return replace(decision, others=tuple(_alone(workload, decision, arch)))
    if decision.rhs not in ("pack", "in place") or decision.dot is not None or not unknown:
        return decision
    first, *others = (variant(workload, decision, one, arch) for one in variants(workload, arch))
    return replace(first, others=(*others, *_alone(workload, first, arch)))


def variant(workload: Workload, decision: Decision, one: Kept, arch: CpuArch) -> Decision:
    """`decision` with the tile and the operand of `one`."""
    return replace(
        decision,
        tile=one.tile,
        rhs=one.rhs,
        least_cols=one.cols,
        shared=_shares(workload, one.rhs),
        heights=_heights(workload, one.tile, None, arch, least=one.rows),
    )


def _alone(workload: Workload, usual: Decision, arch: CpuArch) -> Iterator[Decision]:
    """What one core takes alone where sizes turn out so small that a launch would cost more."""
    sizes = (workload.batch, workload.rows, workload.cols, workload.reduce)
    if not usual.parallel or usual.dot or None not in sizes:
        return
    lanes = usual.tile.lanes
    known = (*sizes[:2], workload.cols and -(-workload.cols // lanes), workload.reduce)
    if prod(size for size in known if size) > ALONE_STEPS:
        return
    alone = replace(usual, block_tiles=0, parallel=False, up_to=ALONE_STEPS)
    if usual.rhs == "dots" or usual.shared:
        yield alone
    else:
        found, tile = workload.contraction, Shape(ALONE_ROWS, 1, lanes)
        fits = arch.has_masks and workload.rhs == "vectors" and masks.results_fit(found)
        how = "in place" if fits and masks.operand_fits(found, found.rhs) else "pack"
        yield replace(alone, tile=tile, rhs=how, heights=_heights(workload, tile, None, arch))


def _shares(workload: Workload, rhs: str) -> bool:
    """Whether tiles are those that products share: of any height, over panels of a known depth."""
    ways = ("weight", "pack")
    found = workload.contraction
    return workload.rows is None and rhs in ways and shared_tile.runs(found) is not None


def _heights(
    workload: Workload,
    shape: Shape,
    dot: Dot | None,
    arch: CpuArch,
    *,
    far: bool = False,
    least: int = 0,
) -> Heights:
    """Tiles for any number of rows from `least` on; a weight that is fetched ahead is `far`."""
    if workload.rows is not None:
        return ()
    low, high = workload.spans[0]
    low = max(low, least) if high is None else max(low, min(least, high))
    return tile_heights(shape, workload.contraction, dot, arch, (low, high), far=far)


def _usual(rows: int | None, limits: Span) -> int | None:
    """The rows that tiles are priced at: not more than there may be."""
    _, most = limits
    return most if rows is None and most is not None and most < UNKNOWN_ROWS else rows


def register_units(
    dtype: str, reduce: int | None, dot: Dot | None, arch: CpuArch
) -> tuple[list[tuple[int, int]], int | None, int]:
    """(sums in a vector, FMAs on such vectors in a cycle), steps of the sum, registers for a tile.

    Half as wide vectors waste fewer lanes at the last columns.
    """
    if dot is not None:
        steps = None if reduce is None else -(-reduce // dot.step)
        return [(dot.lanes, arch.fma_units)], steps, arch.vector_registers - (2 if dot.wide else 0)
    bits = [arch.vector_bits, arch.vector_bits // 2]
    widths = [(n // dtype_bits(dtype), arch.fmas_per_cycle(n)) for n in bits if n >= LEAST_BITS]
    return widths, reduce, arch.vector_registers


def _rhs(workload: Workload, shape: Shape, arch: CpuArch) -> str:
    """How vectors of `rhs` are had: what is read in few places does not pay for packing."""
    if workload.rhs in ("weight", "sum"):
        return {"weight": "weight", "sum": "dots"}[workload.rhs]
    fits = arch.has_masks or workload.cols is None or workload.cols >= shape.cols
    ways = [(shape, how) for how in ("pack", "in place")]
    packed, in_place = known_prices(workload, ways, arch)
    return "in place" if workload.rhs == "vectors" and fits and in_place < packed else "pack"
