"""Depthwise convolutions: both operands depend on the channel, which vectors run along.

    for image, block of output rows in parallel:
        for block of channels, output row:
            for tile of pixels along the row:  registers, then epilogue         (tile.py)

There is too little arithmetic per element to copy the input first. Padding is skipped instead: the
window's rows that lie outside are left out of the loop over them, and pixels whose window is cut
off at the left or right are computed one by one, the others in tiles without any guard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import gcd

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import Arch

from ..analysis import analyzer, constant, flat_index, stride, substitute
from ..rule import Declined, Kernel, Scheduled
from .after import followed
from .contraction import Contraction, rows_of, size
from .emit import (
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
    most,
    unravel,
)
from .gemm import PARALLEL_FLOPS, TYPES, known_size
from .panels import weight
from .read_contraction import contraction
from .rows import Tiles, cut
from .tile import Kernel as TileKernel
from .tile import Panel, Shape, open_panel
from .window import padding

BLOCK_ROWS = 8
"""Output rows of a block: the rows of input that two blocks both read are a small part."""


@dataclass(frozen=True)
class Workload:
    """A depthwise convolution. Sizes are None when they are known at run time only."""

    images: int | None
    height: int | None
    width: int | None
    channels: int
    taps: int | None
    padded: bool
    weight_arg: int | None
    dtype: str
    contraction: Contraction = field(repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """A register tile of pixels by vectors of channels, and what runs in parallel."""

    tile: Shape
    block_rows: int
    parallel: bool


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
        channel = found.batch[-1]
        view = _as_columns(found)
        position = found.constant_rhs(kernel)
        if position is not None and weight(view, Shape(1, 1, 1)) is None:
            position = None
        images, height, width = rows_of(found)
        return Workload(
            known_size(images),
            1 if height is None else height.size,
            width.size,
            channel.size or 1,
            known_size(found.reduce),
            found.lhs.source is not None,
            position,
            found.dtype,
            view,
        )

    def choose(self, workload: Workload, arch: Arch) -> Decision:
        lanes = gcd(workload.channels, arch.vector_lanes(workload.dtype))
        count = workload.channels // lanes
        vectors = next(n for n in (2, 3, 1) if count % n == 0)
        # Inputs are operands of the FMAs; sums and one vector of the weights stay in registers.
        rows = min(12, (arch.vector_registers - vectors - 2) // vectors)
        if workload.width is None:
            rows = 8
        height = workload.height or 56
        pixels = height * (workload.width or 56) * (workload.images or 1)
        flops = 2 * pixels * workload.channels * (workload.taps or 9)
        parallel = arch.cores > 1 and flops >= PARALLEL_FLOPS
        block_rows = min(BLOCK_ROWS, -(-height // (2 * arch.cores))) if parallel else BLOCK_ROWS
        return Decision(Shape(rows, vectors, lanes), max(1, block_rows), parallel)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: Arch
    ) -> Scheduled:
        return _Builder(workload, decision).build(kernel)


def _declines(found: Contraction) -> str:
    if found.dtype not in TYPES:
        return f"sums in {found.dtype}"
    if found.cols or not found.batch or not found.rows or not found.reduce:
        return "not a window over channels of their own"
    load, channel = found.lhs.load, found.batch[-1]
    if load is None or channel.size is None:
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
        self.images, self.height, self.width = rows_of(self.total)
        self.padding = padding(self.total)

    def build(self, kernel: Kernel) -> Scheduled:
        params = list(kernel.func.params)
        layouts = {}
        value = self.total.lhs.value if self.padding is None else self.padding.value
        taps = lambda panel, k, j: substitute(  # noqa: E731
            self.total.rhs.value, {**panel.at, **k, **panel.cols(j)}
        )
        if self.workload.weight_arg is not None:
            laid = weight(self.total, self.decision.tile)
            assert laid is not None
            params[self.workload.weight_arg] = laid.buffer
            layouts[self.workload.weight_arg] = laid.layout
            taps = laid.read

        def term(at: Values, k: Values, panel: Panel, j: Expr) -> Expr:
            return substitute(value, {**at, **k, **panel.cols(j)}) * taps(panel, k, j)

        self.kernel = TileKernel(self.total, self.decision.tile, term)
        tile, parallel = self.decision.tile, self.decision.parallel
        body = followed(self.total, self._blocks(), tile.lanes, parallel)
        func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
        return Scheduled(func, layouts)

    def _blocks(self) -> tirx.Stmt:
        """The loop over images and blocks of rows, and the panels of channels inside."""
        step = self.decision.block_rows
        rows: Size = 1 if self.height is None else known(self.height.extent)
        outer = (*self.total.batch, *self.images)
        panels = self.workload.channels // self.decision.tile.cols
        count = known(ceildiv(rows, step) * size(outer))
        if any(constant(n) == 0 for n in (rows, panels, count, self.width.extent)):
            return tirx.Evaluate(index(0))
        kind = PARALLEL if self.decision.parallel else SERIAL

        def task(flat: Expr, blocks: Expr) -> tirx.Stmt:
            return bind_each(
                unravel(flat // blocks, outer),
                lambda at: bind(
                    flat % blocks * step,
                    lambda first: self._panels(at, first, rows, panels),
                    "first",
                ),
            )

        return bind(
            ceildiv(rows, step),
            lambda blocks: loop(count, lambda flat: task(flat, blocks), kind, "task"),
            "blocks",
        )

    def _panels(self, at: Values, first: Expr, rows: Size, panels: int) -> tirx.Stmt:
        batch = {axis.var: at[axis.var] for axis in self.total.batch}
        images = {axis.var: at[axis.var] for axis in self.images}
        count = known(least(self.decision.block_rows, rows - first))

        def lines(panel: Panel) -> tirx.Stmt:
            def line(y: Expr) -> tirx.Stmt:
                fixed = dict(images)
                if self.height is not None:
                    fixed[self.height.var] = first + y
                return self._line(panel, fixed)

            return loop(count, line, name="y")

        return loop(
            panels,
            lambda p: open_panel(self.total, batch, p, self.decision.tile.cols, lines),
            name="p",
        )

    def _line(self, panel: Panel, fixed: Values) -> tirx.Stmt:
        """One row of output pixels: those cut off at the left, the inner ones, the others."""
        width = known(self.width.extent)
        pad = self.padding
        above = {} if pad is None else pad.ranges(fixed, self.width)
        begin, end = (0, width) if pad is None else pad.inside(self.width)

        def single(x: Expr) -> tirx.Stmt:
            assert pad is not None
            ranges = {**above, **pad.ranges({**fixed, self.width.var: x}, None)}
            return self._tile(panel, fixed, x, 1, ranges)

        def inner(tiles: Tiles) -> tirx.Stmt:
            return loop(
                tiles.count,
                lambda t: tiles.each(
                    t,
                    lambda x, high: self._tile(panel, fixed, x + index(begin), high, above),
                    lambda _x, _high: None,
                ),
                name="t",
            )

        middle = cut(known(most(end - begin, 0)), self.decision.tile.rows, inner, overlap=True)
        if pad is None:
            return middle
        return block(
            loop(begin, single, name="x"),
            middle,
            loop(known(width - most(end, begin)), lambda x: single(x + most(end, begin)), name="x"),
        )

    def _tile(
        self,
        panel: Panel,
        fixed: Values,
        x: Expr,
        height: int,
        ranges: dict[Var, tuple[Expr, Expr]],
    ) -> tirx.Stmt:
        row: Callable[[Expr], Values] = lambda i: {**fixed, self.width.var: x + i}  # noqa: E731
        if not self.kernel.heavy:
            return self.kernel.tile(row, height, panel, None, ranges)
        spill = allocate([height, panel.width], self.total.dtype, "sums")
        return block(
            tirx.AllocBuffer(spill),
            self.kernel.tile(row, height, panel, spill, ranges),
            self.kernel.copy_out(row, index(height), panel, spill),
        )
