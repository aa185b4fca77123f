"""How the sums of a block leave it: from fragments to rows in shared memory, and out.

Sums are laid out as `mma.m16n8` leaves them: thread t of a warp has, of every 16 x 8, elements
2 * (t % 4) and the next of rows t // 4 and t // 4 + 8.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch.cuda import WARP

from ..kernel.contraction import Contraction
from ..kernel.emit import Values, allocate, block, loop
from .epilogue import Epilogue, Parts
from .launch import sync, when

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

    `stage` is shared memory of type `kind`, if that of its own is not wanted.
    """

    def __init__(
        self,
        found: Contraction,
        kind: str,
        warps: int,
        cols: int,
        splits: int,
        stage: Var | None = None,
    ) -> None:
        self.cols = cols
        size = stage_bytes(warps, cols) // 4
        self.stage = allocate([size], kind, "results", "shared.dyn") if stage is None else stage
        self.epilogue = Epilogue(found)
        self.parts = Parts(found, self.epilogue, kind, splits) if splits > 1 else None

    def with_parts(self, product: Stmt) -> Stmt:
        """`product`, and a launch that adds the parts up if there are some."""
        if self.parts is None:
            return product
        return block(tirx.AllocBuffer(self.parts.buffer), product, self.parts.launch())

    def leave(
        self,
        sums: Var,
        rows: Sequence[Expr],
        column: Expr,
        at: Values,
        batch: Expr,
        part: Expr,
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
            out = self._rows(at, row, column, batch, part, slab, lane)
            parts += [when(mine, block(*pairs)), sync(), when(mine, out), sync()]
        return block(*parts[:-1])

    def _rows(
        self,
        at: Values,
        row: Expr,
        column: Expr,
        batch: Expr,
        part: Expr,
        slab: Expr,
        lane: Expr,
    ) -> Stmt:
        """Store 16 rows of a warp's results, several neighbours per thread."""
        pitch = self.cols + STAGE_PAD
        vector = self.epilogue.lanes
        across = self.cols // vector

        def piece(u: Expr) -> Stmt:
            flat = u * WARP + lane
            i, j = flat // across, flat % across * vector

            def total(v: Expr) -> Expr:
                return self.stage[slab + i * pitch + j + v]

            if self.parts is not None:
                return self.parts.store(part, batch, row + i, column + j, total)
            return self.epilogue.store(at, row + i, column + j, total)

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
