"""Words: the bytes that a dot instruction adds up in one lane, neighbours along the sum.

The last word of a ragged sum is put together byte by byte, so that none is read past the end; the
rest of it is zero on the side of `rhs`, in a weight as well as in a panel packed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var

from ..kernel.analysis import Axis, analyzer, collect, constant, stride, substitute, variables
from ..kernel.contraction import Contraction, size
from ..kernel.emit import Size, Values, allocate, block, ceildiv, index, known, loop, nest
from .after import along
from .dots import Dot
from .panel import Panel
from .panels import Weight
from .tile import Shape

Words = Callable[[Panel, Values, Expr, Expr], Expr]
"""The words of `rhs` in a panel: at outer reduce axes, word q of the last one, from column j on."""


def factor_types(total: Contraction) -> tuple[str, str] | None:
    """The types that are multiplied, if neighbours along the sum are neighbours in `lhs`."""
    types = []
    for operand in (total.lhs, total.rhs):
        if operand.load is None or not isinstance(operand.factor, tirx.Cast):
            return None
        if not operand.factor.value.same_as(operand.load):
            return None
        types.append(str(operand.load.source.dtype))
    load = total.lhs.load
    assert load is not None
    if total.dtype != "int32" or not total.reduce or not neighbours(load, total.reduce[-1]):
        return None
    return types[0], types[1]


def neighbours(load: TensorLoad, axis: Axis) -> bool:
    """Whether steps along `axis` go to the next element of the last dim, and nowhere else."""
    *outer, last = load.indices
    if any(axis.var in variables(at) for at in outer) or axis.var not in variables(last):
        return False
    step = stride(last, axis.var, analyzer((axis,)))
    return step is not None and constant(step) == 1


def word(dot: Dot, first: Expr, count: Expr | None = None) -> Expr:
    """The neighbours from the cast load `first` on as one word; `count` of them if not all."""
    (load,) = collect(first, TensorLoad)
    *outer, last = load.indices
    if count is None:
        where = [*outer, tirx.Ramp(last, index(1), dot.step)]
        return tirx.reinterpret(dot.word, tirx.BufferLoad(load.source, where))
    return joined(
        dot,
        [tirx.BufferLoad(load.source, [*outer, last + i]) for i in range(dot.step)],
        count,
    )


def joined(dot: Dot, elements: list[Expr], count: Expr | None) -> Expr:
    """Bytes as one word; only `count` of them if not all."""
    whole = tirx.const(0, dot.word)
    for i, element in enumerate(elements):
        byte = tirx.Cast(dot.word, element) & tirx.const(0xFF, dot.word)
        shifted = byte << tirx.const(8 * i, dot.word)
        whole = whole | (shifted if count is None else _guarded(i, count, shifted))
    return whole


def _guarded(i: int, count: Expr, value: Expr) -> Expr:
    """`value` if i < count, else 0, and not even read."""
    zero = tirx.const(0, str(value.ty))
    known_count = constant(count)
    if known_count is None:
        return tirx.if_then_else(index(i) < count, value, zero)
    return value if i < known_count else zero


def laid_words(laid: Weight, total: Contraction, dot: Dot) -> Words:
    """Vectors from a weight in panels of words."""

    def read(panel: Panel, point: Values, q: Expr, column: Expr) -> Expr:
        lead = laid.first(panel)[: -len(total.reduce) - 2]
        ks = [point[axis.var] for axis in total.reduce[:-1]]
        run = tirx.Ramp(index(0), index(1), dot.lanes * dot.step)
        return tirx.BufferLoad(laid.buffer, [*lead, *ks, q, column, run])

    return read


@dataclass(frozen=True, eq=False)
class WordPack:
    """A panel of words, packed inside the kernel."""

    sum: Contraction
    shape: Shape
    dot: Dot
    buffer: Var

    @staticmethod
    def of(total: Contraction, shape: Shape, dot: Dot) -> WordPack:
        *outer, last = (known(axis.extent) for axis in total.reduce)
        extents = [*outer, ceildiv(last, dot.step), shape.cols]
        return WordPack(total, shape, dot, allocate(extents, dot.word, "panel"))

    def read(self, _panel: Panel, point: Values, q: Expr, column: Expr) -> Expr:
        ks = [point[axis.var] for axis in self.sum.reduce[:-1]]
        run = tirx.Ramp(column, index(1), self.dot.lanes)
        return tirx.BufferLoad(self.buffer, [*ks, q, run])

    def fill(self, panel: Panel) -> tirx.Stmt:
        """Pack the columns that exist."""
        copy = self._by_columns if self._side_by_side() else self._by_vectors
        count = panel.valid if panel.ragged else index(panel.width)
        *outer, last = (known(axis.extent) for axis in self.sum.reduce)
        rest = known(last % self.dot.step)

        def each(ks: list[Expr]) -> tirx.Stmt:
            words, tail = known(last // self.dot.step), None
            whole = copy(panel, ks, index(0), index(words), count, None)
            if rest != 0:
                tail = copy(panel, ks, index(words), index(1), count, index(rest))
                tail = tail if isinstance(rest, int) else tirx.IfThenElse(rest > 0, tail, None)
            return block(whole if words != 0 or tail is None else None, tail)

        return nest(outer, each)

    def _side_by_side(self) -> bool:
        load = self.sum.rhs.load
        return self.sum.rhs.direct and load is not None and neighbours(load, self.sum.reduce[-1])

    def _element(self, panel: Panel, ks: list[Expr], k: Expr, j: Expr) -> Expr:
        at = {axis.var: each for axis, each in zip(self.sum.reduce, [*ks, k])}
        return substitute(self.sum.rhs.value, {**panel.at, **panel.cols(j), **at})

    def _by_columns(
        self, panel: Panel, ks: list[Expr], q: Expr, words: Expr, count: Expr, rest: Expr | None
    ) -> tirx.Stmt:
        """Columns one by one; their words lie in memory as they are."""

        def put(j: Expr, i: Expr) -> tirx.Stmt:
            first = self._element(panel, ks, (q + i) * self.dot.step, j)
            return tirx.BufferStore(self.buffer, word(self.dot, first, rest), [*ks, q + i, j])

        return loop(count, lambda j: loop(words, lambda i: put(j, i), name="q"), name="j")

    def _by_vectors(
        self, panel: Panel, ks: list[Expr], q: Expr, words: Expr, count: Expr, rest: Expr | None
    ) -> tirx.Stmt:
        """Words of neighbouring columns together, from vectors of bytes."""

        def put(i: Expr, j: Expr) -> tirx.Stmt:
            first = (q + i) * self.dot.step
            parts = [self._element(panel, ks, first + n, j) for n in range(self.dot.step)]
            return tirx.BufferStore(self.buffer, joined(self.dot, parts, rest), [*ks, q + i, j])

        return loop(words, lambda i: along(known(count), self.dot.lanes, lambda j: put(i, j)))


def steps_of(total: Contraction, step: int) -> Size:
    """Steps of the whole sum, `step` neighbours of the last axis in each."""
    *outer, last = total.reduce
    return known(size(outer) * ceildiv(known(last.extent), step))
