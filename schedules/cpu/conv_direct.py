"""Convolutions as sums over a sliding window: any rank, stride, dilation, groups.

    for image, block of output rows:                     in parallel, or the panels inside are
        stage the padded input rows of the block         (window.py; only if there is padding)
        for panel of output channels, output row:
            for tile of pixels along the row:  registers, then epilogue         (tile.py)
        turn what was kept of the block             (turned.py; only if it is stored across)

Channels are the vectors (NHWC). Small images, whose rows are shorter than a tile, take their pixels
row after row instead. A transposed convolution arrives here as one over a dilated input.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import dtype_bits

from ..kernel.analysis import Axis, constant, substitute, variables
from ..kernel.contraction import rows_of, size
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
    held,
    hidden,
    index,
    known,
    least,
    loop,
    most,
    unravel,
)
from ..rule import Kernel, Layout, Scheduled
from .after import followed
from .conv_choice import Decision, Workload
from .dot_tile import dot_kernel
from .panel import Panel, open_panel
from .panels import Pack, Weight, weight
from .rows import Tiles, cut
from .shared_tile import SharedTile, runs
from .tile import Kernel as TileKernel
from .tile import RegisterTile
from .turned import Turned
from .window import Stage, window
from .words import WordPack, steps_of


class Builder:
    """One convolution kernel under construction."""

    def __init__(self, workload: Workload, decision: Decision, chains: int) -> None:
        self.total = workload.contraction
        self.workload = workload
        self.decision = decision
        self.shape = decision.tile
        self.images, self.height, self.width = rows_of(self.total)
        self.turned: Turned | None = None
        self.shared: SharedTile | None = None
        if decision.turned:
            assert self.height is not None
            self.turned = Turned.of(self.total, decision.block_rows or known(self.height.extent))
            self.total = self.turned.sum
        self.first: Expr = index(0)
        self.block: Size = decision.block_rows
        if decision.block_bytes and self.height is not None and self._lines_first():
            self.block = Var("block_rows", "int64")
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

        self.kernel = TileKernel(self.total, self.shape, term, chains=chains)
        self.shared = self._shared(source)

    def _shared(self, panels: Weight | Pack) -> SharedTile | None:
        """The tiles that products share, if heights of tiles are mixed and lines lie in runs."""
        total = self.total
        if not self.decision.heights:
            return None
        rows: Values = {axis.var: axis.var for axis in (*total.batch, *total.rows)}
        load = self._lhs(rows, {axis.var: axis.var for axis in total.reduce})
        along = runs(total, load)
        if along is None:
            return None
        return SharedTile(
            self.kernel,
            self._lhs,
            along,
            panels,
            heights=tuple(height for height, _ in self.decision.heights),
            ahead=self.decision.ahead > 0,
        )

    @property
    def _whole(self) -> bool:
        """Whether a block is an image."""
        return isinstance(self.block, int) and self.block == 0

    def _lines_first(self) -> bool:
        """Whether the stage, if there is one, is line after line: their number is in no address."""
        assert self.height is not None
        stage = Stage.of(self.total, {self.width: known(self.width.extent), self.height: 1})
        load = self.total.lhs.load
        if stage is None or load is None:
            return True
        return self.height.var in variables(load.indices[stage.order[0]])

    def _stage(self) -> Stage | None:
        moving: dict[Axis, Size] = {self.width: known(self.width.extent)}
        if self.height is not None:
            whole = known(self.height.extent)
            moving[self.height] = whole if self._whole else self.block
        named = {self.block: self._rows_of_a_block()} if isinstance(self.block, Var) else {}
        return Stage.of(self.total, moving, words=self.decision.dot is not None, spelled=named)

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
        body = cut(pixels, self.shape.rows, self._blocks, self.decision.heights)
        body = followed(self.total, body, self.shape.lanes, self.decision.parallel != "none")
        func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
        return Scheduled(func, layouts)

    def _lhs(self, at: Values, k: Values) -> Expr:
        if self.stage is None:
            return substitute(self.total.lhs.value, {**at, **k})
        relative = dict(at)
        if self.height is not None and not self._whole:
            relative[self.height.var] = at[self.height.var] - self.first
        return self.stage.read(relative, k)

    def _blocks(self, tiles: Tiles) -> tirx.Stmt:
        """The loop over images and blocks of rows; panels are inside it, or part of it."""
        rows = 1 if self.height is None else known(self.height.extent)
        blocks = 1 if self._whole else known((rows + (self.block - 1)) // index(self.block))
        panels = ceildiv(size(self.total.cols), self.shape.cols)
        outer = self.images if self.turned else (*self.total.batch, *self.images)
        count = known(blocks * size(outer))
        if any(constant(n) == 0 for n in (rows, panels, count, tiles.count)):
            return tirx.Evaluate(index(0))
        kind = self._kind("blocks")

        def task(flat: Expr, blocks: Expr) -> tirx.Stmt:
            place = unravel(flat // blocks, outer)
            return bind_each(place, lambda at: self._block(at, flat % blocks, rows, panels, tiles))

        loops = bind(
            blocks, lambda b: loop(count, lambda flat: task(flat, b), kind, "task"), "blocks"
        )
        if not isinstance(self.block, Var):
            return loops
        return hidden(self._rows_of_a_block(), self.block, loops)

    def _rows_of_a_block(self) -> Expr:
        """As `blocked` has it where sizes are known: equal blocks whose input fits the cache."""
        assert self.height is not None
        rows = self.height.extent
        extents = window(self.total, {self.width: known(self.width.extent)})
        load = self.total.lhs.load
        assert extents is not None and load is not None
        row_bytes: Expr = index(dtype_bits(str(load.source.dtype)) // 8)
        for extent in extents:
            row_bytes = row_bytes * extent
        fits = most(index(self.decision.block_bytes) // most(row_bytes, 1), 1)
        blocks = most((rows + (fits - 1)) // fits, self.decision.least_blocks)
        return index(most((rows + (blocks - 1)) // blocks, 1))

    def _kind(self, level: str) -> tirx.ForKind:
        return PARALLEL if self.decision.parallel == level else SERIAL

    def _block(self, at: Values, number: Expr, rows: Size, panels: Size, tiles: Tiles) -> tirx.Stmt:
        step = self.block

        def sums(at: Values, first: Expr, count: Size) -> tirx.Stmt:
            start = {} if self.height is None else {self.height.var: first}
            spread = self._kind("panels")
            fill = None
            if self.stage is not None:
                alone = spread is PARALLEL
                fill = self.stage.fill({**at, **start}, self.shape.lanes, parallel=alone)
            work = loop(panels, lambda p: self._panel(at, p, first, count, tiles), spread, "p")
            return block(fill, work)

        def body(first: Expr) -> tirx.Stmt:
            self.first = first
            fits = isinstance(rows, int) and isinstance(step, int) and step and rows % step == 0
            whole = self._whole or fits
            count = known(least(rows if self._whole else step, rows if whole else rows - first))
            if self.turned is None:
                return sums(at, first, count)
            groups = self.total.batch
            return block(
                tirx.AllocBuffer(self.turned.kept),
                loop(
                    size(groups),
                    lambda g: bind_each(
                        unravel(g, groups), lambda group: sums({**at, **group}, first, count)
                    ),
                    name="group",
                ),
                self.turned.store(at, first, count, self.decision.turned),
            )

        return body(index(0)) if self._whole else bind(number * step, body, "first")

    def _panel(self, at: Values, number: Expr, first: Expr, count: Size, tiles: Tiles) -> tirx.Stmt:
        batch = {axis.var: at[axis.var] for axis in self.total.batch}
        images = {axis.var: at[axis.var] for axis in self.images}

        def body(panel: Panel) -> tirx.Stmt:
            spill = None
            if self.shared is None and (self.kernel.heavy or panel.ragged):
                shape = [tiles.rows, self.shape.cols]
                spill = allocate(shape, self.total.dtype, "sums")
            space = None if spill is None else tirx.AllocBuffer(spill)
            begin = self.kernel.begin(panel)
            done = block(begin, space, self._pixels(panel, images, first, count, tiles, spill))
            pack = self.pack
            return done if pack is None else held(pack.buffer, block(pack.fill(panel), done))

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
            flat = lambda start: lambda i: self._at(images, unravel(i + start, pair))  # noqa: E731
            parts = [
                block(tile(flat(start), height, index(t)), after(flat(start), index(height)))
                for t, (start, height) in enumerate(tiles.listed())
            ]
            return block(*parts)

        def line(y: Expr) -> tirx.Stmt:
            fixed = (
                images if self.height is None else self._at(images, {self.height.var: first + y}, y)
            )
            along = lambda x: lambda i: {**fixed, self.width.var: x + i}  # noqa: E731

            def one(t: Expr) -> tirx.Stmt:
                number = y * tiles.count + t
                if self.shared is not None:
                    shared = self.shared
                    return tiles.at(t, lambda x, high: shared.tile(along(x), high, panel, number))
                return tiles.each(
                    t,
                    lambda x, high: tile(along(x), high, number),
                    lambda x, high: after(along(x), high),
                )

            return loop(tiles.count, one, name="t")

        return loop(count, line, name="y")

    def _at(self, images: Values, row: Values, line: Expr | None = None) -> Values:
        """A place of the output; `line` is its row in the block, by default in the whole image."""
        assert self.height is not None
        if self.turned is None:
            return {**images, **row}
        line = row[self.height.var] if line is None else line
        return {**images, **row, self.turned.line: line}
