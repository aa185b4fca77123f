"""Convolutions by Winograd's method (winograd.py), in blocks of tiles that stay in L2.

    for group, block of tiles:                         in parallel, or the panels inside are
        for tile, vector of channels:  V[u, tile] = B^T d B          padding is zero, not read
        for panel of output channels:
            for position u, register tile of tiles:  M[u] = V[u] U[u]               (tile.py)
            for tile, vector of the panel:  A^T M A, then epilogue

The weight U = G g G^T is made at compile time. Tiles are counted through all images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tvm import tirx
from tvm.ir import Call, Expr, Var

from ..kernel.analysis import REDUCE, SPATIAL, Axis, substitute
from ..kernel.contraction import Contraction, Operand, Output, size
from ..kernel.emit import (
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
from ..rule import Kernel, Scheduled
from .after import followed
from .panel import Panel, open_panel
from .panels import Weight, weight
from .rows import Tiles as Cuts
from .rows import cut
from .rows_function import rows_function
from .tile import Kernel as TileKernel
from .winograd import Point, transform
from .winograd_choice import Decision
from .winograd_tiles import Tiles, Windows


class Builder:
    """One convolution by Winograd's method under construction."""

    def __init__(self, found: Windows, decision: Decision) -> None:
        self.windows = found
        self.total = total = found.total
        self.decision = decision
        self.shape = decision.tile
        self.tiles = Tiles(found, decision.step)
        self.filter = self.tiles.filter
        self.block = decision.block_tiles * self.shape.rows
        spare = self.shape.rows - 1 if decision.heights else 0
        self.held = self.block + spare
        spots = [self.filter.size] * len(found.bounds)
        lanes = found.chunk(self.shape.lanes)
        chunks = found.sizes[0] // lanes
        self.positions = tuple(
            Axis(Var("uvw"[d], "int64"), index(n), SPATIAL) for d, n in enumerate(spots)
        )
        self.inputs = allocate([*spots, chunks, self.held, lanes], total.dtype, "inputs")
        self.products = allocate([self.held, *spots, self.shape.cols], total.dtype, "products")
        self.row = Axis(Var("tile", "int64"), index(self.held), SPATIAL)
        self.chunk = Axis(Var("chunk", "int64"), index(chunks), REDUCE)
        self.lane = Axis(Var("lane", "int64"), index(lanes), REDUCE)
        self.shared = bool(decision.heights) and not decision.ahead
        self.laid, self.kernel = self._product()
        self.epilogue = replace(self.kernel, sum=total)

    def _product(self) -> tuple[Weight, TileKernel]:
        """The matrix products of all positions, as a contraction of their own."""
        at = [axis.var for axis in self.positions]
        load = self.total.rhs.load
        assert load is not None
        moved = {bound.tap.var: u for bound, u in zip(self.windows.bounds, at)}
        taps = [dim for dim, i in enumerate(load.indices) if i in moved]
        # Axes of extent 1 are left out of contractions: channels whose number is odd.
        single = self.lane.size == 1
        lane = index(0) if single else self.lane.var
        channel = self.chunk.var if single else self.chunk.var * self.lane.extent + lane
        places = {**moved, self.windows.channels.var: channel}
        shape = [self.filter.size if d in taps else n for d, n in enumerate(load.source.shape)]
        old = tirx.decl_buffer(shape, self.total.dtype, load.source.name)
        rhs = tirx.BufferLoad(old, [substitute(i, places) for i in load.indices])
        lhs = tirx.BufferLoad(self.inputs, [*at, self.chunk.var, self.row.var, lane])
        (column,) = self.total.cols
        contraction = Contraction(
            batch=(*self.total.batch, *self.positions),
            rows=(self.row,),
            cols=(column,),
            reduce=(self.chunk,) if single else (self.chunk, self.lane),
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
        """Blocks of as many tiles, or where tiles are counted when it runs, of nearly as many."""

        def task(flat: Expr, tiles: Expr, blocks: Expr, each: Size) -> tirx.Stmt:
            def block(group: Values) -> tirx.Stmt:
                first = flat % blocks * each
                return bind(first, lambda n: self._block(group, n, tiles, each), "first")

            return bind_each(unravel(flat // blocks, self.total.batch), block)

        def tasks(tiles: Expr, blocks: Expr, each: Size) -> tirx.Stmt:
            count = known(blocks * size(self.total.batch))
            return loop(count, lambda t: task(t, tiles, blocks, each), self._kind("blocks"), "task")

        def blocks(tiles: Expr) -> tirx.Stmt:
            count = ceildiv(known(tiles), self.block)
            if isinstance(count, int):
                return tasks(tiles, index(count), self.block)

            def even(number: Expr) -> tirx.Stmt:
                each = (tiles + (number - 1)) // tirx.max(number, index(1))
                return bind(each, lambda n: tasks(tiles, number, n), "each")

            return bind(count, even, "blocks")

        return bind(size(self.tiles.axes), blocks, "tiles")

    def _kind(self, level: str) -> tirx.ForKind:
        return PARALLEL if self.decision.parallel == level else SERIAL

    def _block(self, group: Values, first: Expr, tiles: Expr, each: Size) -> tirx.Stmt:
        """The tiles from `first` on, in register tiles; the last one is computed as a whole."""
        count = known(least(each, known(tiles - first)))
        rows, heights = self.shape.rows, self.decision.heights
        if not heights:
            return self._tiles(group, first, tiles, count, Cuts(ceildiv(count, rows), (rows,), ()))
        body = lambda cuts: self._tiles(group, first, tiles, count, cuts)  # noqa: E731
        return cut(count, rows, body, heights)

    def _tiles(self, group: Values, first: Expr, tiles: Expr, count: Size, cuts: Cuts) -> tirx.Stmt:
        """`count` tiles from `first` on, in the register tiles `cuts`."""
        held = cuts.first(cuts.count)

        def load(t: Expr) -> tirx.Stmt:
            there = tirx.min(first + t, tiles - 1)
            return self.tiles.place(there, lambda at: self._load({**group, **at}, t))

        def panel(number: Expr) -> tirx.Stmt:
            body = lambda panel: self._panel(panel, first, count, cuts)  # noqa: E731
            return open_panel(self.total, group, number, self.shape.cols, body)

        panels = ceildiv(size(self.total.cols), self.shape.cols)
        return block(
            tirx.AllocBuffer(self.inputs),
            loop(held, load, name="t"),
            loop(panels, panel, self._kind("panels"), "p"),
        )

    def _load(self, at: Values, tile: Expr) -> tirx.Stmt:
        """The transformed input of one tile; what lies outside of the picture is zero.

        A tile at the edge is copied to the place of the result first, position by position, and
        transformed there: its code is small, and no condition stands around a single vector.
        """

        def there(u: Point, chunk: Expr, lane: Expr) -> Expr:
            return self._input(at, u, chunk, lane)

        def copied(u: Point, chunk: Expr, lane: Expr) -> Expr:
            return self.inputs[(*map(index, u), chunk, tile, lane)]

        inside, whole = self.tiles.inside(at), self._transform(tile, there)
        if inside is None:
            return whole
        copy = loop(size(self.positions), lambda u: self._copy(at, u, tile), name="u")
        return tirx.IfThenElse(inside, whole, block(copy, self._transform(tile, copied)))

    def _input(self, at: Values, point: Sequence[Size], chunk: Expr, lane: Expr) -> Expr:
        channel = chunk * known(self.lane.extent) + lane
        return self.tiles.inputs(at, point, channel)

    def _copy(self, at: Values, position: Expr, tile: Expr) -> tirx.Stmt:
        """The input of a tile that is needed for `position`, or zero, not yet transformed."""

        def one(point: Values) -> tirx.Stmt:
            u = [point[axis.var] for axis in self.positions]

            def every(value: Callable[[Expr, Expr], Expr]) -> tirx.Stmt:
                return self._vectors(
                    lambda c, i: tirx.BufferStore(self.inputs, value(c, i), [*u, c, tile, i])
                )

            zero = tirx.const(0, self.total.dtype)
            there = every(lambda c, i: self._input(at, u, c, i))
            return tirx.IfThenElse(self.tiles.exists(at, u), there, every(lambda _c, _i: zero))

        return bind_each(unravel(position, self.positions), one)

    def _transform(self, tile: Expr, read: Callable[[Point, Expr, Expr], Expr]) -> tirx.Stmt:
        """B^T d B of one tile, d being what `read` says of a position, a chunk and a lane."""

        def vector(chunk: Expr, lane: Expr) -> tirx.Stmt:
            reads = {point: Var("d", self.total.dtype) for point in self.tiles.points}
            binds = [tirx.Bind(var, read(point, chunk, lane)) for point, var in reads.items()]
            more, results = transform(self.filter.inputs, reads, self.total.dtype)
            stores = (
                tirx.BufferStore(self.inputs, var, [*map(index, u), chunk, tile, lane])
                for u, var in results.items()
            )
            return block(*binds, *more, *stores)

        return self._vectors(vector)

    def _vectors(self, body: Callable[[Expr, Expr], tirx.Stmt]) -> tirx.Stmt:
        """`body` for each chunk of channels and each lane of it."""
        chunks, lanes = known(self.chunk.extent), known(self.lane.extent)
        vector = lambda c: loop(lanes, lambda i: body(c, i), VECTORIZED)  # noqa: E731
        return loop(chunks, vector, name="c")

    def _panel(self, panel: Panel, first: Expr, count: Size, cuts: Cuts) -> tirx.Stmt:
        def leave(t: Expr) -> tirx.Stmt:
            return self.tiles.place(first + t, lambda at: self._leave(at, t, panel))

        return block(
            tirx.AllocBuffer(self.products),
            loop(size(self.positions), lambda u: self._position(u, panel, cuts), name="u"),
            loop(count, leave, name="t"),
        )

    def _position(self, position: Expr, panel: Panel, cuts: Cuts) -> tirx.Stmt:
        """One matrix product over the panel."""
        width = self.shape.cols

        def one(at: Values) -> tirx.Stmt:
            here = {**panel.at, **at}
            full = Panel(self.kernel.sum, here, panel.number, index(0), width, width)
            if self.shared:
                return self._calls(full, [at[axis.var] for axis in self.positions], cuts)

            def run(t: Expr) -> tirx.Stmt:
                ahead = None
                if self.decision.ahead:
                    steps = size(self.kernel.sum.reduce)
                    ahead = self.laid.prefetch(full, t, self.decision.ahead, steps)

                def tile(row: Expr, height: int) -> tirx.Stmt:
                    return self.kernel.tile(
                        lambda i: {self.row.var: row + i}, height, full, None, ahead=ahead
                    )

                return cuts.each(t, tile, lambda _row, _height: None)

            return loop(cuts.count, run, name="r")

        return bind_each(unravel(position, self.positions), one)

    def _calls(self, panel: Panel, position: list[Expr], cuts: Cuts) -> tirx.Stmt:
        """The product by the function that kernels share: all tiles of a height in a call."""
        lanes = known(self.lane.extent)
        assert isinstance(lanes, int)
        function = rows_function(self.shape, lanes, self.total.dtype)
        bits = index(sum(1 << height for height in cuts.heights))
        jump, pitch = self.held * lanes, size(self.positions) * self.shape.cols
        w = self.laid.first(panel)

        def tiles(height: int, first: Size, end: Size) -> tirx.Stmt:
            row = cuts.first(first)
            x = [*position, index(0), row, index(0)]
            out = [row, *position, index(0)]
            pairs = ((self.inputs, x), (self.laid.buffer, w), (self.products, out))
            places = [tirx.address_of(tirx.BufferLoad(buffer, at)) for buffer, at in pairs]
            count = known(end - first)
            sizes = [count, self.chunk.extent, jump, pitch, height]
            call = Call(function, [*places, *map(index, sizes), bits], ret_ty="int32")
            return tirx.IfThenElse(index(count) > 0, tirx.Evaluate(call), None)

        ends = [*cuts.ends, cuts.count]
        return block(*map(tiles, cuts.heights, [0, *ends], ends))

    def _leave(self, at: Values, tile: Expr, panel: Panel) -> tirx.Stmt:
        """The outputs of one tile over a panel."""

        def element(j: Expr) -> tirx.Stmt:
            reads = {point: Var("m", self.total.dtype) for point in self.tiles.points}
            binds = [
                tirx.Bind(var, self.products[(tile, *map(index, u), j)]) for u, var in reads.items()
            ]
            more, results = transform(self.filter.outputs, reads, self.total.dtype)
            stores = []
            for point, there, exists in self.tiles.outputs(at):
                store = self.epilogue.store(panel, there, j, results[point])
                stores.append(store if exists is None else tirx.IfThenElse(exists, store, None))
            return block(*binds, *more, *stores)

        return panel.each(self.shape.lanes, element)
