"""Sums shared out evenly among a fixed number of blocks, where tiles would leave some idle.

    steps of the sum:   tile 0         | tile 1         | tile 2         |
    blocks:             0          | 1          | 2          | 3         |

A block goes through its steps tile by tile. What it has whole it stores; of a tile that it shares
it leaves its sum, and a second launch adds those up in the order of the blocks, which is the order
of the steps: results are the same at every run. Where there are more tiles than blocks, those that
fill whole rounds are not cut: each block has as many, but the last round's are shared out together
with the one's before, so that nobody has less than a tile (the "two-tile" hybrid of Osama et al.,
Stream-K, PPoPP 2023, arXiv 2301.03598).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import ForKind, Stmt

from ..kernel.emit import Names, Size, Values, allocate, block, index, known, least, loop, most
from .epilogue import Epilogue
from .grid import Body, Tiles, Work
from .launch import Block, launch, when

LEAST_STEPS = 4
"""Steps of the sum that a block has at the least, unless there are fewer."""
LANES = 4
"""Numbers of a sum that travel together: 16 bytes."""
THREADS = 256


@dataclass(frozen=True)
class Shares:
    """The first `tiles` are shared out among `blocks`; of the others each block has `rounds`."""

    tiles: Size
    rounds: Size
    blocks: Size

    def pieces(self, steps: int) -> int:
        """Sums that blocks leave at the most, of tiles of `steps` steps; sizes are known.

        Ends of shares cut tiles, but where they meet those of tiles.
        """
        assert isinstance(self.tiles, int)
        assert isinstance(self.blocks, int)
        even = self.tiles * steps % self.blocks == 0
        cuts = self.blocks - (gcd(self.blocks, self.tiles) if even else 1)
        return cuts + min(cuts, self.tiles)


def shares(tiles: Size, steps: int, blocks: int) -> Shares:
    """How `blocks` blocks at most share out so many tiles of `steps` steps each."""
    if isinstance(tiles, int):
        whole, rest = divmod(tiles, blocks)
        if not rest:
            return Shares(0, whole, blocks)
        if whole:
            return Shares(blocks + rest, whole - 1, blocks)
        return Shares(tiles, 0, max(min(tiles * steps // LEAST_STEPS, blocks), 1))
    whole, rest = divided(tiles, blocks)
    more = index(whole) > 0
    few = most(least(divided(tiles * steps, LEAST_STEPS)[0], blocks), 1)
    streamed = tirx.Select(more, index(rest) + blocks, index(rest))
    return Shares(
        tirx.Select(index(rest) > 0, streamed, index(0)),
        tirx.Select(index(rest) > 0, most(index(whole) - 1, 0), index(whole)),
        tirx.Select(more, index(blocks), index(few)),
    )


def divided(a: Size, b: Size) -> tuple[Size, Size]:
    """(a // b, a % b) of numbers that are not negative and fit in 32 bits."""
    if isinstance(a, int) and isinstance(b, int):
        return divmod(a, b)
    some = tirx.max(tirx.Cast("int32", index(b)), tirx.const(1, "int32"))
    number = tirx.Cast("int32", index(a))
    quotient, rest = tirx.truncdiv(number, some), tirx.truncmod(number, some)
    return tirx.Cast("int64", quotient), tirx.Cast("int64", rest)


class Stream:
    """A product of `tiles` by `blocks` blocks at most; `steps` is how many a tile's sum has."""

    def __init__(self, tiles: Tiles, steps: int, blocks: int, dtype: str) -> None:
        self.tiles, self.steps = tiles, steps
        # What is not known is worked out once, on the host.
        self.names = Names("global")
        found = shares(self._known(tiles.count, "tiles"), steps, blocks)
        self.shares = Shares(
            self._known(found.tiles, "shared"),
            self._known(found.rounds, "rounds"),
            self._known(found.blocks, "blocks"),
        )
        each, more = divided(known(index(self.shares.tiles) * steps), self.shares.blocks)
        self.each, self.more = self._known(each, "each"), self._known(more, "more")
        self.area = tiles.rows * tiles.cols
        self.buffer = allocate([2 * blocks * self.area], dtype, "pieces")

    def _known(self, value: Size, name: str) -> Size:
        return value if isinstance(value, int) else self.names(value, name)

    def over(self, threads: int, begun: Callable[[Expr, Stmt], Stmt], body: Body) -> Stmt:
        """One kernel: ``begun(thread, code)``, the code being ``body(work, thread)`` per tile."""

        def own(number: Expr, thread: Expr, _y: Expr) -> Stmt:
            names = Names()
            length = names(
                index(self.each) + tirx.Cast("int64", number < index(self.more)), "length"
            )
            first = names(self._first(number), "first_step")
            tile = names(divided(first, self.steps)[0], "first_tile")
            end = divided(first + length + (self.steps - 1), self.steps)[0]
            count = names(tirx.max(index(end) - tile, index(0)), "shared")

            def turn(i: Expr) -> Stmt:
                return self._turn(number, first, length, tile, count, i, thread, body)

            every = loop(count + index(self.shares.rounds), turn, name="turn")
            return names.then(begun(thread, every))

        return launch(self.shares.blocks, Block(threads), own)

    def _turn(
        self,
        number: Expr,
        first: Expr,
        length: Expr,
        tile: Expr,
        count: Expr,
        i: Expr,
        thread: Expr,
        body: Body,
    ) -> Stmt:
        """A block's `i`-th tile: of those that are shared, and then of those of the rounds."""
        names, steps, zero = Names(), index(self.steps), index(0)
        cut, later = i < count, i - count
        whole = index(self.shares.tiles) + later * self.shares.blocks + number
        here = names(tirx.Select(cut, tile + i, whole), "tile")
        start = here * steps
        k = names(tirx.Select(cut, tirx.max(first - start, zero), zero), "first")
        stop = tirx.Select(cut, tirx.min(first + length - start, steps), steps)
        own = names(stop - k, "steps")
        done = names(
            tirx.Select(cut, tirx.max(start - first, zero), length + later * steps), "done"
        )
        piece = names(number * 2 + tirx.Cast("int64", k < 1), "piece")

        def place(at: Values, m: Expr, n: Expr, batch: Expr) -> Stmt:
            # Every index has these in it, which hold many quotients.
            own_names = Names()
            row, column = (
                tirx.max(own_names(value, name), index(0))
                for value, name in ((m, "row"), (n, "column"))
            )
            one = Work(at, row, column, batch, k, own, piece, done, own.equal(steps))
            return own_names.then(body(one, thread))

        code = self.tiles.at(here, place)
        return names.then(code)

    def _first(self, number: Expr) -> Expr:
        """The first of all shared steps that a block has."""
        return number * self.each + tirx.min(number, index(self.more))

    def _owner(self, step: Expr) -> Expr:
        """The block that has one of the shared steps."""
        long = index(self.each) + 1
        first = index(self.more) * long
        short = divided(tirx.max(step - first, index(0)), most(self.each, 1))[0]
        return tirx.Select(
            step < first, index(divided(step, long)[0]), index(self.more) + index(short)
        )

    # ------------------------------------------------------------------ sums that are shared

    def store(self, work: Work, m: Expr, n: Expr, total: Callable[[Expr], Expr]) -> Stmt:
        """Numbers `n` and `LANES - 1` more of row `m` of a tile's sum."""
        row, column = m - work.row, n - work.column
        start = work.part * self.area + row * self.tiles.cols + column
        return loop(
            LANES,
            lambda v: tirx.BufferStore(self.buffer, total(v), [start + v]),
            ForKind.VECTORIZED,
            "v",
        )

    def join(self, epilogue: Epilogue) -> Stmt:
        """Add up the sums of tiles that several blocks share, in the order of the blocks."""
        lanes, cols = epilogue.lanes, self.tiles.cols
        per_tile = -(-self.area // (lanes * THREADS))
        total = allocate([lanes], str(self.buffer.ty.dtype), "total", "local")

        def body(number: Expr, thread: Expr, _y: Expr) -> Stmt:
            names = Names()
            tile = names(number // per_tile, "tile")
            step = tile * self.steps
            first = names(self._owner(step), "first_block")
            last = names(self._owner(step + (self.steps - 1)), "last_block")
            flat = (number % per_tile * THREADS + thread) * lanes

            def add(i: Expr) -> Stmt:
                # The first has steps from the tile's first on, the others have not.
                names = Names()
                piece = names((first + i) * 2 + tirx.Cast("int64", i < 1), "piece")

                def one(v: Expr) -> Stmt:
                    new = self.buffer[piece * self.area + flat + v]
                    return tirx.BufferStore(total, total[v] + new, [v])

                return names.then(loop(lanes, one, ForKind.VECTORIZED, "v"))

            def zero(v: Expr) -> Stmt:
                return tirx.BufferStore(total, tirx.const(0, str(total.ty.dtype)), [v])

            def leave(at: Values, m: Expr, n: Expr, _batch: Expr) -> Stmt:
                return epilogue.store(at, m + flat // cols, n + flat % cols, lambda v: total[v])

            shared = tirx.And(first < last, flat < index(self.area))
            if not isinstance(self.shares.tiles, int):  # of an empty grid there is one block
                shared = tirx.And(shared, tile < self.shares.tiles)
            work = block(
                loop(lanes, zero, ForKind.UNROLLED, "v"),
                loop(last - first + 1, add, name="i"),
                self.tiles.at(tile, leave),
            )
            return block(tirx.AllocBuffer(total), names.then(when(shared, work)))

        return launch(known(index(self.shares.tiles) * per_tile), Block(THREADS), body)
