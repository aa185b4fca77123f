"""Both products of attention on a block's tiles: queries, and a ring of steps of keys and values.

    scores[r, c]  =  query(row r) . key(c)           registers of a thread, all keys of a step
    totals[r, e] += weights[r, c] * value(c, e)

A thread has `rows` rows of scores and of totals; the `sharing` neighbours in its warp that have the
same rows have the other keys and columns. Who has what is all that the softmax has to know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import ForKind, Stmt

from ..kernel.analysis import Axis
from ..kernel.attend import Attention
from ..kernel.emit import allocate, loop
from . import ptx
from .attention_choice import MASK_BYTES, Decision, Sizes
from .operand import Source, source
from .tile import Tile

UNROLLED = ForKind.UNROLLED


class Products(ABC):
    """What both kinds of products share: tiles, the registers of results, who has what."""

    rows: int
    """Rows of a thread."""
    keys: int
    """Keys of a thread in each step."""
    columns: int
    """Columns of a thread."""
    sharing: int
    neighbours: int
    """Columns of a thread that are side by side."""
    beside: int
    """Keys of a thread that are side by side."""

    def __init__(self, found: Attention, plan: Decision, sizes: Sizes, copies: bool) -> None:
        self.found, self.plan, self.sizes = found, plan, sizes
        reads = operands(found)
        # One buffer: TVM moves no addresses when it lays several into one.
        total = plan.shared(sizes) // sizes.element
        self.buffer = allocate([total], sizes.dtype, "tiles", "shared.dyn")
        ring = plan.rows * sizes.depth_room
        values = ring + plan.stages * plan.keys * sizes.depth_room

        def tile(which: int, start: int, extent: int, depth: int, stages: int) -> Tile:
            read, across = reads[which], self._across(which, reads[which])
            if read.inward == across:
                read = replace(read, run=1)
            way = "direct" if read.run_bytes < 4 else "async" if copies else "held"
            return Tile(read, self.buffer, start, extent, depth, stages, plan.threads, way, across)

        self.bits: Expr | None = None
        """Where in shared memory the steps that are seen are noted, if any are skipped."""
        if plan.skips:
            words = plan.shared(sizes) - MASK_BYTES
            self.bits = ptx.address(self.buffer, words // 4, "uint32")
        self.query = tile(0, 0, plan.rows, sizes.depth_room, 1)
        self.key = tile(1, ring, plan.keys, sizes.depth_room, plan.stages)
        self.value = tile(2, values, sizes.width_room, plan.keys, plan.stages)

    def registers(self) -> None:
        """Allocate the thread's scores and results, in float32."""
        self.scores = allocate([self.rows * self.keys], "float32", "scores", "local")
        self.totals = allocate([self.rows * self.columns], "float32", "totals", "local")

    @abstractmethod
    def _across(self, which: int, read: Source) -> bool:
        """Whether rows of the tile of query, key or value run along the operand's own axes."""

    @property
    def buffers(self) -> tuple[Var, ...]:
        return self.buffer, self.scores, self.totals

    @abstractmethod
    def row(self, r: Expr, thread: Expr) -> Expr:
        """Which row of the tile is the thread's `r`-th."""

    @abstractmethod
    def key_at(self, c: Expr, thread: Expr) -> Expr:
        """Which key of the step is the thread's `c`-th."""

    @abstractmethod
    def column(self, c: Expr, thread: Expr) -> Expr:
        """Which column of the output is the thread's `c`-th."""

    @abstractmethod
    def score(self, r: Expr, c: Expr) -> Expr:
        """Where in `scores` a thread's score is."""

    @abstractmethod
    def total(self, r: Expr, c: Expr) -> Expr:
        """Where in `totals` a thread's result is."""

    def keep_queries(self, thread: Expr) -> Stmt | None:
        """Take from the tile of queries what stays in registers."""
        return None

    @abstractmethod
    def multiply_keys(self, stage: Expr, thread: Expr) -> Stmt:
        """Add the products with the keys of a stage to the thread's scores."""

    @abstractmethod
    def multiply_values(self, stage: Expr, thread: Expr) -> Stmt:
        """Add the scores times the values of a stage to the thread's results."""


def operands(found: Attention) -> tuple[Source, Source, Source]:
    """How queries, keys and values are read over rows and depth, keys and depth, width and keys."""

    def read(load: TensorLoad, own: tuple[Axis, ...], inner: Axis) -> Source:
        return source(load, found.batch, own, (inner,))

    return (
        read(found.query, found.rows, found.depth),
        read(found.key, (found.keys,), found.depth),
        read(found.value, (found.width,), found.keys),
    )


def cleared(buffer: Var) -> Stmt:
    zero = tirx.const(0, str(buffer.ty.dtype))
    return loop(int(buffer.shape[0]), lambda i: tirx.BufferStore(buffer, zero, [i]), UNROLLED, "i")


def unrolled(extents: tuple[int, ...], body: Callable[..., Stmt]) -> Stmt:
    """``body(i, j, ..)`` for every point, each a piece of code of its own."""
    if not extents:
        return body()
    first, *rest = extents
    return loop(first, lambda i: unrolled(tuple(rest), lambda *at: body(i, *at)), UNROLLED, "i")
