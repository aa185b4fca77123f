"""Fetching what a depthwise tile reads and writes a row below, where images come from memory.

Tiles move down a few vectors of channels at a time, pixels of a row apart: steps that no prefetcher
of the hardware follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var

from tvmext.arch import CpuArch, dtype_bits

from ..kernel.analysis import Axis, collect, substitute, variables
from ..kernel.contraction import Contraction, size, slides_along
from ..kernel.emit import Size, Values, block, hidden, index, known, loop
from ..levels import LINE_BYTES
from ..rule import Declined
from .panel import Panel
from .panels import fetch

EVERY = 1 << 62
"""More pixels than there are."""


def near_pixels(channels: int, moved: int, dtype: str, arch: CpuArch) -> int:
    """Pixels of results that stay in L3 with the `moved` ones of the input for each.

    Larger images are fetched ahead: 3x3 and 5x5 windows take 0.43 to 0.9 of the time where both are
    12 MB and more, beside 32 MiB of L3, 0.9 to 1.07 from 8 MB on, and 1.0 to 1.17 below.
    """
    pixel_bytes = (1 + moved) * channels * dtype_bits(dtype) // 8
    return max(1, arch.l3_bytes // 4 // pixel_bytes)


@dataclass(frozen=True, eq=False)
class Below:
    """The row below that of a tile: `height` is the axis, the window moves by `lines` and `tap`.

    `lines` and `tap` are the reduce axes along columns and rows and how far a pixel moves them.
    """

    total: Contraction
    loads: tuple[TensorLoad, ...]
    height: Axis
    width: Axis
    lines: tuple[Axis, int]
    tap: tuple[Axis, int]
    far: Size
    """Whether the images come from memory, as 0 or 1: a name of what is known at run time only."""
    is_far: Expr

    @staticmethod
    def of(
        total: Contraction,
        value: Expr,
        height: Axis | None,
        width: Axis,
        tap: tuple[Axis, int],
        near: int,
    ) -> Below | None:
        """Of a sum over ``value * weight``, for images of more than `near` pixels in all.

        None where there are no such, or no window moves down a column.
        """
        across = Declined("no rows") if height is None else slides_along(total, height)
        pixels = known(size((*total.batch, *total.rows)))
        if height is None or isinstance(across, Declined):
            return None
        if isinstance(pixels, int) and pixels <= near:
            return None
        lines, (stride, _) = across
        loads = tuple(one for one in collect(value, TensorLoad) if height.var in variables(one))
        far = 1 if isinstance(pixels, int) else Var("far", "int64")
        is_far = index(pixels) > index(near)
        return Below(total, loads, height, width, (lines, stride), tap, far, is_far)

    def named(self, code: tirx.Stmt) -> tirx.Stmt:
        """`code`, where `far` is known."""
        if isinstance(self.far, int):
            return code
        return hidden(tirx.Select(self.is_far, index(1), index(0)), self.far, code)

    def fetch(self, at: Values, x: Expr, pixels: int, panel: Panel, line: Expr) -> tirx.Stmt:
        """Bring into L2 what pixels x .. x + `pixels` need below `at` and this row does not.

        That is a part of them for each `line` of the window, counted from the first one inside: the
        caches take so many requests at a time. Columns that the tile before has fetched are left
        out, also of the first one. Fetching past the end of the image does no harm.
        """
        below = {**at, **panel.at, self.height.var: at[self.height.var] + 1}
        step = LINE_BYTES * 8 // dtype_bits(self.total.dtype)
        part = -(-pixels // (self.lines[0].size or 1))

        def pixel(i: Expr) -> tirx.Stmt:
            parts = []
            for j in range(0, panel.width, step):
                place = x + line * part + i
                point = {**below, self.width.var: place, **panel.cols(index(j))}
                parts += [
                    substitute(load, {**point, **k}) for load in self.loads for k in self._new()
                ]
                parts += [
                    tirx.BufferLoad(out.buffer, [substitute(n, point) for n in out.indices])
                    for out in self.total.outputs
                ]
            return block(*map(fetch, parts))

        return loop(known(self.far * part), pixel, name="below")

    def _new(self) -> list[Values]:
        """The elements of a window that are in none to the left of it, nor in one above."""
        (lines, down), (tap, right) = self.lines, self.tap
        others = {axis.var: index(0) for axis in self.total.reduce}
        return [
            {**others, lines.var: k, tap.var: n}
            for k in _last(lines, down)
            for n in _last(tap, right)
        ]


def _last(axis: Axis, count: int) -> list[Expr]:
    """The last `count` places of an axis, if it has so many."""
    if axis.size is not None:
        return [index(axis.size - 1 - n) for n in range(min(count, axis.size))]
    return [known(axis.extent) - index(1 + n) for n in range(count)]
