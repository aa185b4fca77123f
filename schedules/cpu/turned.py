"""Sums that are stored across the order of their vectors: kept for a block of rows, then turned.

    for block of rows:
        kept[batch, line, pixel, column] = sums
        out[g(batch, row, pixel, column)] = epilogue(kept[..], ..)         turned in registers

The block stays in L2. A picture that leaves as NCHW, or with its channels shuffled, is stored so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import CpuArch

from ..kernel.access import flattened
from ..kernel.analysis import (
    SPATIAL,
    Axis,
    analyzer,
    constant,
    flat_index,
    stride,
    substitute,
    variables,
)
from ..kernel.contraction import Contraction, Output, known_size, rows_of
from ..kernel.emit import Size, Values, allocate, block, index, known
from ..kernel.stages import Point, Stage, Write
from .decision import StagePlan
from .inside import Inside
from .nest import EMIT
from .plan import stage_plan
from .window import window

DEEP = 128
"""Steps of a sum from which on interleaved lines of free length are not turned block by block.

Tiles end with every line (13 pixels of 128-64 channels: 1.04 to 1.3 times as long; of 64-32: 0.93).
"""


def crosses(total: Contraction) -> bool:
    """Whether some result lies across the order of the vectors, and blocks of it can be turned."""
    if len(total.rows) < 2 or len(total.cols) != 1 or total.kept or total.after:
        return False
    if total.lhs.load is None or window(total, {total.rows[-1]: 2}) is None:
        return False
    orders = [order(total, out) for out in total.outputs]
    if any(axes is None or (_interleaved(total, axes) and _deep(total)) for axes in orders):
        return False
    return any(_step(total, out) != 1 for out in total.outputs)


def _interleaved(total: Contraction, axes: Sequence[Axis]) -> bool:
    """Whether neighbours along a line of a result are sums of several batch points at one pixel."""
    return axes[-1] in total.batch and axes[-2] is total.rows[-1]


def _deep(total: Contraction) -> bool:
    """Whether tiles that end with every line cost more than to turn the results later."""
    return total.rows[-1].size is None and (known_size(total.reduce) or DEEP) >= DEEP


def order(total: Contraction, out: Output) -> tuple[Axis, ...] | None:
    """The axes of a result as they lie in memory, outermost first; None if that is not plain."""
    axes = (*total.batch, *total.rows, *total.cols)
    ana = analyzer(axes)
    found: list[tuple[int, int, Axis]] = []
    for dim, at in enumerate(out.indices):
        used = variables(at)
        for axis in axes:
            if axis.var in used:
                step = stride(at, axis.var, ana)
                pitch = None if step is None else constant(step)
                if pitch is None or pitch <= 0:
                    return None
                found.append((dim, -pitch, axis))
    if len(found) != len(axes) or len({axis.var for *_, axis in found}) != len(axes):
        return None
    return tuple(axis for *_, axis in sorted(found, key=lambda one: one[:2]))


def _step(total: Contraction, out: Output) -> int | None:
    axes = (*total.batch, *total.rows, *total.cols)
    step = stride(flat_index(out), total.cols[-1].var, analyzer(axes, out.buffer.shape))
    return None if step is None else constant(step)


def _pixels(total: Contraction, height: Axis, width: Axis) -> tuple[Axis, ...]:
    """The axes of what is kept but the columns.

    Where sums are interleaved to pixels of a line they are kept in the order of that line, which
    then is one axis: it has whole squares.
    """
    found = order(total, total.outputs[0])
    assert found is not None
    if _interleaved(total, found):
        return tuple(axis for axis in found if axis in (*total.batch, height, width))
    return (*total.batch, height, width)


@dataclass(frozen=True, eq=False)
class Turned:
    """Blocks of `lines` rows of a sum: `sum` stores to `kept`, at row `line` of the block."""

    total: Contraction
    sum: Contraction
    kept: Var
    line: Var
    first: Var
    """The row that a block starts with."""

    @staticmethod
    def of(total: Contraction, lines: Size) -> Turned:
        _, height, width = rows_of(total)
        assert height is not None
        line, first = Var("line", "int64"), Var("first", "int64")
        dims = (*_pixels(total, height, width), *total.cols)
        extents = [lines if axis is height else known(axis.extent) for axis in dims]
        at = tuple(line if axis is height else axis.var for axis in dims)
        kept = allocate(extents, total.dtype, "kept")
        out = Output(kept, at, total.total)
        return Turned(total, replace(total, outputs=(out,)), kept, line, first)

    def plans(self, lines: Size, arch: CpuArch) -> tuple[StagePlan, ...]:
        """How each result of a block is stored."""
        stages = ((out, self._stage(out, lines)) for out in self.total.outputs)
        return tuple(stage_plan(stage, self._fixed(stage), arch) for _, stage in stages)

    def store(
        self, images: Values, first: Expr, count: Size, plans: Sequence[StagePlan]
    ) -> tirx.Stmt:
        """All results of the `count` rows from `first` on."""
        parts = []
        for out, plan in zip(self.total.outputs, plans):
            stage = flattened(self._stage(out, count))
            rows = {**images, self.first: first}
            inner = [axis for axis in stage.spatial if axis.var not in images]
            inside = Inside(stage, plan, rows, inner)
            body = EMIT[plan.mode](inside)
            parts += [*map(tirx.AllocBuffer, inside.buffers), body]
        return block(*parts)

    def _stage(self, out: Output, count: Size) -> Stage:
        """A result over the axes of a block, in the order of memory."""
        _, height, _ = rows_of(self.total)
        axes = order(self.total, out)
        assert height is not None and axes is not None
        (kept,) = self.sum.outputs
        moved = {height.var: self.line + self.first}
        value = {**moved, self.total.total: tirx.BufferLoad(self.kept, kept.indices)}
        lines = Axis(self.line, index(count), SPATIAL)
        return Stage(
            "turned",
            tuple(lines if axis is height else axis for axis in axes),
            (),
            (Write(out.buffer, tuple(substitute(i, moved) for i in out.indices)),),
            Point((), (substitute(out.value, value),)),
        )

    def _fixed(self, stage: Stage) -> tuple[int, ...]:
        """The places of the axes that are the same for a whole block: the images."""
        images, *_ = rows_of(self.total)
        return tuple(p for p, axis in enumerate(stage.spatial) if axis in images)
