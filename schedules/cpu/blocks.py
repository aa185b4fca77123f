"""Products with weights of a few bits in blocks (passes/quantized), which stay packed in memory.

For few rows the weight becomes floats in registers, for a tile of rows at a time: a single row is
bound by the bytes of the weight and by what unpacking costs. For more rows a panel of it is
unpacked into a cache, where all rows pass over it as over any packed panel:

    for panel of columns in parallel:
        unpack the panel                             unless rows are few
        for tile of rows:  registers, then epilogue

Where only the run knows the rows, the kernel has both and chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import tirx
from tvm.ir import Var

from tvmext.arch import CpuArch
from tvmext.passes.quantized.block_weight import Blocks

from ..kernel.analysis import substitute
from ..kernel.contraction import Contraction, known_size, size
from ..kernel.emit import block, index
from ..kernel.packed_weight import packed_weight
from ..kernel.ranges import ANY, Span, span
from ..kernel.read_contraction import contraction
from ..levels import UNKNOWN_ROWS, Product, product_cycles, register_tiles
from ..rule import Declined, Kernel, Scheduled
from .after import followed
from .block_tile import FewRows, LaidBlocks, Unpack, levels
from .flat_rows import flat_rows
from .gemm import PARALLEL_FLOPS, declines
from .gemm_loops import Passes
from .heights import tile_heights
from .rows import cut
from .tile import Kernel as TileKernel
from .tile import Shape

TILE_ROWS = 4
"""Rows that share what is unpacked in registers: their sums twice are all that fits."""

FEW_ROWS = 16
"""Rows up to which unpacking in registers is best. A vector takes two instructions for every tile
of rows there, half an instruction for each product; in a panel six, once, and it is stored and
loaded again for every tile, so that the panel is no better before 16 rows."""

SHARE = 8
"""Registers for each vector of a panel: the sums of a few rows twice, or of a tile, and others."""


@dataclass(frozen=True)
class Workload:
    """A product of `rows`, None if only the run knows them, by a weight [reduce, cols]."""

    rows: int | None
    cols: int
    reduce: int
    blocks: Blocks
    contraction: Contraction = field(repr=False, compare=False)
    arrays: tuple[Var, ...] = field(repr=False, compare=False)
    """Words, scales and perhaps zero points."""
    zero: float | None = None
    """The zero point, if it is one number."""
    span: Span = ANY
    """What rows may be that are known at run time only."""


@dataclass(frozen=True)
class Decision:
    """Register tiles of the same columns: for `few` rows, and where a panel serves `many`."""

    few: Shape | None
    many: Shape | None
    parallel: bool


class BlockProducts:
    """Products whose second operand is unpacked from words."""

    name = "blocks"

    def match(self, kernel: Kernel) -> Workload | Declined:
        found = contraction(kernel)
        if isinstance(found, Declined):
            return found
        weight = packed_weight(found)
        if weight is None:
            return Declined("the second operand is not unpacked from words")
        reason = declines(found)
        if reason:
            return Declined(reason)
        params = [list(kernel.func.params).index(array) for array in weight.arrays]
        if not kernel.constant_args.issuperset(params):
            return Declined("the packed operand is no weight")
        rows, limits = known_size(found.rows), span(found.rows, kernel.func)
        cols, reduce = (int(size(axes)) for axes in (found.cols, found.reduce))
        blocks, arrays, zero = weight.blocks, weight.arrays, weight.zero
        return Workload(rows, cols, reduce, blocks, found, arrays, zero, limits)

    def choose(self, workload: Workload, arch: CpuArch) -> Decision:
        lanes = arch.vector_lanes("float32")
        vectors = min(max(1, arch.vector_registers // SHARE), -(-workload.cols // lanes))
        low, high = workload.span if workload.rows is None else (workload.rows, workload.rows)
        rows = UNKNOWN_ROWS if high is None else high
        product = Product(rows, workload.cols, workload.reduce)
        tiles = [tile for tile in register_tiles(arch.vector_registers) if tile[1] == vectors]
        height, _ = min(
            tiles, key=lambda tile: product_cycles(product, tile[0], vectors, lanes, arch.fma_units)
        )
        few = Shape(max(1, min(TILE_ROWS, rows)), vectors, lanes) if low <= FEW_ROWS else None
        many = Shape(height, vectors, lanes) if high is None or high > FEW_ROWS else None
        flops = 2 * max(low, 1) * workload.cols * workload.reduce
        return Decision(few, many, arch.cores > 1 and flops >= PARALLEL_FLOPS)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch
    ) -> Scheduled:
        total = flat_rows(workload.contraction)
        shape = decision.few or decision.many
        assert shape is not None
        laid = LaidBlocks.of(workload.blocks, workload.arrays, workload.zero, shape.cols)
        rows = index(size(total.rows))
        bodies = []
        if decision.few is not None:
            bodies.append(
                (rows <= FEW_ROWS, _few(total, decision.few, laid, decision.parallel, arch))
            )
        if decision.many is not None:
            many = _many(total, decision.many, laid, decision.parallel, arch)
            bodies.append((rows > FEW_ROWS, many))
        alone = len(bodies) == 1
        body = block(*(b if alone else tirx.IfThenElse(when, b, None) for when, b in bodies))
        body = followed(total, body, shape.lanes, decision.parallel)
        places = [list(kernel.func.params).index(array) for array in workload.arrays]
        params = list(kernel.func.params)
        for place, buffer in zip(places, laid.buffers):
            params[place] = buffer
        func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
        return Scheduled(func, dict(zip(places, laid.layouts)))


def _few(
    total: Contraction, shape: Shape, laid: LaidBlocks, parallel: bool, arch: CpuArch
) -> tirx.Stmt:
    rows = known_size(total.rows)
    level, fill = levels(total, laid, FEW_ROWS if rows is None else rows)
    passes = Passes(total, shape, FewRows(total, shape, laid, level), parallel)
    heights = tile_heights(shape, total, None, arch)
    body = cut(size(total.rows), shape.rows, passes.loops, heights)
    return block(tirx.AllocBuffer(level), fill, body)


def _many(
    total: Contraction, shape: Shape, laid: LaidBlocks, parallel: bool, arch: CpuArch
) -> tirx.Stmt:
    pack = Unpack.of(total, shape, laid)
    (axis,) = total.reduce
    tile = TileKernel(
        total,
        shape,
        lambda at, k, _panel, j: (
            substitute(total.lhs.value, {**at, **k}) * pack.buffer[k[axis.var], j]
        ),
    )
    passes = Passes(total, shape, tile, parallel, pack=pack)
    heights = tile_heights(shape, total, None, arch)
    return cut(size(total.rows), shape.rows, passes.loops, heights)
