"""Depthwise convolutions: both operands depend on the channel, which vectors run along.

    for image, block of output rows in parallel:
        for group of channels, tile of pixels along the row:
            for output row of the block, vectors of channels of the group:
                registers, then epilogue                              (depthwise_tile.py)

There is too little arithmetic per element to copy the input first. Padding is skipped instead: the
window's rows that lie outside are left out of the loop over them, columns that lie outside by a
condition in the tiles that reach over an edge. The last vectors of channels and, where the width is
not known, the last tile of pixels are moved back to end with the row: they do some work twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import CpuArch

from ..kernel.analysis import Axis, analyzer, constant, flat_index, stride, substitute
from ..kernel.contraction import Contraction, rows_of, size, slides_along
from ..kernel.emit import (
    PARALLEL,
    SERIAL,
    Size,
    Values,
    allocate,
    bind,
    bind_each,
    block,
    ceildiv,
    index,
    known,
    least,
    loop,
    unravel,
)
from ..kernel.read_contraction import contraction
from ..levels import UNKNOWN_SIDE
from ..rule import Declined, Kernel, Scheduled
from .after import followed
from .depthwise_ahead import EVERY, Below, near_pixels
from .depthwise_row import Guard, Row
from .depthwise_tile import MOST_TAPS, RowTile, known_index
from .gemm import PARALLEL_FLOPS, TYPES, known_size
from .padding import padding
from .panel import Panel
from .panels import weight
from .tile import Kernel as TileKernel
from .tile import Shape

BLOCK_ROWS = 8
"""Output rows of a block: the rows of input that two blocks both read are a small part."""


@dataclass(frozen=True)
class Workload:
    """A depthwise convolution. Sizes are None when they are known at run time only."""

    images: int | None
    height: int | None
    width: int | None
    channels: int
    lines: int | None
    """Rows of the window, or what else it has beside `taps`."""
    taps: int | None
    """Elements of the window along the row."""
    stride: int
    step: int
    moved: int
    """Pixels of the input for each of the results."""
    weight_arg: int | None
    dtype: str
    contraction: Contraction = field(repr=False, compare=False)
    tap: Axis = field(repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """A register tile of pixels by vectors of channels, and what runs in parallel."""

    tile: Shape
    group: int
    """Vectors of channels, in tiles, that pass down a block of rows together."""
    block_rows: int
    parallel: bool
    near_pixels: int = EVERY
    """Pixels of the results beyond which tiles fetch what they need a row below."""


class Depthwise:
    """Sliding windows over each channel on its own."""

    name = "depthwise"

    def match(self, kernel: Kernel) -> Workload | Declined:
        found = contraction(kernel)
        if isinstance(found, Declined):
            return found
        reason = _declines(found)
        if reason:
            return Declined(reason)
        images, height, width = rows_of(found)
        across = slides_along(found, width)
        if isinstance(across, Declined):
            return across
        tap, steps = across
        down = Declined("no rows") if height is None else slides_along(found, height)
        view = _as_columns(found)
        position = found.constant_rhs(kernel)
        channels = found.batch[-1].size or 1
        if position is not None and weight(view, Shape(1, channels, 1)) is None:
            position = None
        return Workload(
            known_size(images),
            1 if height is None else height.size,
            width.size,
            channels,
            known_size(axis for axis in found.reduce if axis is not tap),
            tap.size,
            *steps,
            steps[0] * (1 if isinstance(down, Declined) else down[1][0]),
            position,
            found.dtype,
            view,
            tap,
        )

    def choose(self, workload: Workload, arch: CpuArch) -> Decision:
        return decide(workload, arch)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch
    ) -> Scheduled:
        return _Builder(workload, decision).build(kernel)


def decide(work: Workload, arch: CpuArch) -> Decision:
    """The register tile of the least price, placed."""
    best, _ = min(tiles(work, arch), key=lambda one: one[1])
    return placed(work, best, arch)


def placed(work: Workload, tile: Shape, arch: CpuArch) -> Decision:
    """Blocks for a register tile: what lies under it stays in L1 while it moves down."""
    height, width = work.height or UNKNOWN_SIDE, work.width or UNKNOWN_SIDE
    lines, taps = work.lines or 3, work.taps or 3
    flops = 2 * (work.images or 1) * height * width * work.channels * lines * taps
    parallel = arch.cores > 1 and flops >= PARALLEL_FLOPS
    block_rows = min(BLOCK_ROWS, -(-height // (2 * arch.cores))) if parallel else BLOCK_ROWS
    # The rows under a tile and the weights stay in L1 while the tile moves down.
    bytes_ = lines * (_columns(tile.rows, taps, work) + taps) * tile.cols * 4
    group = max(1, arch.l1_bytes * 3 // 4 // bytes_)
    near = near_pixels(work.channels, work.moved, work.dtype, arch)
    return Decision(tile, group, max(1, block_rows), parallel, near)


def tiles(work: Workload, arch: CpuArch) -> list[tuple[Shape, float]]:
    """Register tiles and their prices: sums, the taps' weights and one input in registers."""
    lanes = arch.vector_lanes(work.dtype)
    while lanes > work.channels:
        lanes //= 2
    width, limit = (UNKNOWN_SIDE, 8) if work.width is None else (work.width, 14)
    found = []
    for vectors in (1, 2, 3, 4):
        most = (arch.vector_registers - 1) // vectors - _unrolled(work)
        if vectors * lanes > work.channels:
            break
        for rows in range(1, max(min(most, limit, width), 1) + 1):
            shape = Shape(rows, vectors, lanes)
            found.append((shape, cycles(work, shape, arch)))
    return found


