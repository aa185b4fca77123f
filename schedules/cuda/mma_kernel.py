"""The code of a matrix product by warp-level matrix instructions.

for tile of rows x tile of columns, batch, part of the sum:           one block of threads
    ask for the first `stages - 1` steps
    for each step of the sum:
        wait for it, ask for the one `stages - 1` further on
        for 32 bytes of the sum:  fragments from shared memory, one mma per 16 x 8 sums
    out[...] = epilogue(sums)                                         through shared memory
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch import dtype_bits
from tvmext.arch.cuda import WARP

from ..kernel.contraction import Contraction, size
from ..kernel.emit import (
    allocate,
    block,
    ceildiv,
    index,
    known,
    loop,
)
from . import ptx
from .grid import Work, unless_empty
from .launch import sync
from .mma_choice import Decision
from .operand import Source
from .results import SLAB, Results
from .tile import Loader, Tile, held


class Builder:
    """One kernel under construction."""

    def __init__(
        self,
        found: Contraction,
        plan: Decision,
        sources: tuple[Source, Source],
        multiply: ptx.Multiply,
        asynchronous: bool,
    ) -> None:
        self.sum, self.plan, self.multiply = found, plan, multiply
        self.rows, self.cols, self.depth = (
            known(size(axes)) for axes in (found.rows, found.cols, found.reduce)
        )
        self.batch = known(size(found.batch))
        self.high, self.wide = plan.warps
        dtype = sources[0].dtype
        # At least as large as the results, which TVM then lays over it: it moves no addresses.
        total = plan.shared(dtype) * 8 // dtype_bits(dtype)
        self.buffer = allocate([total], dtype, "tiles", "shared.dyn")
        self.lhs = self._tile(sources[0], 0, plan.rows, asynchronous)
        self.rhs = self._tile(
            sources[1], plan.stages * plan.rows * plan.depth, plan.cols, asynchronous
        )
        self.held = (held(self.lhs, "held_lhs"), held(self.rhs, "held_rhs"))
        kind = "float32" if multiply.sums == "f32" else "int32"
        self.sums = allocate([plan.sums], kind, "sums", "local")
        self.left = allocate([plan.warp_rows // 16 * 4], "uint32", "left", "local")
        self.right = allocate([plan.warp_cols // 16 * 4], "uint32", "right", "local")
        warps, steps = self.high * self.wide, ceildiv(self.depth, plan.depth)
        self.results = Results(found, kind, warps, plan.warp_cols, plan, steps)

    def _tile(self, source: Source, start: int, extent: int, asynchronous: bool) -> Tile:
        plan = self.plan
        wide = source.run_bytes >= 4 and (source.load is not None or source.run > 1)
        way = "held" if wide else "direct"
        if wide and asynchronous and source.load is not None:
            way = "async"
        return Tile(
            source,
            self.buffer,
            start,
            extent,
            plan.depth,
            plan.stages,
            plan.threads,
            way,
            not source.inward and self.multiply.lhs in ("f16", "bf16"),
        )

    def launch(self) -> Stmt:
        return unless_empty(self.sum, self.results.launch(self._tile_of))

    def _tile_of(self, work: Work, thread: Expr) -> Stmt:
        """What a block does of a tile."""
        plan, inner = self.plan, self.sum.reduce
        lhs, rhs = (
            Loader(tile, own, inner, work.at, first, length, self.depth, buffer)
            for tile, own, first, length, buffer in (
                (self.lhs, self.sum.rows, work.row, self.rows, self.held[0]),
                (self.rhs, self.sum.cols, work.column, self.cols, self.held[1]),
            )
        )
        warp, lane = thread // WARP, thread % WARP
        warp_row, warp_col = warp % self.high * plan.warp_rows, warp // self.high * plan.warp_cols
        # Here: TVM lays the results over the operands if neither is needed by the next tile.
        buffers = (self.buffer, self.results.stage, self.sums, self.left, self.right, *self.held)
        return block(
            *map(tirx.AllocBuffer, buffers),
            loop(plan.sums, lambda i: _store(self.sums, i), ForKind.UNROLLED),
            self._pipeline((lhs, rhs), work, thread, warp_row, warp_col, lane),
            ptx.wait(0) if self._asynchronous else None,
            sync(),
            self.results.leave(
                self.sums,
                [work.row + warp_row + i for i in range(0, plan.warp_rows, SLAB)],
                work.column + warp_col,
                work,
                warp,
                lane,
            ),
        )

    @property
    def _asynchronous(self) -> bool:
        return "async" in (self.lhs.way, self.rhs.way)

    def _pipeline(
        self,
        loaders: Sequence[Loader],
        work: Work,
        thread: Expr,
        warp_row: Expr,
        warp_col: Expr,
        lane: Expr,
    ) -> Stmt:
        """Step s is computed while those up to s + stages - 1 are on their way."""
        plan = self.plan
        ahead = plan.stages - 1
        close = [ptx.commit()] if self._asynchronous else []
        arrive = [ptx.wait(ahead - 1)] if self._asynchronous else []

        def issue(step: Expr, stage: Expr) -> list[Stmt]:
            return [one.issue(stage, (work.first + step) * plan.depth, thread) for one in loaders]

        def deliver(stage: Expr) -> list[Stmt | None]:
            return [one.deliver(stage, thread) for one in loaders]

        def first(stage: int) -> list[Stmt | None]:
            at = index(stage)
            return [*issue(at, at), *deliver(at), *close]

        def step(number: Expr) -> Stmt:
            current = tirx.truncmod(number, index(plan.stages))
            coming = tirx.truncmod(number + ahead, index(plan.stages))
            return block(
                *arrive,
                sync(),
                *issue(number + ahead, coming),
                *close,
                self._multiply(current, warp_row, warp_col, lane),
                *deliver(coming),
            )

        before = [part for stage in range(ahead) for part in first(stage)]
        return block(*before, loop(work.steps, step, name="step"))

    def _multiply(self, stage: Expr, warp_row: Expr, warp_col: Expr, lane: Expr) -> Stmt:
        plan = self.plan
        per_step = ptx.STEP_BYTES // ptx.CHUNK_BYTES * self.lhs.chunk
        high, wide = plan.warp_rows // 16, plan.warp_cols // 8
        parts: list[Stmt] = []
        for k in range(0, plan.depth, per_step):
            for buffer, tile, count, own in (
                (self.left, self.lhs, high, warp_row),
                (self.right, self.rhs, wide // 2, warp_col),
            ):
                for i in range(count):
                    target = ptx.address(buffer, i * 4)
                    parts.append(
                        tile.fragment(target, stage, own + i * 16, k, lane, tile is self.lhs)
                    )
                    if self.multiply.lhs == "tf32":
                        parts.append(ptx.round_to_tf32(target))
            parts += [
                self.multiply(
                    ptx.address(self.sums, (i * wide + j) * 4),
                    ptx.address(self.left, i * 4),
                    ptx.address(self.right, j * 2),
                )
                for i in range(high)
                for j in range(wide)
            ]
        return block(*parts)


def _store(buffer: Var, i: Expr) -> Stmt:
    return tirx.BufferStore(buffer, tirx.const(0, str(buffer.ty.dtype)), [i])
