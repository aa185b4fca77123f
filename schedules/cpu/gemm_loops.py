"""The loops of a matrix product around its register tiles.

    for batch, block of rows, panel of columns in parallel:
        pack the panel                               unless it is a weight or read in place
        for tile of rows in block:  registers, then epilogue      (see tile.py)

A last panel that is not full is taken by tiles that are as narrow as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import dtype_bits

from ..kernel.analysis import constant
from ..kernel.contraction import Contraction, size
from ..kernel.emit import (
    PARALLEL,
    Size,
    Values,
    allocate,
    bind,
    block,
    ceildiv,
    held,
    hidden,
    index,
    known,
    least,
    loop,
    most,
    nest,
    unravel,
)
from .columns import columns_ahead
from .flat_rows import rows_at
from .panel import Panel, open_panel
from .panels import Weight
from .rows import Tiles
from .shared_tile import SharedTile
from .tile import Ahead, RegisterTile, Shape
from .words import steps_of


class Packing(Protocol):
    """What fills a panel before tiles pass over it."""

    @property
    def buffer(self) -> Var: ...

    def fill(self, panel: Panel) -> tirx.Stmt: ...


@dataclass(frozen=True, eq=False)
class Passes:
    """The passes of tiles over panels. For the fields see `Decision` of gemm.py."""

    total: Contraction
    shape: Shape
    tile: RegisterTile
    parallel: bool
    block_tiles: Size = 0
    pack: Packing | None = None
    laid: Weight | None = None
    ahead: int = 0
    step: int = 1
    """Steps of the sum that one of the tile takes at once."""
    narrow: tuple[Passes, ...] = ()
    """What takes the last panel where it is not full, the narrowest first."""
    masks: bool = False
    """Whether columns that are not there are left out by masks (masks.py)."""
    near_bytes: int = 0
    """Bytes of panels read in place that one tile of rows passes over before the next."""
    places: Mapping[Var, Expr] = field(default_factory=dict)
    """Names of indices over the rows, which are looked up (flat_rows.py)."""
    columns: bool = False
    """Whether the rows are columns in memory (columns.py)."""
    shared: SharedTile | None = None
    """What takes tiles of every height by a function that products share."""
    near_rows: int = 0

    def loops(self, tiles: Tiles) -> tirx.Stmt:
        """The loops over batch, blocks of rows and groups of panels, run in parallel as one."""
        blocks = 1 if self._is_one_block else ceildiv(tiles.count, self.block_tiles)
        if not self.near_rows:
            return self._loops(tiles, blocks)
        far = size(self.total.rows) > index(self.near_rows)
        step, count = Var("step", "int64"), Var("blocks", "int64")
        loops = replace(self, block_tiles=step)._loops(tiles, count)
        counted = tirx.Select(far, index(tiles.count), index(blocks))
        stepped = tirx.Select(far, index(1), index(self.block_tiles))
        return hidden(stepped, step, hidden(counted, count, loops))

    def _loops(self, tiles: Tiles, blocks: Size) -> tirx.Stmt:
        total = self.total
        every = ceildiv(size(total.cols), self.shape.cols)
        if any(constant(n) == 0 for n in (every, tiles.count, size(total.batch))):
            return tirx.Evaluate(index(0))

        def task(batch: Values, block: Expr, number: Expr, many: Expr) -> tirx.Stmt:
            return bind(
                block,
                lambda group: self._group(tiles, batch, number, many, every, group),
                "block",
            )

        def tasks(groups: Expr, blocks: Expr, many: Expr) -> tirx.Stmt:
            extents = [size(total.batch), known(blocks), known(groups)]
            if not self.parallel:
                return nest(
                    extents, lambda at: task(unravel(at[0], total.batch), at[1], at[2], many)
                )

            def one(flat: Expr) -> tirx.Stmt:
                batch = unravel(flat // groups // blocks, total.batch)
                return task(batch, flat // groups % blocks, flat % groups, many)

            return loop(known(groups * blocks * size(total.batch)), one, PARALLEL, "task")

        def grouped(many: Expr) -> tirx.Stmt:
            groups = every if constant(many) == 1 else (every + (many - 1)) // many
            return bind(groups, lambda n: bind(blocks, lambda b: tasks(n, b, many), "blocks"), "n")

        return bind(self._panels_at_once(), grouped, "panels")

    def _ahead(self, at: Callable[[Expr], Values], height: int, panel: Panel) -> Ahead | None:
        """What fetches the rows of a tile, where they are columns in memory."""
        return columns_ahead(self.total, at, height, panel) if self.columns else None

    def _panels_at_once(self) -> Size:
        """How many panels one tile of rows passes over before the next: those that stay near."""
        if not self.near_bytes:
            return 1
        bits = dtype_bits(self.total.dtype)
        panel = size(self.total.reduce) * (self.shape.cols * bits // 8)
        return most(1, known(self.near_bytes // most(1, panel)))

    def _group(
        self, tiles: Tiles, batch: Values, number: Expr, many: Expr, every: Size, group: Expr
    ) -> tirx.Stmt:
        """One group of panels."""
        width = self.shape.cols

        def opened(number: Expr, body: Callable[[Panel], tirx.Stmt]) -> tirx.Stmt:
            return open_panel(self.total, batch, number, width, body, masks=self.masks)

        if not self.near_bytes:
            return opened(number, lambda panel: self._panel(tiles, panel, group))
        start, whole = number * many, index(size(self.total.cols)) // width

        def over(at: Callable[[Expr], Values], height: int) -> tirx.Stmt:
            def tile(panel: Panel) -> tirx.Stmt:
                whole = replace(panel, total=width)
                ahead = self._ahead(at, height, whole)
                return self.tile.tile(at, height, whole, None, ahead=ahead)

            return loop(
                known(least(many, whole - start)),
                lambda p: opened(start + p, tile),
                name="p",
            )

        def rest(panel: Panel) -> tirx.Stmt:
            return self._panel(tiles, replace(panel, partial=True), group)

        last = tirx.And(start <= whole, whole < start + many)
        last = tirx.And(last, whole * width < index(size(self.total.cols)))
        return block(
            tirx.IfThenElse(start < whole, self._each_tile(tiles, group, over), None),
            tirx.IfThenElse(last, opened(whole, rest), None),
        )

    def _panel(self, tiles: Tiles, panel: Panel, group: Expr) -> tirx.Stmt:
        """One panel; if it is not full, by what is as narrow."""
        if not self.narrow or not panel.ragged:
            return self._tiles(tiles, panel, group)
        parts, done = [], 0
        for one in self.narrow:
            part = replace(panel, partial=True, sure=done + 1)
            fits = tirx.And(panel.valid > done, panel.valid <= one.shape.cols)
            if one.shape.cols == panel.width:
                fits = tirx.And(tirx.Not(panel.full), fits)
            parts.append(tirx.IfThenElse(fits, one._tiles(tiles, part, group), None))
            done = one.shape.cols
        if done == panel.width:
            mine, whole = panel.full, replace(panel, total=panel.width)
        else:
            mine, whole = panel.valid > done, replace(panel, sure=done + 1)
        return block(*parts, tirx.IfThenElse(mine, self._tiles(tiles, whole, group), None))

    def _each_tile(
        self,
        tiles: Tiles,
        group: Expr,
        body: Callable[[Callable[[Expr], Values], int], tirx.Stmt],
    ) -> tirx.Stmt:
        """``body(rows, height)`` for the tiles of block `group` of rows."""
        total = self.total
        first, count = self._of_block(tiles, group)

        def one(row: Expr, height: int) -> tirx.Stmt:
            return rows_at(total.rows, row, height, lambda at: body(at, height), self.places)

        def nothing(_row: Expr, _height: Expr) -> None:
            return None

        return loop(count, lambda t: tiles.each(first + t, one, nothing), name="t")

    def _tiles(self, tiles: Tiles, panel: Panel, group: Expr) -> tirx.Stmt:
        """The tiles of block `group` of rows over one panel."""
        done = self._shared(tiles, panel, group) if self.shared else self._own(tiles, panel, group)
        pack = self.pack
        return done if pack is None else held(pack.buffer, block(pack.fill(panel), done))

    def _of_block(self, tiles: Tiles, group: Expr) -> tuple[Expr, Size]:
        """The first tile of block `group` of rows, and how many it has."""
        if self._is_one_block:
            return index(0), tiles.count
        first = group * self.block_tiles
        return first, known(least(self.block_tiles, tiles.count - first))

    @property
    def _is_one_block(self) -> bool:
        return isinstance(self.block_tiles, int) and self.block_tiles == 0

    def _shared(self, tiles: Tiles, panel: Panel, group: Expr) -> tirx.Stmt:
        """Tiles by the function that products share, the same code for every height."""
        first, count = self._of_block(tiles, group)
        shared, rows = self.shared, self.total.rows
        assert shared is not None

        def tile(t: Expr, row: Expr, height: Expr) -> tirx.Stmt:
            return shared.tile(lambda i: unravel(row + i, rows), height, panel, t)

        return loop(count, lambda t: tiles.at(first + t, partial(tile, t)), name="t")

    def _own(self, tiles: Tiles, panel: Panel, group: Expr) -> tirx.Stmt:
        """Tiles whose every height is code of the kernel's own."""
        total = self.total
        spill = None
        if self.tile.spills(panel):
            spill = allocate([tiles.rows, self.shape.cols], total.dtype, "sums")
        first, count = self._of_block(tiles, group)

        def at(row: Expr) -> Callable[[Expr], Values]:
            return lambda i: unravel(row + i, total.rows)

        def after(row: Expr, height: Expr) -> tirx.Stmt | None:
            return None if spill is None else self.tile.copy_out(at(row), height, panel, spill)

        def one(t: Expr) -> tirx.Stmt:
            ahead = None
            if self.laid is not None and self.ahead:
                steps = steps_of(total, self.step)
                ahead = self.laid.prefetch(panel, t, self.ahead, steps)

            def body(row: Expr, height: int) -> tirx.Stmt:
                return rows_at(
                    total.rows,
                    row,
                    height,
                    lambda at: self.tile.tile(
                        at, height, panel, spill, ahead=ahead or self._ahead(at, height, panel)
                    ),
                    self.places,
                )

            return tiles.each(first + t, body, after)

        space = None if spill is None else tirx.AllocBuffer(spill)
        return block(self.tile.begin(panel), space, loop(count, one, name="t"))
