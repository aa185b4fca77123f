"""The kernel of a matrix product (gemm.py), and of several among which it chooses when it runs.

    for batch, block of rows, panel of columns in parallel:
        pack the panel                               unless it is a weight or read in place
        for tile of rows in block:  registers, then epilogue      (see tile.py)

A last panel that is not full is taken by tiles that are as narrow as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.ir import Expr

from tvmext.arch import CpuArch

from ..kernel.analysis import constant, substitute
from ..kernel.contraction import size
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
from ..rule import Kernel, Layout, Scheduled
from .after import followed
from .dot_tile import dot_kernel
from .flat_rows import flat_rows, rows_at
from .gemm_variants import chosen
from .one_row import OneRow
from .panels import InPlace, Pack, weight
from .rows import Tiles, cut
from .tile import Kernel as TileKernel
from .tile import Panel, RegisterTile, open_panel
from .words import WordPack, steps_of

if TYPE_CHECKING:
    from .gemm import Decision, Workload


def build(kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch) -> Scheduled:
    """The kernel: one product, or several of which one is chosen when it runs."""
    decisions = (decision, *decision.others)
    builders = [_Builder(workload, one) for one in decisions]
    first = builders[0]
    total = first.total
    bodies = [cut(size(total.rows), one.shape.rows, one.loops) for one in builders]
    sizes = (size(total.rows), size(total.cols), size(total.reduce))
    body = chosen(decisions, sizes, workload.rhs, arch.fma_units, bodies)
    body = followed(total, body, decision.tile.lanes, decision.parallel)
    params = list(kernel.func.params)
    layouts: dict[int, Layout] = {}
    if first.laid is not None and workload.weight_arg is not None:
        params[workload.weight_arg] = first.laid.buffer
        layouts[workload.weight_arg] = first.laid.layout
    func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
    return Scheduled(func, layouts)


class _Builder:
    """One matrix product under construction."""

    def __init__(self, workload: Workload, decision: Decision) -> None:
        self.total = flat_rows(workload.contraction)
        self.workload = workload
        self.decision = decision
        self.shape = decision.tile
        self.step = decision.dot.step if decision.dot else 1
        laid = weight(self.total, self.shape, self.step) if decision.rhs == "weight" else None
        self.laid = laid

        def lhs(at: Values, k: Values) -> Expr:
            return substitute(self.total.lhs.value, {**at, **k})

        self.pack: Pack | WordPack | None = None
        self.narrow: list[_Builder] = []
        self.tile: RegisterTile
        if decision.dot is not None:
            assert workload.types is not None
            self.tile, self.pack = dot_kernel(
                self.total, self.shape, decision.dot, workload.types, lhs, laid
            )
            return
        if decision.rhs == "dots":
            self.tile = OneRow(self.total, self.shape)
            return
        self.narrow = list(self._narrow())
        if decision.rhs == "pack":
            self.pack = Pack.of(self.total, self.shape)
        rhs = (laid or self.pack or InPlace(self.total)).read
        self.tile = TileKernel(
            self.total, self.shape, lambda at, k, panel, j: lhs(at, k) * rhs(panel, k, j)
        )

    def _narrow(self) -> Iterator[_Builder]:
        """What takes the last panel where it is not full: packed, of as many vectors as it has."""
        if self.decision.rhs not in ("pack", "in place"):
            return
        cols, lanes = self.workload.cols, self.shape.lanes
        rest = None if cols is None else -(-(cols % self.shape.cols) // lanes)
        for vectors in range(1, self.shape.vectors + (self.decision.rhs == "in place")):
            if rest in (None, vectors):
                tile = replace(self.shape, vectors=vectors)
                yield _Builder(self.workload, replace(self.decision, tile=tile, rhs="pack"))

    def loops(self, tiles: Tiles) -> tirx.Stmt:
        """The loops over batch, blocks of rows and panels, run in parallel as one."""
        total, step = self.total, self.decision.block_tiles
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
            kind = PARALLEL if self.decision.parallel else SERIAL
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
        packs = self.decision.rhs == "pack"
        mine = index(vectors) == self.shape.vectors if packs else panel.full
        whole = panel if packs else replace(panel, total=panel.width)
        return block(*parts, tirx.IfThenElse(mine, self._tiles(tiles, whole, group), None))

    def _tiles(self, tiles: Tiles, panel: Panel, group: Expr) -> tirx.Stmt:
        """The tiles of block `group` of rows over one panel."""
        step, total = self.decision.block_tiles, self.total
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
            if self.laid is not None and self.decision.ahead:
                steps = steps_of(total, self.step)
                ahead = self.laid.prefetch(panel, t, self.decision.ahead, steps)

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
