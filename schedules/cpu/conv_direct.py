"""Convolutions as sums over a sliding window: any rank, stride, dilation, groups.

    for image, block of output rows:                     in parallel, or the panels inside are
        stage the padded input rows of the block         (window.py; only if there is padding)
        for panel of output channels, output row:
            for tile of pixels along the row:  registers, then epilogue         (tile.py)

Channels are the vectors (NHWC). Small images, whose rows are shorter than a tile, take their pixels
row after row instead. A transposed convolution arrives here as one over a dilated input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import CpuArch, dtype_bits

from ..kernel.analysis import Axis, constant, substitute
from ..kernel.contraction import Contraction, rows_of, size
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
from ..levels import (
    UNKNOWN_COLS,
    UNKNOWN_DEPTH,
    UNKNOWN_SIDE,
    Product,
    best_tile,
    product_cycles,
    rows_in_l1,
    widest,
)
from ..rule import Kernel, Layout, Scheduled
from .after import followed
from .dot_tile import dot_kernel
from .dots import Dot, find_dot
from .gemm import PARALLEL_FLOPS, fetches_ahead, register_units
from .panels import Pack, weight
from .rows import Tiles, cut
from .tile import Kernel as TileKernel
from .tile import Panel, RegisterTile, Shape, open_panel
from .window import Stage
from .words import WordPack, steps_of

FLAT_PIXELS = 128
"""Images up to this many output pixels may be taken as one row of pixels; the code is unrolled."""

FLAT_GAIN = 0.95
"""The share of the price below which that is worth it."""


@dataclass(frozen=True)
class Workload:
    """A convolution. Sizes are None when they are known at run time only."""

    groups: int | None
    images: int | None
    height: int | None
    width: int | None
    channels: int | None
    reduce: int | None
    staged: bool
    row_bytes: int | None
    """Bytes of input that one more output row reads."""
    pitch: int
    """Bytes between the inputs of neighbouring pixels, 0 if that is known at run time only."""
    weight_arg: int | None
    dtype: str
    contraction: Contraction = field(repr=False, compare=False)
    types: tuple[str, str] | None = None
    """What is multiplied, if neighbours along the sum may be taken together: bytes, perhaps."""


@dataclass(frozen=True)
class Decision:
    """A register tile, how many output rows make a block, and what runs in parallel."""

    tile: Shape
    flat: bool
    """Whether pixels are taken row after row as one long row."""
    block_rows: int
    """Output rows of a block; 0 takes the whole image."""
    parallel: str
    """"none", "blocks" or "panels"."""
    ahead: int = 0
    """Tiles that pass over a panel, if they fetch the next one into L2 meanwhile; else 0."""
    dot: Dot | None = None
    """The instruction for products of bytes."""
    merged: int = 1
    """Groups that are taken together as one (conv_groups.py)."""


def decide(work: Workload, arch: CpuArch) -> Decision:
    """The tile of the least price, then blocks that fit the caches and feed the cores."""
    dot = find_dot(work.types, arch)
    shape, flat = _tile(work, dot, arch)
    width_of = 1 if dot else 4
    height, width = work.height or UNKNOWN_SIDE, work.width or UNKNOWN_SIDE
    images = (work.images or 1) * (work.groups or 1)
    depth, channels = work.reduce or UNKNOWN_DEPTH, work.channels or UNKNOWN_COLS
    fits = max(1, arch.l2_bytes // 3 // max(work.row_bytes or 1, 1))
    block_rows = min(height, fits)
    parallel = "none"
    if arch.cores > 1 and 2 * depth * channels * height * width * images >= PARALLEL_FLOPS:
        light = depth * channels * width_of <= arch.l2_bytes
        enough = images >= arch.cores or not flat
        spread = light and enough and height * images >= 4 * arch.cores
        parallel = "blocks" if spread else "panels"
        if spread and images < arch.cores:
            block_rows = max(1, min(block_rows, -(-height // (2 * arch.cores))))
    blocks = -(-height // block_rows)
    whole = flat or (blocks == 1 and work.height is not None)
    block_rows = 0 if whole else -(-height // blocks)
    tiles = 0
    if work.weight_arg is not None and fetches_ahead(
        width_of * depth, work.channels, shape.cols, arch
    ):
        lines = 1 if flat else block_rows or height
        tiles = lines * -(-(height * width if flat else width) // shape.rows)
    return Decision(shape, flat, block_rows, parallel, tiles, dot)


def cycles(work: Workload, decision: Decision, arch: CpuArch) -> float:
    """The price of a decision."""
    tile = decision.tile
    units = arch.fmas_per_cycle(tile.lanes * dtype_bits(work.dtype))
    lines, pixels = work.height or UNKNOWN_SIDE, work.width or UNKNOWN_SIDE
    if decision.flat:
        lines, pixels = 1, lines * pixels
    line = Product(pixels, work.channels, work.reduce)
    images = (work.images or 1) * (work.groups or 1)
    return images * lines * product_cycles(line, tile.rows, tile.vectors, tile.lanes, units)


def _tile(work: Workload, dot: Dot | None, arch: CpuArch) -> tuple[Shape, bool]:
    """The register tile, and whether pixels are better taken row after row."""
    widths, steps, registers = register_units(work.dtype, work.reduce, dot, arch)
    limit = min(14 if work.width is not None else 8, rows_in_l1(work.pitch, arch.l1_bytes))
    row = Product(work.width, work.channels, steps)

    def tile(lanes: int, units: int) -> tuple[tuple[Shape, bool], float]:
        apart = best_tile(row, lanes, registers, units, limit)
        price = product_cycles(row, *apart, lanes, units)
        if work.width is None or work.height is None or work.height == 1:
            return (Shape(*apart, lanes), False), price
        price *= work.height
        image = Product(work.width * work.height, work.channels, steps)
        joined = best_tile(image, lanes, registers, units)
        flat = product_cycles(image, *joined, lanes, units)
        if work.width * work.height <= FLAT_PIXELS and flat < FLAT_GAIN * price:
            return (Shape(*joined, lanes), True), flat
        return (Shape(*apart, lanes), False), price

    return widest([tile(*width) for width in widths])


class Builder:
    """One convolution kernel under construction."""

    def __init__(self, workload: Workload, decision: Decision) -> None:
        self.total = workload.contraction
        self.workload = workload
        self.decision = decision
        self.shape = decision.tile
        self.images, self.height, self.width = rows_of(self.total)
        self.first: Expr = index(0)
        self.stage = self._stage()
        self.step = decision.dot.step if decision.dot else 1
        known_weight = workload.weight_arg is not None
        self.laid = weight(self.total, self.shape, self.step) if known_weight else None
        self.pack: Pack | WordPack | None = None
        self.kernel: RegisterTile
        if decision.dot is not None:
            assert workload.types is not None
            self.kernel, self.pack = dot_kernel(
                self.total, self.shape, decision.dot, workload.types, self._lhs, self.laid
            )
            return
        self.pack = None if known_weight else Pack.of(self.total, self.shape)
        source = self.laid or self.pack
        assert source is not None

        def term(at: Values, k: Values, panel: Panel, j: Expr) -> Expr:
            return self._lhs(at, k) * source.read(panel, k, j)

        self.kernel = TileKernel(self.total, self.shape, term)

    def _stage(self) -> Stage | None:
        moving: dict[Axis, Size] = {self.width: known(self.width.extent)}
        if self.height is not None:
            whole = known(self.height.extent)
            moving[self.height] = self.decision.block_rows or whole
        return Stage.of(self.total, moving, words=self.decision.dot is not None)

    def build(self, kernel: Kernel) -> Scheduled:
        params = list(kernel.func.params)
        layouts: dict[int, Layout] = {}
        if self.laid is not None and self.workload.weight_arg is not None:
            params[self.workload.weight_arg] = self.laid.buffer
            layouts[self.workload.weight_arg] = self.laid.layout
        pixels = size((self.width,))
        if self.decision.flat:
            assert self.height is not None
            pixels = size((self.height, self.width))
        body = cut(pixels, self.shape.rows, self._blocks, overlap=True)
        body = followed(self.total, body, self.shape.lanes, self.decision.parallel != "none")
        func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
        return Scheduled(func, layouts)

    def _lhs(self, at: Values, k: Values) -> Expr:
        if self.stage is None:
            return substitute(self.total.lhs.value, {**at, **k})
        relative = dict(at)
        if self.height is not None and self.decision.block_rows:
            relative[self.height.var] = at[self.height.var] - self.first
        return self.stage.read(relative, k)

    def _blocks(self, tiles: Tiles) -> tirx.Stmt:
        """The loop over images and blocks of rows; panels are inside it, or part of it."""
        rows = 1 if self.height is None else known(self.height.extent)
        blocks = ceildiv(rows, self.decision.block_rows) if self.decision.block_rows else 1
        panels = ceildiv(size(self.total.cols), self.shape.cols)
        outer = (*self.total.batch, *self.images)
        count = known(blocks * size(outer))
        if any(constant(n) == 0 for n in (rows, panels, count, tiles.count)):
            return tirx.Evaluate(index(0))
        kind = self._kind("blocks")

        def task(flat: Expr, blocks: Expr) -> tirx.Stmt:
            place = unravel(flat // blocks, outer)
            return bind_each(place, lambda at: self._block(at, flat % blocks, rows, panels, tiles))

        return bind(
            blocks, lambda b: loop(count, lambda flat: task(flat, b), kind, "task"), "blocks"
        )

    def _kind(self, level: str) -> tirx.ForKind:
        return PARALLEL if self.decision.parallel == level else SERIAL

    def _block(self, at: Values, number: Expr, rows: Size, panels: Size, tiles: Tiles) -> tirx.Stmt:
        step = self.decision.block_rows

        def body(first: Expr) -> tirx.Stmt:
            self.first = first
            count = known(least(step, rows - first)) if step else rows
            start = {} if self.height is None else {self.height.var: first}
            fill = (
                None if self.stage is None else self.stage.fill({**at, **start}, self.shape.lanes)
            )
            work = loop(
                panels, lambda p: self._panel(at, p, first, count, tiles), self._kind("panels"), "p"
            )
            return block(fill, work)

        return bind(number * step, body, "first") if step else body(index(0))

    def _panel(self, at: Values, number: Expr, first: Expr, count: Size, tiles: Tiles) -> tirx.Stmt:
        batch = {axis.var: at[axis.var] for axis in self.total.batch}
        images = {axis.var: at[axis.var] for axis in self.images}

        def body(panel: Panel) -> tirx.Stmt:
            fill = None if self.pack is None else self.pack.fill(panel)
            spill = None
            if self.kernel.heavy or panel.ragged:
                shape = [tiles.rows, self.shape.cols]
                spill = allocate(shape, self.total.dtype, "sums")
            space = None if spill is None else tirx.AllocBuffer(spill)
            begin = self.kernel.begin(panel)
            return block(
                fill, begin, space, self._pixels(panel, images, first, count, tiles, spill)
            )

        return open_panel(self.total, batch, number, self.shape.cols, body)

    def _pixels(
        self,
        panel: Panel,
        images: Values,
        first: Expr,
        count: Size,
        tiles: Tiles,
        spill: Var | None,
    ) -> tirx.Stmt:
        def tile(row: Callable[[Expr], Values], height: int, number: Expr) -> tirx.Stmt:
            ahead = None
            if self.laid is not None and self.decision.ahead:
                steps = steps_of(self.total, self.step)
                ahead = self.laid.prefetch(panel, number, self.decision.ahead, steps)
            return self.kernel.tile(row, height, panel, spill, ahead=ahead)

        def after(row: Callable[[Expr], Values], height: Expr) -> tirx.Stmt | None:
            return None if spill is None else self.kernel.copy_out(row, height, panel, spill)

        if self.decision.flat:
            assert self.height is not None
            pair = (self.height, self.width)
            flat = lambda start: lambda i: {**images, **unravel(i + start, pair)}  # noqa: E731
            parts = [
                block(tile(flat(start), height, index(t)), after(flat(start), index(height)))
                for t, (start, height) in enumerate(tiles.listed())
            ]
            return block(*parts)

        def line(y: Expr) -> tirx.Stmt:
            fixed = {**images, **({} if self.height is None else {self.height.var: first + y})}
            along = lambda x: lambda i: {**fixed, self.width.var: x + i}  # noqa: E731

            def one(t: Expr) -> tirx.Stmt:
                number = y * tiles.count + t
                return tiles.each(
                    t,
                    lambda x, high: tile(along(x), high, number),
                    lambda x, high: after(along(x), high),
                )

            return loop(tiles.count, one, name="t")

        return loop(count, line, name="y")
