"""The loops of a matrix product around its register tiles.

    for batch, block of rows, panel of columns in parallel:
        pack the panel                               unless it is a weight or read in place
        for tile of rows in block:  registers, then epilogue      (see tile.py)

A last panel that is not full is taken by tiles that are as narrow as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from tvm import tirx
from tvm.ir import Expr

from ..kernel.analysis import constant
from ..kernel.contraction import Contraction, size
from ..kernel.emit import (
    PARALLEL,
    SERIAL,
    Values,
    allocate,
    bind,
    block,
    ceildiv,
    index,
    known,
    least,
    loop,
    unravel,
)
from .flat_rows import rows_at
from .panels import Weight
from .rows import Tiles
from .tile import Panel, RegisterTile, Shape, open_panel
from .words import steps_of


class Packing(Protocol):
    """What fills a panel before tiles pass over it."""

    def fill(self, panel: Panel) -> tirx.Stmt: ...


@dataclass(frozen=True, eq=False)
class Passes:
    """The passes of tiles over panels. For the fields see `Decision` of gemm.py."""

    total: Contraction
    shape: Shape
    tile: RegisterTile
    parallel: bool
    block_tiles: int = 0
    pack: Packing | None = None
    laid: Weight | None = None
    ahead: int = 0
    step: int = 1
    """Steps of the sum that one of the tile takes at once."""
    narrow: tuple[Passes, ...] = ()
    """What takes the last panel where it is not full."""

    def loops(self, tiles: Tiles) -> tirx.Stmt:
        """The loops over batch, blocks of rows and panels, run in parallel as one."""
        total, step = self.total, self.block_tiles
        panels = ceildiv(size(total.cols), self.shape.cols)
        blocks = ceildiv(tiles.count, step) if step else 1
        if any(constant(n) == 0 for n in (panels, tiles.count, size(total.batch))):
            return tirx.Evaluate(index(0))

        def task(flat: Expr, panels: Expr, blocks: Expr) -> tirx.Stmt:
            batch = unravel(flat // panels // blocks, total.batch)
            return bind(
                flat // panels % blocks,
                lambda group: open_panel(
                    total,
                    batch,
                    flat % panels,
                    self.shape.cols,
                    lambda panel: self._panel(tiles, panel, group),
                ),
                "block",
            )

        def tasks(panels: Expr, blocks: Expr) -> tirx.Stmt:
            count = known(panels * blocks * size(total.batch))
            kind = PARALLEL if self.parallel else SERIAL
            return loop(count, lambda flat: task(flat, panels, blocks), kind, "task")

        return bind(panels, lambda p: bind(blocks, lambda b: tasks(p, b), "blocks"), "panels")

    def _panel(self, tiles: Tiles, panel: Panel, group: Expr) -> tirx.Stmt:
        """One panel; if it is not full, by what is as narrow."""
        if not self.narrow or not panel.ragged:
            return self._tiles(tiles, panel, group)
        vectors = ceildiv(panel.valid, self.shape.lanes)
        parts = []
        for one in self.narrow:
            body = one._tiles(tiles, replace(panel, partial=True), group)
            fits = tirx.And(tirx.Not(panel.full), index(vectors) == one.shape.vectors)
            parts.append(tirx.IfThenElse(fits, body, None))
        packs = self.pack is not None
        mine = index(vectors) == self.shape.vectors if packs else panel.full
        whole = panel if packs else replace(panel, total=panel.width)
        return block(*parts, tirx.IfThenElse(mine, self._tiles(tiles, whole, group), None))

    def _tiles(self, tiles: Tiles, panel: Panel, group: Expr) -> tirx.Stmt:
        """The tiles of block `group` of rows over one panel."""
        step, total = self.block_tiles, self.total
        fill = None if self.pack is None else self.pack.fill(panel)
        spill = None
        if self.tile.heavy or panel.ragged:
            spill = allocate([tiles.rows, self.shape.cols], total.dtype, "sums")
        first = group * step if step else index(0)
        count = known(least(step, tiles.count - first)) if step else tiles.count

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
                    lambda at: self.tile.tile(at, height, panel, spill, ahead=ahead),
                )

            return tiles.each(first + t, body, after)

        space = None if spill is None else tirx.AllocBuffer(spill)
        return block(fill, self.tile.begin(panel), space, loop(count, one, name="t"))
