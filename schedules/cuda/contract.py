"""Matrix products and convolutions in ordinary arithmetic: tiles in shared memory and registers.

    for tile of rows x tile of columns, batch:                            one block of threads
        for step of the sum:
            stage lhs[rows, step] and rhs[step, columns] in shared memory     any index map
            sums[i, j] += lhs[i, k] * rhs[k, j]                               in registers
        out[...] = epilogue(sums)

A convolution is the product whose left operand is read through its window (implicit GEMM, cuDNN,
arXiv 1410.0759): the stage reads through whatever map the operand has, padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch import CudaArch

from ..kernel.analysis import Axis, analyzer, constant, flat_index, stride, substitute
from ..kernel.contraction import Contraction, Operand, known_size, size
from ..kernel.emit import Values, allocate, block, ceildiv, index, known, loop
from ..kernel.read_contraction import contraction
from ..rule import Declined, Kernel, Scheduled
from .grid import unless_empty
from .launch import Block, axes_at, launch, split, sync, when

FEW_ROWS = 2
"""Up to as many rows a product streams through its weight once: a reduction, not a product."""
UNKNOWN_ROWS, UNKNOWN_COLS, UNKNOWN_DEPTH = 1024, 1024, 1024
"""What sizes are taken for that are known at run time only."""
SUMS = {"float16": "float32", "bfloat16": "float32"}
"""What sums of these types are kept in."""
VECTOR = 4
"""Columns that a thread has side by side."""


@dataclass(frozen=True)
class Workload:
    """A contraction. Sizes are None when they are known at run time only."""

    batch: int | None
    rows: int | None
    cols: int | None
    reduce: int | None
    dtype: str
    contraction: Contraction = field(repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """Rows and columns of a block and of a thread, and the steps of the sum staged at a time."""

    rows: int
    cols: int
    steps: int
    thread_rows: int
    thread_cols: int

    @property
    def threads(self) -> int:
        return self.rows // self.thread_rows * (self.cols // self.thread_cols)


class Contract:
    """Sums of products of two operands, each with axes of its own."""

    name = "contract"

    def match(self, kernel: Kernel) -> Workload | Declined:
        found = contraction(kernel)
        if isinstance(found, Declined):
            return found
        if not found.cols or not found.rows or not found.reduce:
            return Declined("an operand has no axis of its own")
        if found.after or found.kept:
            return Declined("the sum is read more than once")
        rows, cols = known_size(found.rows), known_size(found.cols)
        if any(n is not None and n <= FEW_ROWS for n in (rows, cols)):
            return Declined("few rows or columns: a reduction")
        batch, reduce = known_size(found.batch), known_size(found.reduce)
        return Workload(batch, rows, cols, reduce, found.dtype, found)

    def choose(self, workload: Workload, arch: CudaArch) -> Decision:
        return min(_candidates(arch), key=lambda decision: _price(workload, decision, arch))

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CudaArch
    ) -> Scheduled:
        func = kernel.func
        body = _Builder(workload.contraction, decision).launch()
        return Scheduled(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))


def _candidates(arch: CudaArch) -> Iterator[Decision]:
    """From a thread's registers up: its sums, the block's tile, and two operands that fit."""
    for thread_rows, thread_cols in ((8, 8), (8, 4), (4, 8), (4, 4), (2, 4)):
        for rows in (16, 32, 64, 128):
            for cols in (32, 64, 128):
                decision = Decision(rows, cols, 16, thread_rows, thread_cols)
                whole = rows % thread_rows == 0 and cols % (thread_cols * 8) == 0
                if whole and 64 <= decision.threads <= 256:
                    yield decision


def _price(work: Workload, tile: Decision, arch: CudaArch) -> float:
    """Cycles: waves of blocks, each bound by arithmetic or by what it reads from shared memory.

    A multiprocessor does `fp32_fma` multiply-adds and reads 32 words of shared memory per cycle;
    a thread reads `thread_rows + thread_cols` words for `thread_rows * thread_cols` of them.
    """
    rows, cols = work.rows or UNKNOWN_ROWS, work.cols or UNKNOWN_COLS
    blocks = -(-rows // tile.rows) * -(-cols // tile.cols) * (work.batch or 1)
    if blocks == 0:
        return inf
    resident = max(1, arch.threads_per_sm // 2 // tile.threads)
    waves = -(-blocks // arch.sms) if blocks < arch.sms * resident else blocks / arch.sms
    sums = tile.thread_rows * tile.thread_cols
    arithmetic = tile.rows * tile.cols / arch.fp32_fma
    # Threads of a warp that read the same word share the access: half of the words at most.
    reads = tile.threads * (tile.thread_rows / 4 + tile.thread_cols) / 32
    staging = (tile.rows + tile.cols) * 4 / 32
    latency = 32 / max(1, min(8, sums / 8))
    per_step = max(arithmetic, reads, latency) + staging
    return waves * per_step * (work.reduce or UNKNOWN_DEPTH)


class _Builder:
    """One kernel under construction."""

    def __init__(self, found: Contraction, tile: Decision) -> None:
        self.sum = found
        self.tile = tile
        self.dtype = SUMS.get(found.dtype, found.dtype)
        self.rows, self.cols, self.depth = (
            known(size(axes)) for axes in (found.rows, found.cols, found.reduce)
        )
        types = (_type(found.lhs), _type(found.rhs))
        # A column more, so that neighbours along the sum are in different banks.
        self.lhs = allocate([tile.steps * (tile.rows + 1)], types[0], "lhs", "shared")
        self.rhs = allocate([tile.steps * (tile.cols + VECTOR)], types[1], "rhs", "shared")
        self.sums = allocate([tile.thread_rows * tile.thread_cols], self.dtype, "sums", "local")

    def launch(self) -> Stmt:
        tile = self.tile
        tall, wide = ceildiv(self.rows, tile.rows), ceildiv(self.cols, tile.cols)
        grid = known(tall * wide * size(self.sum.batch))

        def body(number: Expr, thread: Expr, _y: Expr) -> Stmt:
            # Neighbouring blocks share columns, which are the weights.
            rest, row = split(number, tall)
            rest, column = split(rest, wide)
            batch = axes_at(self.sum.batch, rest)
            return self._block(batch, row * tile.rows, column * tile.cols, thread)

        return unless_empty(self.sum, launch(grid, Block(tile.threads), body))

    def _block(self, batch: Values, row: Expr, column: Expr, thread: Expr) -> Stmt:
        tile, zero = self.tile, tirx.const(0, self.dtype)
        across = tile.cols // tile.thread_cols
        x, y = thread % across, thread // across

        def step(number: Expr) -> Stmt:
            first = number * tile.steps
            return block(
                self._stage(self.sum.lhs, self.sum.rows, self.lhs, batch, row, first, thread),
                self._stage(self.sum.rhs, self.sum.cols, self.rhs, batch, column, first, thread),
                sync(),
                self._multiply(x, y),
                sync(),
            )

        return block(
            *map(tirx.AllocBuffer, (self.lhs, self.rhs, self.sums)),
            loop(
                tile.thread_rows * tile.thread_cols,
                lambda i: tirx.BufferStore(self.sums, zero, [i]),
                ForKind.UNROLLED,
            ),
            loop(ceildiv(self.depth, tile.steps), step, name="step"),
            self._leave(batch, row, column, x, y),
        )

    def _stage(
        self,
        operand: Operand,
        axes: tuple[Axis, ...],
        buffer: Var,
        batch: Values,
        start: Expr,
        first: Expr,
        thread: Expr,
    ) -> Stmt:
        """`buffer[step, own]` = the operand, neighbours in memory read by neighbouring threads."""
        tile = self.tile
        width, padded = (
            (tile.rows, tile.rows + 1) if buffer is self.lhs else (tile.cols, tile.cols + VECTOR)
        )
        extent = self.rows if buffer is self.lhs else self.cols
        inward = _moves(operand, self.sum.reduce[-1], (*self.sum.batch, *axes, *self.sum.reduce))

        def element(u: Expr) -> Stmt:
            flat = u * tile.threads + thread
            k, own = (
                (flat % tile.steps, flat // tile.steps) if inward else (flat // width, flat % width)
            )
            at = {**batch, **axes_at(axes, start + own), **axes_at(self.sum.reduce, first + k)}
            value = substitute(operand.value, at)
            inside = tirx.And(start + own < index(extent), first + k < index(self.depth))
            where = [k * padded + own]
            nothing = tirx.const(0, str(buffer.dtype))
            return when(
                inside,
                tirx.BufferStore(buffer, value, where),
                tirx.BufferStore(buffer, nothing, where),
            )

        return loop(width * tile.steps // tile.threads, element, ForKind.UNROLLED, "u")

    def _place(self, i: Expr, x: Expr) -> Expr:
        """The column of a block that is the `i`-th of thread `x`: groups of `VECTOR` neighbours."""
        across = self.tile.cols // self.tile.thread_cols
        return i // VECTOR * (across * VECTOR) + x * VECTOR + i % VECTOR

    def _multiply(self, x: Expr, y: Expr) -> Stmt:
        tile = self.tile
        high, wide = tile.thread_rows, tile.thread_cols

        def step(k: Expr) -> Stmt:
            def one(i: Expr, j: Expr) -> Stmt:
                a = self.lhs[k * (tile.rows + 1) + y * high + i]
                b = self.rhs[k * (tile.cols + VECTOR) + self._place(j, x)]
                old = self.sums[i * wide + j]
                new = old + tirx.Cast(self.dtype, a) * tirx.Cast(self.dtype, b)
                return tirx.BufferStore(self.sums, new, [i * wide + j])

            return _unrolled(high, wide, one)

        return loop(tile.steps, step, ForKind.UNROLLED, "k")

    def _leave(self, batch: Values, row: Expr, column: Expr, x: Expr, y: Expr) -> Stmt:
        tile = self.tile

        def one(i: Expr, j: Expr) -> Stmt:
            m, n = row + y * tile.thread_rows + i, column + self._place(j, x)
            total = tirx.Cast(self.sum.dtype, self.sums[i * tile.thread_cols + j])
            point = {
                **batch,
                **axes_at(self.sum.rows, m),
                **axes_at(self.sum.cols, n),
                self.sum.total: total,
            }
            stores = [
                tirx.BufferStore(
                    out.buffer,
                    substitute(out.value, point),
                    [substitute(i, point) for i in out.indices],
                )
                for out in self.sum.outputs
            ]
            return when(tirx.And(m < index(self.rows), n < index(self.cols)), block(*stores))

        return _unrolled(tile.thread_rows, tile.thread_cols, one)


def _unrolled(high: int, wide: int, body: Callable[[Expr, Expr], Stmt]) -> Stmt:
    return loop(
        high,
        lambda i: loop(wide, lambda j: body(i, j), ForKind.UNROLLED, "j"),
        ForKind.UNROLLED,
        "i",
    )


def _type(operand: Operand) -> str:
    """The type that an operand is staged in: its own, not that of the sums."""
    return str(operand.value.ty.dtype)


def _moves(operand: Operand, axis: Axis, axes: tuple[Axis, ...]) -> bool:
    """Whether neighbours along `axis` are neighbours in memory."""
    if operand.load is None:
        return False
    load = operand.load
    step = stride(flat_index(load), axis.var, analyzer(axes, load.source.shape))
    return step is not None and constant(step) == 1
