"""The code of a product with few rows: what a thread asks for, adds up, and leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch.cuda import WARP

from ..kernel.analysis import Axis, substitute
from ..kernel.contraction import Contraction, size
from ..kernel.emit import (
    Size,
    Values,
    allocate,
    bind,
    block,
    ceildiv,
    index,
    known,
    least,
    loop,
    most,
)
from .contract import SUMS
from .epilogue import Epilogue, Parts
from .grid import unless_empty
from .launch import Block, among, axes_at, launch, sync, when
from .operand import Source
from .reduce import FULL
from .vectors import neighbours

THREADS = 256
EACH = 2
"""Columns of a thread whose sums run along memory: what it reads of the rows serves all of them."""
LOADS = 8
"""Loads of the large operand that a thread asks for before it uses the first.

256 threads then have 32 KiB under way; by Little's law a multiprocessor of an H100 needs some 15 at
any time (3.35 TB/s and 0.6 us over 132), and a block waits half of its time."""


@dataclass(frozen=True)
class Thin:
    """A contraction of which one operand has few rows. Sizes are None where they are not known.

    `large` is the other operand ("lhs" or "rhs"), `rows` those of the small one.
    """

    batch: int | None
    rows: int
    cols: int | None
    reduce: int | None
    run: int
    inward: bool
    large: str
    contraction: Contraction = field(repr=False, compare=False)
    sources: tuple[Source, Source] = field(repr=False, compare=False)
    loads: int = 1
    """Of the large operand for a step of the sum and one column."""


@dataclass(frozen=True)
class Decision:
    """Threads along memory and across it, columns of a thread, and parts of the sum."""

    along: int
    across: int
    each: int
    splits: int


def deep(work: Thin) -> int:
    """Steps of the sum that are asked for at a time."""
    return max(1, LOADS // work.loads // (EACH if work.inward else 1))


def columns(work: Thin, plan: Decision) -> int:
    """Columns of a block."""
    return (plan.across if work.inward else plan.along) * plan.each


class Builder:
    """One kernel under construction."""

    def __init__(self, work: Thin, plan: Decision) -> None:
        self.work, self.plan = work, plan
        found = self.sum = work.contraction
        self.small, self.large = work.sources
        self.rows_axes, self.cols_axes = (
            (found.rows, found.cols) if work.large == "rhs" else (found.cols, found.rows)
        )
        self.cols, self.depth = known(size(self.cols_axes)), known(size(found.reduce))
        self.dtype = SUMS.get(found.dtype, found.dtype)
        self.width = columns(work, plan)
        self.deep = deep(work)
        self.epilogue = Epilogue(found)
        if work.large == "lhs" or self.width % self.epilogue.lanes:
            self.epilogue.lanes = 1
        self.parts = (
            Parts(found, self.epilogue, self.dtype, plan.splits) if plan.splits > 1 else None
        )
        run, inward = work.run, work.inward
        # What a thread has of one step: of its columns, and of the sum.
        self.own, self.inner = (plan.each, run) if inward else (run, 1)
        self.sums = allocate([work.rows * plan.each], self.dtype, "sums", "local")
        self.total = allocate([self.epilogue.lanes], self.dtype, "total", "local")
        left, right = (self.deep * n * self.inner for n in (work.rows, self.own))
        self.left = allocate([left], self.small.dtype, "left", "local")
        self.right = allocate([right], self.large.dtype, "right", "local")
        self.registers = [self.sums, self.total, self.left, self.right]
        self.joined = allocate(
            [(1 if inward else plan.across) * work.rows * self.width],
            self.dtype,
            "joined",
            "shared",
        )

    def launch(self) -> Stmt:
        plan = self.plan
        wide = ceildiv(self.cols, self.width)
        grid = known(wide * size(self.sum.batch) * plan.splits)

        def body(number: Expr, x: Expr, y: Expr) -> Stmt:
            rest, column = among(number, wide)
            batch, part = among(rest, plan.splits)
            at = axes_at(self.sum.batch, batch)
            first = column * self.width
            return bind(first, lambda n: self._block(at, n, batch, part, x, y), "n", "local")

        product = launch(grid, Block(plan.along, plan.across), body)
        if self.parts is not None:
            product = block(tirx.AllocBuffer(self.parts.buffer), product, self.parts.launch())
        return unless_empty(self.sum, product)

    def _block(self, at: Values, first: Expr, batch: Expr, part: Expr, x: Expr, y: Expr) -> Stmt:
        plan, run = self.plan, self.work.run
        per_step = plan.along * run if self.work.inward else plan.across
        steps: Size = ceildiv(self.depth, per_step * self.deep)
        start: Expr = index(0)
        if plan.splits > 1:
            each = ceildiv(steps, plan.splits)
            start, steps = part * each, most(least(each, steps - part * each), 0)
        # This thread's first column and element of the sum.
        own = first + (y * plan.each if self.work.inward else x * run)
        inner = x * run if self.work.inward else y

        def step(number: Expr) -> Stmt:
            def k(u: Expr) -> Expr:
                return ((start + number) * self.deep + u) * per_step + inner

            return block(
                loop(self.deep, lambda u: self._ask(at, own, k(u), u), ForKind.UNROLLED, "u"),
                loop(self.deep, lambda u: self._add(at, k(u), u), ForKind.UNROLLED, "u"),
            )

        zero = tirx.const(0, self.dtype)
        return block(
            *map(tirx.AllocBuffer, (*self.registers, self.joined)),
            loop(
                self.work.rows * plan.each,
                lambda i: tirx.BufferStore(self.sums, zero, [i]),
                ForKind.UNROLLED,
            ),
            loop(steps, step, name="step"),
            self._join(x, y),
            sync(),
            self._leave(at, first, batch, part, y * plan.along + x),
        )

    def _ask(self, at: Values, own: Expr, k: Expr, u: Expr) -> Stmt:
        """Load what one step takes of both operands; zero past their ends."""
        rows, run, inner = self.work.rows, self.work.run, self.inner
        within = k < index(self.depth)
        reduce = axes_at(self.sum.reduce, k)

        def small(m: Expr) -> Stmt:
            values = {**at, **axes_at(self.rows_axes, m), **reduce}
            vector = self.small.inward and self.small.run >= inner
            return _load(
                self.small,
                values,
                self.sum.reduce[-1],
                self.left,
                (u * rows + m) * inner,
                inner,
                within,
                vector,
            )

        def large(c: Expr) -> Stmt:
            n = own + c
            values = {**at, **axes_at(self.cols_axes, n), **reduce}
            along = (self.sum.reduce if self.work.inward else self.cols_axes)[-1]
            start = (u * self.own + c) * inner
            inside = tirx.And(within, n < index(self.cols))
            return _load(self.large, values, along, self.right, start, run, inside, True)

        columns = self.own if self.work.inward else 1
        return block(
            loop(rows, small, ForKind.UNROLLED, "m"), loop(columns, large, ForKind.UNROLLED, "c")
        )

    def _add(self, _at: Values, _k: Expr, u: Expr) -> Stmt:
        """Add what was asked for to the sums."""
        rows, own, inner = self.work.rows, self.own, self.inner

        def one(m: Expr, c: Expr, v: Expr) -> Stmt:
            a = tirx.Cast(self.dtype, self.left[(u * rows + m) * inner + v])
            b = tirx.Cast(self.dtype, self.right[(u * own + c) * inner + v])
            where = m * own + c
            return tirx.BufferStore(self.sums, self.sums[where] + a * b, [where])

        return unrolled((rows, own, inner), one)

    def _join(self, x: Expr, y: Expr) -> Stmt:
        """Sums of threads that share columns; what is left to add up goes to shared memory."""
        plan, work = self.plan, self.work
        count = work.rows * plan.each
        if not work.inward:

            def put(m: Expr, c: Expr) -> Stmt:
                where = (y * work.rows + m) * self.width + x * plan.each + c
                return tirx.BufferStore(self.joined, self.sums[m * plan.each + c], [where])

            return unrolled((work.rows, plan.each), put)
        parts: list[Stmt] = []
        bit = plan.along // 2
        while bit:
            parts.append(loop(count, lambda i: self._shuffled(i, bit), ForKind.UNROLLED))  # noqa: B023
            bit //= 2

        def leave(m: Expr, c: Expr) -> Stmt:
            where = m * self.width + y * plan.each + c
            return tirx.BufferStore(self.joined, self.sums[m * plan.each + c], [where])

        return block(*parts, when(x.equal(0), unrolled((work.rows, plan.each), leave)))

    def _shuffled(self, i: Expr, bit: int) -> Stmt:
        mask = tirx.const(FULL, "uint32")
        other = tirx.op.tvm_warp_shuffle_xor(mask, self.sums[i], bit, WARP, WARP)
        return tirx.BufferStore(self.sums, self.sums[i] + other, [i])

    def _leave(self, at: Values, first: Expr, batch: Expr, part: Expr, thread: Expr) -> Stmt:
        """Store results, each by one thread."""
        rows, lanes = self.work.rows, self.epilogue.lanes
        layers = 1 if self.work.inward else self.plan.across
        straight = self.work.large == "rhs"
        across = self.width // lanes
        total = rows * across

        def piece(u: Expr) -> Stmt:
            flat = u * THREADS + thread
            m, c = flat // across, flat % across * lanes

            def add(y: Expr) -> Stmt:
                def lane(v: Expr) -> Stmt:
                    new = self.joined[(y * rows + m) * self.width + c + v]
                    return tirx.BufferStore(self.total, self.total[v] + new, [v])

                return loop(lanes, lane, ForKind.VECTORIZED, "v")

            def one(v: Expr) -> Expr:
                return self.total[v]

            zero = tirx.const(0, self.dtype)
            start = loop(
                lanes,
                lambda v: tirx.BufferStore(self.total, zero, [v]),
                ForKind.UNROLLED,
            )
            where = (m, first + c) if straight else (first + c, m)
            if self.parts is not None:
                stored = self.parts.store(part, batch, *where, one)
            else:
                stored = self.epilogue.store(at, *where, one)
            whole = block(start, loop(layers, add, ForKind.UNROLLED, "y"), stored)
            return when(tirx.And(flat < index(total), first + c < index(self.cols)), whole)

        return loop(ceildiv(total, THREADS), piece, ForKind.UNROLLED, "u")


def _load(
    read: Source,
    values: dict[Var, Expr],
    along: Axis,
    target: Var,
    start: Expr,
    run: int,
    inside: Expr,
    vector: bool,
) -> Stmt:
    """`run` neighbours of an operand along an axis, or zeros, into registers."""

    def put(v: Expr) -> Stmt:
        value = substitute(read.value, {**values, along.var: values[along.var] + v})
        return tirx.BufferStore(target, value, [start + v])

    def nothing(v: Expr) -> Stmt:
        return tirx.BufferStore(target, tirx.const(0, read.dtype), [start + v])

    read_all = neighbours(run, put) if vector else loop(run, put, ForKind.UNROLLED, "v")
    return when(inside, read_all, loop(run, nothing, ForKind.UNROLLED, "v"))


def unrolled(
    extents: tuple[int, ...], body: Callable[..., Stmt], done: tuple[Expr, ...] = ()
) -> Stmt:
    """``body(i, j, ..)`` for every point, all of them written out."""
    if not extents:
        return body(*done)
    first, *rest = extents
    name = "ijk"[len(done)]
    return loop(first, lambda i: unrolled(tuple(rest), body, (*done, i)), ForKind.UNROLLED, name)
