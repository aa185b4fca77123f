"""A tile of an operand in shared memory: where its elements are, who brings them, who takes them.

    rows of `minor` elements, cut into chunks of 16 bytes; chunk c of row r is at place c ^ f(r)
    f(r) = (r // rows per 128 bytes) % chunks per 128 bytes

Eight rows' chunks of one number, which `ldmatrix` reads at a time, are thus in different banks,
and so are eight neighbouring chunks of a row, which copies write (cuBLAS-like swizzle; CUTLASS,
"Efficient GEMM in CUDA", shared memory layouts).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch import dtype_bits

from ..kernel.analysis import Axis, collect, substitute
from ..kernel.emit import Size, Values, allocate, index, loop
from . import hopper_ptx, ptx
from .launch import axes_at, when
from .operand import FLOAT8, Source
from .vectors import neighbours

Body = Callable[[Expr], Expr]

BANKS_BYTES = 128
MOST_UNROLLED = 16
"""Copies of a thread that are written out; each works its index out by itself."""
ROWS = 8
"""Rows of a matrix of `ldmatrix`."""


def swizzle(row: Expr, chunk: Expr, chunks: int) -> Expr:
    """The place of a chunk in a row of `chunks`, a power of two."""
    in_line = min(chunks, BANKS_BYTES // ptx.CHUNK_BYTES)
    turn = row % ROWS // (ROWS // in_line)
    both = tirx.bitwise_and(chunk, turn)
    # The exclusive or, in terms whose range TVM knows: else it takes 64 bits for every index.
    return chunk + turn - both - both


@dataclass(frozen=True, eq=False)
class Tile:
    """`extent` rows or columns of an operand by `depth` elements of the sum, `stages` times.

    It begins at element `start` of `buffer`. `across`: rows of the tile run along the operand's own
    axes instead of along the sum. `way` is how runs travel: "async", past the registers; "held", in
    registers while a step is computed; "direct", elements one by one. Rows longer than `panel`
    elements are cut into panels, which follow each other; products of warpgroups read these.
    """

    source: Source
    buffer: Var
    start: int
    extent: int
    depth: int
    stages: int
    threads: int
    way: str
    across: bool
    panel: int | None = None

    @property
    def dtype(self) -> str:
        return self.source.dtype

    @property
    def chunk(self) -> int:
        """Elements of a chunk."""
        return ptx.CHUNK_BYTES * 8 // dtype_bits(self.dtype)

    @property
    def size(self) -> int:
        return self.extent * self.depth

    def place(self, stage: Expr, row: Expr, minor: Expr) -> Expr:
        """Where in `buffer` element `minor` of a row of the tile is."""
        width = self.extent if self.across else self.depth
        start = self.start + stage * self.size
        if self.panel is not None and self.panel < width:
            start = start + minor // self.panel * (self.size // width * self.panel)
            width, minor = self.panel, minor % self.panel
        at = swizzle(row, minor // self.chunk, width // self.chunk)
        return start + row * width + at * self.chunk + minor % self.chunk

    def address(self, place: Expr) -> Expr:
        """Of an element at a place; memory is shared with numbers of other types."""
        return ptx.address(self.buffer, place, self.dtype)

    def fragment(
        self, target: Expr, stage: Expr, own: Expr, k: Size, lane: Expr, lhs: bool
    ) -> Stmt:
        """Load 16 of the own axis from `own` by `STEP_BYTES` of the sum, as `mma` wants them.

        Of the four matrices, `lhs` has the own axis change first, the right operand the sum.
        """
        number, row = lane // ROWS % 4, lane % ROWS
        own_half, sum_half = (number % 2, number // 2) if lhs else (number // 2, number % 2)
        if self.across:
            # 16-bit elements: 8 of the sum are 8 rows, 8 of the own axis are a chunk.
            at = self.place(stage, k + sum_half * ROWS + row, own + own_half * ROWS)
        else:
            at = self.place(stage, own + own_half * ROWS + row, k + sum_half * self.chunk)
        return ptx.load_matrices(target, self.address(at), self.across)


@dataclass(frozen=True, eq=False)
class Loader:
    """Brings tiles of one operand at a position of its batch and own axes.

    `at` binds the batch, `first` is the first row or column. Elements past `length` rows or columns
    or past the `depth` of the sum are zero.
    """

    tile: Tile
    own: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    at: Values
    first: Expr
    length: Size
    depth: Size
    held: Var
    """Registers of a thread for elements on their way."""

    def issue(self, stage: Expr, k: Expr, thread: Expr) -> Stmt:
        """Ask for the step of the sum from `k`; `deliver` has to follow."""
        return self._each(thread, lambda u, own, inner: self._fetch(stage, k, u, own, inner))

    def deliver(self, stage: Expr, thread: Expr) -> Stmt | None:
        """What registers hold goes to shared memory."""
        if self.tile.way != "held":
            return None
        run = self.tile.source.run

        def put(u: Expr, own: Expr, inner: Expr) -> Stmt:
            if self.tile.panel is not None:
                place = self.tile.address(self._place(stage, own, inner))
                return hopper_ptx.store_chunk(place, ptx.address(self.held, u * run))
            return self._run(self._place(stage, own, inner), lambda v: self.held[u * run + v])

        return self._each(thread, put)

    def _run(self, start: Expr, value: Body) -> Stmt:
        """A run of values into the tile."""
        run, buffer = self.tile.source.run, self.tile.buffer
        dtype = str(buffer.ty.dtype)
        # Signed and unsigned bytes share the memory, and so do floats of 8 bits.
        alike = tirx.reinterpret if dtype in FLOAT8 and dtype != self.tile.dtype else tirx.Cast

        def one(v: Expr) -> Stmt:
            return tirx.BufferStore(buffer, alike(dtype, value(v)), [start + v])

        return loop(run, one, ForKind.VECTORIZED, "v")

    def _place(self, stage: Expr, own: Expr, inner: Expr) -> Expr:
        row, minor = (inner, own) if self.tile.across else (own, inner)
        return self.tile.place(stage, row, minor)

    def _each(self, thread: Expr, body: Callable[[Expr, Expr, Expr], Stmt]) -> Stmt:
        """`body` for the runs of a tile that are a thread's: neighbours in memory to neighbours."""
        tile, run = self.tile, self.tile.source.run
        pieces = tile.size // run

        def one(u: Expr) -> Stmt:
            piece = u * tile.threads + thread
            if tile.source.unpacked is not None and tile.source.unpacked.by_own:
                done = body(u, piece % tile.extent, piece // tile.extent * run)
            elif tile.source.inward:
                per_row = tile.depth // run
                done = body(u, piece // per_row, piece % per_row * run)
            else:
                per_row = tile.extent // run
                done = body(u, piece % per_row * run, piece // per_row)
            return done if pieces % tile.threads == 0 else when(piece < index(pieces), done)

        count = -(-pieces // tile.threads)
        short = tile.way == "async" and count <= MOST_UNROLLED
        # What is held has to be in registers of its own.
        kind = ForKind.UNROLLED if short or tile.way == "held" else ForKind.SERIAL
        return loop(count, one, kind, "u")

    def _fetch(self, stage: Expr, k: Expr, u: Expr, own: Expr, inner: Expr) -> Stmt:
        tile, source = self.tile, self.tile.source
        m, deep = self.first + own, k + inner
        values = {**self.at, **axes_at(self.own, m), **axes_at(self.inner, deep)}
        inside = tirx.And(m < index(self.length), deep < index(self.depth))
        where = self._place(stage, own, inner)
        if tile.way == "async":
            assert source.load is not None
            if source.guard is not None:
                inside = tirx.And(inside, substitute(source.guard, values))
            load = tirx.address_of(_source_of(source.load, values, inside))
            return ptx.copy_async(tile.address(where), load, source.run_bytes, inside)
        last = (self.inner if source.inward else self.own)[-1].var

        def element(v: Expr) -> Expr:
            return source.element(values, last, v)

        def nothing(_v: Expr) -> Expr:
            return tirx.const(0, source.dtype)

        def put(value: Body, kind: ForKind) -> Stmt:
            if tile.way == "direct":
                return self._run(where, value)
            at = u * source.run
            store = lambda v: tirx.BufferStore(self.held, value(v), [at + v])  # noqa: E731
            if kind == ForKind.VECTORIZED:
                return neighbours(source.run, store)
            return loop(source.run, store, kind, "v")

        # TVM writes constant vectors of bytes in a way that no compiler takes.
        kind = ForKind.VECTORIZED if source.unpacked is None else ForKind.UNROLLED
        return when(inside, put(element, kind), put(nothing, ForKind.UNROLLED))


def _source_of(load: TensorLoad, values: Values, inside: Expr) -> TensorLoad:
    """`load` at `values`, which is only read where they are `inside`.

    Its address needs no choice, as a copy of no bytes reads nothing (CUTLASS's `cp_async_zfill` is
    given such addresses, too); a choice for each axis would keep a product for each of them in
    registers through all steps. But what an index itself reads is read, and has to be there.
    """
    if any(collect(i, TensorLoad) for i in load.indices):
        values = {var: tirx.Select(inside, value, index(0)) for var, value in values.items()}
    return substitute(load, dict(values))


def held(tile: Tile, name: str) -> Var:
    """Registers for what a thread brings of a tile at a time; a single one where none are used."""
    pieces = -(-tile.size // tile.source.run // tile.threads)
    count = pieces * tile.source.run if tile.way == "held" else 1
    return allocate([count], tile.dtype, name, "local")
