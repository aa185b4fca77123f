"""Convolutions by Winograd's method (winograd.py), in blocks of tiles that stay in L2.

    for block of tiles:                                in parallel, or the panels inside are
        for tile, vector of channels:  V[u, tile] = B^T d B          padding is zero, not read
        for panel of output channels:
            for position u, register tile of tiles:  M[u] = V[u] U[u]               (tile.py)
            for tile, vector of the panel:  A^T M A, then epilogue

The weight U = G g G^T is made at compile time. Tiles are counted through all images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, prod

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import Arch

from ..analysis import REDUCE, SPATIAL, Axis, substitute
from ..rule import Kernel, Scheduled
from .after import followed
from .contraction import Contraction, Operand, Output, size
from .emit import (
    PARALLEL,
    SERIAL,
    VECTORIZED,
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
from .gemm import PARALLEL_FLOPS, fetches_ahead, known_size
from .panels import Weight, weight
from .tile import Kernel as TileKernel
from .tile import Panel, Shape, open_panel
from .winograd import FILTERS, Plan, Point, Windows, transform

SPREAD = 1.1
"""How much longer than evenly spread blocks may take before panels are spread instead."""


@dataclass(frozen=True)
class Decision:
    """How many outputs a tile has, the register tile, the blocks, and what runs in parallel."""

    step: int
    """Outputs of a tile along each dim: F(step, 3)."""
    tile: Shape
    """`rows` tiles by a panel of output channels."""
    block_tiles: int
    """Register tiles whose transformed input is kept in L2."""
    parallel: str
    """"none", "blocks" or "panels"."""
    ahead: int = 0
    """Register tiles that pass over a panel, if they fetch the next one into L2; else 0."""


def decide(found: Windows, plan: Plan, arch: Arch) -> Decision:
    """Blocks that leave half of L2 to the weight, and feed the cores."""
    channels, columns = found.sizes
    points = FILTERS[plan.step].size ** len(found.bounds)
    depth, rows, width = points * channels, plan.tile.rows, plan.tile.cols
    tile_bytes = 4 * rows * points * (channels + width)
    most = max(1, arch.l2_bytes // 2 // tile_bytes)
    tiles = known_size(found.tiles(plan.step))
    count = None if tiles is None else max(1, ceil(tiles / rows))
    blocks = 1 if count is None else ceil(count / most)
    flops = 2 * depth * columns * rows * (count or most)
    parallel = "none"
    if arch.cores > 1 and flops >= PARALLEL_FLOPS:
        parallel = "panels"
        if 4 * depth * columns <= arch.l2_bytes:
            parallel, blocks = _spread(count, blocks, arch.cores)
    block_tiles = most if count is None else ceil(count / blocks)
    ahead = block_tiles if fetches_ahead(depth, columns, width, arch) else 0
    return Decision(plan.step, plan.tile, block_tiles, parallel, ahead)


def _spread(count: int | None, blocks: int, cores: int) -> tuple[str, int]:
    """What runs in parallel, and the number of blocks: blocks, if they come out nearly even."""
    if count is None:
        return "blocks", blocks
    shared = ceil(blocks / cores) * cores
    height = ceil(count / shared)
    rounds = ceil(ceil(count / height) / cores)
    even = rounds * height * cores <= SPREAD * count
    return ("blocks", shared) if even else ("panels", blocks)


class Builder:
    """One convolution by Winograd's method under construction."""

    def __init__(self, found: Windows, decision: Decision) -> None:
        self.windows = found
        self.total = total = found.total
        self.decision = decision
        self.shape = decision.tile
        self.filter = FILTERS[decision.step]
        self.tiles = found.tiles(decision.step)
        self.points = tuple(product(range(self.filter.size), repeat=len(found.bounds)))
        self.positions = tuple(
            Axis(Var("uvw"[d], "int64"), index(self.filter.size), SPATIAL)
            for d in range(len(found.bounds))
        )
        lanes = self.shape.lanes
        held = decision.block_tiles * self.shape.rows
        spots = [self.filter.size] * len(self.positions)
        chunks = (found.channels.size or 0) // lanes
        self.inputs = allocate([*spots, chunks, held, lanes], total.dtype, "inputs")
        self.products = allocate([held, *spots, self.shape.cols], total.dtype, "products")
        self.row = Axis(Var("tile", "int64"), index(held), SPATIAL)
        self.chunk = Axis(Var("chunk", "int64"), index(chunks), REDUCE)
        self.lane = Axis(Var("lane", "int64"), index(lanes), REDUCE)
        self.laid, self.kernel = self._product()
        self.epilogue = replace(self.kernel, sum=total)

    def _product(self) -> tuple[Weight, TileKernel]:
        """The matrix products of all positions, as a contraction of their own."""
        at = [axis.var for axis in self.positions]
        load = self.total.rhs.load
        assert load is not None
        moved = {bound.tap.var: u for bound, u in zip(self.windows.bounds, at)}
        taps = [dim for dim, i in enumerate(load.indices) if i in moved]
        channel = self.chunk.var * self.shape.lanes + self.lane.var
        places = {**moved, self.windows.channels.var: channel}
        shape = [self.filter.size if d in taps else n for d, n in enumerate(load.source.shape)]
        old = tirx.decl_buffer(shape, self.total.dtype, load.source.name)
        rhs = tirx.BufferLoad(old, [substitute(i, places) for i in load.indices])
        lhs = tirx.BufferLoad(self.inputs, [*at, self.chunk.var, self.row.var, self.lane.var])
        (column,) = self.total.cols
        contraction = Contraction(
            batch=self.positions,
            rows=(self.row,),
            cols=(column,),
            reduce=(self.chunk, self.lane),
            lhs=Operand(lhs, lhs, lhs),
            rhs=Operand(rhs, rhs, rhs),
            total=self.total.total,
            outputs=(Output(self.products, (self.row.var, *at, column.var), self.total.total),),
        )
        found = weight(contraction, self.shape, inside=self.positions)
        assert found is not None
        changes = tuple((dim, self.filter.weight) for dim in taps)
        laid = replace(found, layout=replace(found.layout, products=changes))

        def term(at: Values, k: Values, panel: Panel, j: Expr) -> Expr:
            return substitute(lhs, {**at, **k}) * laid.read(panel, k, j)

        return laid, TileKernel(contraction, self.shape, term)

    def build(self, kernel: Kernel) -> Scheduled:
        params = list(kernel.func.params)
        params[self.windows.weight_arg] = self.laid.buffer
        body = followed(
            self.total, self._blocks(), self.shape.lanes, self.decision.parallel != "none"
        )
        func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
        return Scheduled(func, {self.windows.weight_arg: self.laid.layout})

    def _blocks(self) -> tirx.Stmt:
        tiles = known(size(self.tiles))
        held = self.decision.block_tiles * self.shape.rows
        panels = ceildiv(size(self.total.cols), self.shape.cols)

        def one(number: Expr, tiles: Expr) -> tirx.Stmt:
            return bind(number * held, lambda first: self._block(first, tiles, panels), "first")

        return bind(
            tiles,
            lambda n: loop(
                ceildiv(known(n), held), lambda b: one(b, n), self._kind("blocks"), "task"
            ),
            "tiles",
        )

    def _kind(self, level: str) -> tirx.ForKind:
        return PARALLEL if self.decision.parallel == level else SERIAL

    def _block(self, first: Expr, tiles: Expr, panels: Size) -> tirx.Stmt:
        """The tiles from `first` on, `count` of them; register tiles are full all the same."""
        held = self.decision.block_tiles * self.shape.rows
        count = known(least(held, known(tiles - first)))
        rounds = ceildiv(count, self.shape.rows)

        def load(t: Expr) -> tirx.Stmt:
            there = tirx.min(first + t, tiles - 1)
            return self._at(there, lambda at: self._load(at, t))

        def panel(number: Expr) -> tirx.Stmt:
            return open_panel(
                self.total,
                {},
                number,
                self.shape.cols,
                lambda p: self._panel(p, first, count, rounds),
            )

        return block(
            tirx.AllocBuffer(self.inputs),
            loop(known(rounds * self.shape.rows), load, name="t"),
            loop(panels, panel, self._kind("panels"), "p"),
        )

    def _at(self, tile: Expr, body: Callable[[Values], tirx.Stmt]) -> tirx.Stmt:
        """Where the first output of a tile is, for `body`."""
        place = unravel(tile, self.tiles)
        step = self.decision.step
        first = {
            axis.var: place[axis.var] * step if self.windows.slides(axis) else place[axis.var]
            for axis in self.tiles
        }
        return bind_each(first, body)

    def _load(self, at: Values, tile: Expr) -> tirx.Stmt:
        """The transformed input of one tile; what lies outside of the picture is zero."""
        chunks = known(self.chunk.extent)
        lanes = self.shape.lanes

        def every(value: Callable[[Point, Expr], Expr]) -> tirx.Stmt:
            def vector(chunk: Expr, lane: Expr) -> tirx.Stmt:
                channel = chunk * lanes + lane
                reads = {point: Var("d", self.total.dtype) for point in self.points}
                binds = [tirx.Bind(var, value(point, channel)) for point, var in reads.items()]
                more, results = transform(self.filter.inputs, reads, self.total.dtype)
                stores = (
                    tirx.BufferStore(self.inputs, var, [*map(index, u), chunk, tile, lane])
                    for u, var in results.items()
                )
                return block(*binds, *more, *stores)

            return loop(
                chunks, lambda c: loop(lanes, lambda i: vector(c, i), VECTORIZED, "lane"), name="c"
            )

        def read(point: Point, channel: Expr) -> Expr:
            k = {b.tap.var: index(i) for b, i in zip(self.windows.bounds, point)}
            return substitute(
                self.windows.padding.value, {**at, **k, self.windows.channels.var: channel}
            )

        names, inside, guards = self._guards(at)
        if inside is None:
            return every(read)

        def guarded(point: Point, channel: Expr) -> Expr:
            here = [guards[d][i] for d, i in enumerate(point) if guards[d]]
            zero = tirx.const(0, self.total.dtype)
            return tirx.if_then_else(tirx.all(*here), read(point, channel), zero)

        return block(*names, tirx.IfThenElse(inside, every(read), every(guarded)))

    def _guards(self, at: Values) -> tuple[list[tirx.Stmt], Expr | None, list[list[Expr]]]:
        """Per dim, which of a tile's inputs exist, bound to names; and whether all of them do.

        A dim whose tiles all lie inside has no guards.
        """
        names: list[tirx.Stmt] = []
        whole: list[Expr] = []
        guards: list[list[Expr]] = []
        for bound, axis in zip(self.windows.bounds, self._slid()):
            last = known(axis.extent) * self.decision.step + self.filter.size - self.decision.step
            assert bound.low is not None and bound.high is not None
            if bound.low == 0 and isinstance(last, int) and _within(last, bound.high):
                guards.append([])
                continue
            start = at[axis.var]
            high = start + (self.filter.size - 1) < bound.high
            whole.append(tirx.all(start >= bound.low, high))
            own = []
            for i in range(self.filter.size):
                var = Var("exists", "bool")
                names.append(
                    tirx.Bind(var, tirx.all(start + i >= bound.low, start + i < bound.high))
                )
                own.append(var)
            guards.append(own)
        return names, tirx.all(*whole) if whole else None, guards

    def _slid(self) -> list[Axis]:
        """The tiles along each dim of the window."""
        by_var = {axis.var: axis for axis in self.tiles}
        return [by_var[bound.axis.var] for bound in self.windows.bounds]

    def _panel(self, panel: Panel, first: Expr, count: Size, rounds: Size) -> tirx.Stmt:
        sums = loop(
            prod(known(axis.extent) for axis in self.positions),
            lambda u: self._position(u, panel, rounds),
            name="u",
        )
        leave = loop(
            count, lambda t: self._at(first + t, lambda at: self._leave(at, t, panel)), name="t"
        )
        return block(tirx.AllocBuffer(self.products), sums, leave)

    def _position(self, position: Expr, panel: Panel, rounds: Size) -> tirx.Stmt:
        """One matrix product over the panel."""
        rows, width = self.shape.rows, self.shape.cols

        def one(at: Values) -> tirx.Stmt:
            full = Panel(self.kernel.sum, at, panel.number, index(0), width, width)

            def tile(t: Expr) -> tirx.Stmt:
                ahead = None
                if self.decision.ahead:
                    steps = size(self.kernel.sum.reduce)
                    ahead = self.laid.prefetch(full, t, self.decision.ahead, steps)
                return self.kernel.tile(
                    lambda i: {self.row.var: t * rows + i}, rows, full, None, ahead=ahead
                )

            return loop(rounds, tile, name="r")

        return bind_each(unravel(position, self.positions), one)

    def _leave(self, at: Values, tile: Expr, panel: Panel) -> tirx.Stmt:
        """The outputs of one tile over a panel; those past the end of the picture are left out."""
        outputs = list(product(range(self.decision.step), repeat=len(self.positions)))

        def element(j: Expr) -> tirx.Stmt:
            reads = {point: Var("m", self.total.dtype) for point in self.points}
            binds = [
                tirx.Bind(var, self.products[(tile, *map(index, u), j)]) for u, var in reads.items()
            ]
            more, results = transform(self.filter.outputs, reads, self.total.dtype)
            return block(
                *binds, *more, *(self._store(at, y, panel, j, results[y]) for y in outputs)
            )

        return panel.each(self.shape.lanes, element)

    def _store(self, at: Values, y: Point, panel: Panel, j: Expr, value: Expr) -> tirx.Stmt:
        there = dict(at)
        exists: list[Expr] = []
        for bound, offset in zip(self.windows.bounds, y):
            there[bound.axis.var] = at[bound.axis.var] + offset
            extent = known(bound.axis.extent)
            if offset and not (isinstance(extent, int) and extent % self.decision.step == 0):
                exists.append(there[bound.axis.var] < index(extent))
        left = self.epilogue.store(panel, there, j, value)
        return tirx.IfThenElse(tirx.all(*exists), left, None) if exists else left


def _within(last: int, high: Size) -> bool:
    return isinstance(high, int) and last <= high
