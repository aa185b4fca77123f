"""How the sums of a block leave it: from fragments to rows in shared memory, and out.

Sums are laid out as `mma.m16n8` leaves them: thread t of a warp has, of every 16 x 8, elements
2 * (t % 4) and the next of rows t // 4 and t // 4 + 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch.cuda import WARP

from ..kernel.contraction import Contraction
from ..kernel.emit import Size, allocate, block, loop
from .epilogue import Epilogue, Parts
from .grid import Body, Tiles, Work, over_tiles
from .launch import sync, when
from .stream import LANES, Stream
from .waves import Tiling

Put = Callable[[Expr, Expr, Callable[[Expr], Expr]], Stmt]

STAGE_PAD = 8
"""Numbers between rows of results in shared memory: rows of a warp's stores hit other banks."""
SLAB = 16
"""Rows of a warp that leave at a time."""
MOST_UNROLLED = 16
"""Stores of a thread that are written out."""


def stage_bytes(warps: int, cols: int) -> int:
    """Bytes of shared memory for the results of so many warps, of 4 bytes each."""
    return warps * SLAB * (cols + STAGE_PAD) * 4


class Results:
    """The results of `warps` warps of a block, each with slabs of 16 rows by `cols`.

    `stage` is shared memory of type `kind`, if that of its own is not wanted. The grid is one of
    `tiles`, each of which has `steps` steps to sum up.
    """

    def __init__(
        self,
        found: Contraction,
        kind: str,
        warps: int,
        cols: int,
        plan: Tiling,
        steps: Size,
        stage: Var | None = None,
    ) -> None:
        self.plan, self.steps, self.cols = plan, steps, cols
        size = stage_bytes(warps, cols) // 4
        self.stage = allocate([size], kind, "results", "shared.dyn") if stage is None else stage
        self.epilogue = Epilogue(found)
        self.tiles = Tiles(found, plan.rows, plan.cols)
        self.parts = Parts(found, self.epilogue, kind, plan.splits) if plan.splits > 1 else None
        self.stream: Stream | None = None
        if plan.stream:
            assert isinstance(steps, int)
            stream = Stream(self.tiles, steps, plan.stream, kind)
            self.stream = stream if stream.shares.tiles != 0 else None

    def launch(self, body: Body, before: Callable[[Expr], Stmt] | None = None) -> Stmt:
        """``body(work, thread)`` for all tiles, ``before(thread)`` once in each block.

        A second launch adds up what blocks have of a sum if they share some.
        """
        plan, stream = self.plan, self.stream

        def begun(thread: Expr, code: Stmt) -> Stmt:
            return block(before(thread) if before else None, code)

        def once(work: Work, thread: Expr) -> Stmt:
            return begun(thread, body(work, thread))

        def turn(work: Work, thread: Expr) -> Stmt:
            # The next tile's operands take the place of the results.
            return block(body(work, thread), sync())

        if stream is not None:
            product = stream.over(plan.threads, begun, turn)
            joined = block(product, stream.join(self.epilogue))
            return stream.names.then(block(tirx.AllocBuffer(stream.buffer), joined))
        product = over_tiles(self.tiles, self.steps, plan.splits, plan.threads, once)
        if self.parts is None:
            return product
        return block(tirx.AllocBuffer(self.parts.buffer), product, self.parts.launch())

    def leave(
        self,
        sums: Var,
        rows: Sequence[Expr],
        column: Expr,
        work: Work,
        warp: Expr,
        lane: Expr,
        mine: Expr | bool = True,
    ) -> Stmt:
        """Slab i of each warp goes to rows `rows[i]` and the next; to be called by all threads.

        Those for which `mine` is false have none.
        """
        pitch = self.cols + STAGE_PAD
        slab = warp * (SLAB * pitch)
        wide = self.cols // 8
        parts: list[Stmt] = []
        for i, row in enumerate(rows):
            pairs = [
                _pair(
                    self.stage,
                    slab + (lane // 4 + half * 8) * pitch + j * 8 + lane % 4 * 2,
                    sums,
                    (i * wide + j) * 4 + half * 2,
                )
                for j in range(wide)
                for half in (0, 1)
            ]
            out = self._rows(work, row, column, slab, lane)
            parts += [when(mine, block(*pairs)), sync(), when(mine, out), sync()]
        return block(*parts[:-1])

    def _rows(self, work: Work, row: Expr, column: Expr, slab: Expr, lane: Expr) -> Stmt:
        """Store 16 rows of a warp's results, several neighbours per thread."""
        parts, stream = self.parts, self.stream
        lanes = self.epilogue.lanes
        if parts is not None:
            return self._each(
                row, column, slab, lane, lanes, partial(parts.store, work.part, work.batch)
            )
        whole = self._each(row, column, slab, lane, lanes, partial(self.epilogue.store, work.at))
        if stream is None:
            return whole
        own = self._each(row, column, slab, lane, LANES, partial(stream.store, work))
        return when(work.whole, whole, own)

    def _each(self, row: Expr, column: Expr, slab: Expr, lane: Expr, lanes: int, put: Put) -> Stmt:
        """``put(row, column, number of the v-th)`` for groups of `lanes` neighbours in 16 rows."""
        pitch = self.cols + STAGE_PAD
        across = self.cols // lanes

        def piece(u: Expr) -> Stmt:
            flat = u * WARP + lane
            i, j = flat // across, flat % across * lanes
            return put(row + i, column + j, lambda v: self.stage[slab + i * pitch + j + v])

        count = SLAB * across // WARP
        kind = ForKind.UNROLLED if count <= MOST_UNROLLED else ForKind.SERIAL
        return loop(count, piece, kind, "u")


def _pair(target: Var, where: Expr, source: Var, number: int) -> Stmt:
    return loop(
        2,
        lambda v: tirx.BufferStore(target, source[number + v], [where + v]),
        ForKind.VECTORIZED,
        "v",
    )
