"""A register tile over bytes: each step takes the `step` neighbours along the last reduce axis.

    acc[i, j] = dot(acc[i, j], lhs word (row + i, q), rhs word (q, j))

A word is as many bytes as the instruction adds up in a lane (words.py).

Where the instruction takes the other sign of `lhs`, bytes are moved by 128 as they are read:

    sum_k (lhs + 128) * rhs  =  sum_k lhs * rhs + 128 * sum_k rhs

and the sums start from what is too much, computed once per panel with the same instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tvm import tirx
from tvm.ir import Expr, Var

from ..kernel.analysis import constant
from ..kernel.contraction import Contraction
from ..kernel.emit import (
    UNROLLED,
    Size,
    Values,
    allocate,
    block,
    ceildiv,
    index,
    known,
    loop,
    nest,
    ravel,
)
from .dots import Dot
from .panel import Panel
from .panels import Weight
from .tile import Ahead, RegisterTile, Shape, Sums
from .words import WordPack, Words, laid_words, word


@dataclass(frozen=True, eq=False)
class DotKernel(RegisterTile):
    """`lhs` is the factor at rows and reduce axes, a cast load of the first of `types`."""

    dot: Dot
    lhs: Callable[[Values, Values], Expr]
    words: Words
    types: tuple[str, str]
    excess: Var = field(init=False)
    """What sums start from, per column, where `lhs` is moved."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "excess", allocate([self.shape.cols], "int32", "excess"))

    @property
    def flips(self) -> bool:
        return self.dot.flips(self.types[0])

    def begin(self, panel: Panel) -> tirx.Stmt | None:
        """Minus the products of `rhs` with what moves `lhs`, for every column of the panel."""
        if not self.flips:
            return None
        places = [self._lanes(index(v)) for v in range(self.shape.vectors)]
        moves = tirx.Broadcast(_sign_bits(self.dot), self.dot.lanes)
        zero = tirx.Broadcast(tirx.const(0, "int32"), self.dot.lanes)

        def step(ks: list[Expr]) -> tirx.Stmt:
            point = {axis.var: k for axis, k in zip(self.sum.reduce, ks)}
            return block(
                *(self._add(self.excess, [at], moves, panel, point, ks[-1]) for at in places)
            )

        *outer, _ = self._extents
        return block(
            tirx.AllocBuffer(self.excess),
            *(tirx.BufferStore(self.excess, zero, [at]) for at in places),
            nest([*outer, ceildiv(known(self.sum.reduce[-1].extent), self.dot.step)], step),
            *(tirx.BufferStore(self.excess, zero - self.excess[at], [at]) for at in places),
        )

    def _clear(self, sums: Sums) -> tirx.Stmt:
        if not self.flips:
            return super()._clear(sums)
        return sums.each(lambda buffer, i, j, _at: tirx.BufferStore(buffer, self.excess[j], [i, j]))

    @property
    def _steps(self) -> int | None:
        extent = self.sum.reduce[-1].size
        return None if extent is None else extent // self.dot.step

    @property
    def _extents(self) -> list[Size]:
        """Of the reduce axes, the last one in whole words."""
        *outer, last = (known(axis.extent) for axis in self.sum.reduce)
        return [*outer, known(last // self.dot.step)]

    def _reduce(
        self,
        parts: list[Sums],
        panel: Panel,
        _ranges: Mapping[Var, tuple[Expr, Expr]],
        ahead: Ahead | None,
    ) -> tirx.Stmt:
        *outer, words = self._extents
        rest = known(self.sum.reduce[-1].extent % self.dot.step)

        def run(ks: list[Expr]) -> tirx.Stmt:
            point = {axis.var: k for axis, k in zip(self.sum.reduce, ks)}

            def step(q: Expr) -> tirx.Stmt:
                fetch = None
                if ahead is not None and len(parts) == 1:
                    fetch = ahead(ravel([*ks, q], [*outer, words]), 1)
                at = [q * len(parts) + p for p in range(len(parts))]
                return block(fetch, *(self._step(s, panel, point, q) for s, q in zip(parts, at)))

            def left(q: Expr) -> tirx.Stmt:
                return self._step(parts[0], panel, point, words // len(parts) * len(parts) + q)

            last = None
            if rest != 0:
                last = self._step(parts[0], panel, point, index(words), index(rest))
                last = last if isinstance(rest, int) else tirx.IfThenElse(rest > 0, last, None)
            return block(
                loop(known(words // len(parts)), step, name="q"),
                loop(known(words % len(parts)), left, name="left"),
                last,
            )

        return nest(outer, run)

    def _step(
        self, sums: Sums, panel: Panel, point: Values, q: Expr, count: Expr | None = None
    ) -> tirx.Stmt:
        """Add word `q` of every row, of which only `count` bytes exist."""
        first = {**point, self.sum.reduce[-1].var: q * self.dot.step}

        def row(buffer: Var, i: Expr, at: Values) -> tirx.Stmt:
            bits = word(self.dot, self.lhs({**at, **panel.at}, first), count)
            if self.flips:
                bits = bits ^ _sign_bits(self.dot)
            name = Var("word", self.dot.word)
            spread = tirx.Broadcast(name, self.dot.lanes)
            return block(
                tirx.Bind(name, bits),
                loop(
                    self.shape.vectors,
                    lambda v: self._add(buffer, [i, self._lanes(v)], spread, panel, point, q),
                    UNROLLED,
                    "v",
                ),
            )

        rows, start = [], 0
        for buffer in sums.buffers:
            height = constant(buffer.shape[0]) or 0
            at = lambda i, buffer=buffer, start=start: row(buffer, i, sums.row(i + start))  # noqa: E731
            rows.append(loop(height, at, UNROLLED, "i"))
            start += height
        return block(*rows)

    def _add(
        self, buffer: Var, at: list[Expr], lhs: Expr, panel: Panel, point: Values, q: Expr
    ) -> tirx.Stmt:
        """One instruction: a vector of `buffer` and the products of `lhs` with the panel's."""
        rhs = self.words(panel, point, q, at[-1].base)
        total = self.dot.add(tirx.BufferLoad(buffer, at), lhs, rhs, self.types)
        return tirx.BufferStore(buffer, total, at)

    def _lanes(self, v: Expr) -> tirx.Ramp:
        return tirx.Ramp(v * self.dot.lanes, index(1), self.dot.lanes)


def _sign_bits(dot: Dot) -> Expr:
    """A word whose bytes are 0x80."""
    bits = 0x80 * sum(1 << 8 * i for i in range(dot.step))
    return tirx.const(bits - (1 << 8 * dot.step), dot.word)


def dot_kernel(
    total: Contraction,
    shape: Shape,
    dot: Dot,
    types: tuple[str, str],
    lhs: Callable[[Values, Values], Expr],
    laid: Weight | None,
) -> tuple[DotKernel, WordPack | None]:
    """The tile, and the pack of its panels where `rhs` is no weight laid out in words."""
    pack = None
    if laid is not None:
        words = laid_words(laid, total, dot)
    else:
        pack = WordPack.of(total, shape, dot)
        words = pack.read
    return DotKernel(total, shape, dot, lhs, words, types), pack