def cycles(work: Workload, tile: Shape, arch: CpuArch) -> float:
    """The price of a line of pixels in such tiles."""
    width, taps = UNKNOWN_SIDE if work.width is None else work.width, _unrolled(work)
    loads = tile.vectors * (_columns(tile.rows, taps, work) + taps)
    steps = max(tile.rows * tile.vectors * taps, loads) / arch.fma_units
    each = (work.lines or 3) * steps + 2 * tile.rows * tile.vectors + 12
    return -(-width // tile.rows) * -(-work.channels // tile.cols) * each


def _unrolled(work: Workload) -> int:
    """Taps along the row whose weights are in registers at once."""
    return work.taps if work.taps is not None and work.taps <= MOST_TAPS else 1


def _columns(pixels: int, taps: int, work: Workload) -> int:
    """Columns of the input under a tile."""
    return len({i * work.stride + k * work.step for i in range(pixels) for k in range(taps)})


def _declines(found: Contraction) -> str:
    if found.dtype not in TYPES:
        return f"sums in {found.dtype}"
    if found.cols or not found.batch or not found.rows or not found.reduce:
        return "not a window over channels of their own"
    load, channel = found.lhs.load, found.batch[-1]
    if load is None or not channel.size:
        return "the input is computed from several loads, or channels are not known"
    ana = analyzer((*found.batch, *found.rows, *found.reduce), load.source.shape)
    step = stride(flat_index(load), channel.var, ana)
    if step is None or constant(step) != 1:
        return "channels are not contiguous"
    if not all(out.indices and out.indices[-1].same_as(channel.var) for out in found.outputs):
        return "channels are not innermost in an output"
    return ""


def _as_columns(found: Contraction) -> Contraction:
    """The same contraction with the channel as the column that panels are cut from."""
    return replace(found, batch=found.batch[:-1], cols=(found.batch[-1],))


class _Builder:
    """One depthwise kernel under construction."""

    def __init__(self, workload: Workload, decision: Decision) -> None:
        self.total = workload.contraction
        self.workload = workload
        self.decision = decision
        self.shape = decision.tile
        self.images, self.height, self.width = rows_of(self.total)
        self.padding = padding(self.total)
        rows = decision.tile.rows
        self.row = Row(self.width, workload.stride, rows, self.padding)
        self.spill: Var | None = None
        self.below: Below | None = None

    def build(self, kernel: Kernel) -> Scheduled:
        params = list(kernel.func.params)
        layouts = {}
        value = self.total.lhs.value if self.padding is None else self.padding.value
        laid = None
        if self.workload.weight_arg is not None:
            laid = weight(self.total, Shape(1, self.workload.channels, 1))
            assert laid is not None
            params[self.workload.weight_arg] = laid.buffer
            layouts[self.workload.weight_arg] = laid.layout

        def term(at: Values, k: Values, panel: Panel, j: Expr) -> Expr:
            point = {**at, **k, **panel.cols(j)}
            if laid is not None:
                return substitute(value, point) * laid.read(panel, k, panel.start + j)
            return substitute(value, point) * substitute(self.total.rhs.value, point)

        work, shape = self.workload, self.shape
        self.tile = RowTile(self.total, shape, term, self.width, work.tap, work.stride, work.step)
        if _unrolled(work) == work.taps and len(self.total.reduce) == 2:
            across, near = (work.tap, work.stride), self.decision.near_pixels
            self.below = Below.of(self.total, value, self.height, self.width, across, near)
        if TileKernel(self.total, shape, term).heavy:
            self.spill = allocate([shape.rows, shape.cols], self.total.dtype, "sums")
        body = followed(self.total, self._blocks(), shape.lanes, self.decision.parallel)
        func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
        return Scheduled(func, layouts)

    def _blocks(self) -> tirx.Stmt:
        """The loop over images and blocks of rows."""
        step = self.decision.block_rows
        rows: Size = 1 if self.height is None else known(self.height.extent)
        outer = (*self.total.batch, *self.images)
        count = known(ceildiv(rows, step) * size(outer))
        if any(constant(n) == 0 for n in (rows, count, self.width.extent)):
            return tirx.Evaluate(index(0))
        kind = PARALLEL if self.decision.parallel else SERIAL

        def task(flat: Expr, blocks: Expr) -> tirx.Stmt:
            return bind_each(
                unravel(flat // blocks, outer),
                lambda at: bind(
                    flat % blocks * step,
                    lambda first: self._groups(at, first, known(least(step, rows - first))),
                    "first",
                ),
            )

        blocks = bind(
            ceildiv(rows, step),
            lambda blocks: loop(count, lambda flat: task(flat, blocks), kind, "task"),
            "blocks",
        )
        return blocks if self.below is None else self.below.named(blocks)

    def _groups(self, at: Values, first: Expr, count: Size) -> tirx.Stmt:
        """Groups of channels, one after another, over a block of `count` rows."""
        panels = ceildiv(self.workload.channels, self.shape.cols)
        assert isinstance(panels, int)
        groups = ceildiv(panels, self.decision.group)
        assert isinstance(groups, int)
        each = -(-panels // groups)

        def group(number: Expr) -> tirx.Stmt:
            begin = number * each
            inside = known(least(each, panels - begin)) if panels % each else each

            def down(x: Expr, pixels: int, guard: Guard | None, there: Size) -> tirx.Stmt:
                return loop(
                    count,
                    lambda y: loop(
                        inside,
                        lambda p: self._tile(at, first + y, x, pixels, begin + p, guard, there),
                        name="p",
                    ),
                    name="y",
                )

            return self.row.cut(down)

        space = None if self.spill is None else tirx.AllocBuffer(self.spill)
        return block(space, loop(groups, group, name="group"))

    def _tile(
        self,
        at: Values,
        y: Expr,
        x: Expr,
        pixels: int,
        number: Expr,
        guard: Guard | None,
        there: Size,
    ) -> tirx.Stmt:
        fixed = dict(at)
        if self.height is not None:
            fixed[self.height.var] = y
        ranges = {} if self.padding is None else self.padding.ranges(fixed, self.width)
        batch = {axis.var: at[axis.var] for axis in self.total.batch}
        width = self.shape.cols
        start = tirx.min(number * width, index(self.workload.channels - width))

        def body(start: Expr) -> tirx.Stmt:
            panel = Panel(self.total, batch, index(0), start, width, width)
            ahead = None
            if self.below is not None:
                ahead = partial(self.below.fetch, fixed, x, pixels, panel)
            return self.tile.code(x, pixels, fixed, panel, ranges, guard, there, self.spill, ahead)

        return bind(known_index(start), body, "channel")
