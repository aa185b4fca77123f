"""The function of a library for products whose rows lie side by side, as Winograd's method has it.

    product(x, w, out, count, chunks, jump, pitch, height, heights):
        out[r, j] = sum_ck x[c * jump + r * lanes + k] * w[c * lanes + k, j]
                               r < count * height, c < chunks, k < lanes

Rows of `out` are `pitch` apart. One call computes all tiles of one height of a position, so that it
costs little however short the sum is. Its heights are as those of tile_function.py.
"""

from __future__ import annotations

import re
from functools import cache

from tvm import tirx
from tvm.ir import Expr, GlobalVar, TensorLoad, Var

from ..kernel.analysis import REDUCE, SPATIAL, Axis, substitute
from ..kernel.choice import of_height
from ..kernel.contraction import Contraction, Operand, Output
from ..kernel.emit import Values, block, index, loop
from .panel import Panel
from .tile import Kernel, Shape
from .tile_function import Pointer, private
from .turns import CHAINS

_PREFIX = "tvmext_rows_"
_NAME = re.compile(_PREFIX + r"(\d+)x(\d+)x(\d+)_(\d+)_(float\d+)")


@cache
def rows_function(shape: Shape, lanes: int, dtype: str) -> GlobalVar:
    """The function of tiles of `shape` over channels that lie in vectors of `lanes`."""
    tile = f"{shape.rows}x{shape.vectors}x{shape.lanes}"
    return GlobalVar(f"{_PREFIX}{tile}_{lanes}_{dtype}")


def definition(name: str, bits: int) -> tirx.PrimFunc | None:
    """The function of that name with the heights that `bits` has; None if it is none of these."""
    parsed = _NAME.fullmatch(name)
    if parsed is None:
        return None
    rows, count, lanes, channels = map(int, parsed.groups()[:4])
    heights = [n for n in range(rows, 0, -1) if bits >> n & 1]
    return _defined(name, Shape(rows, count, lanes), heights, channels, parsed[5])


def _defined(name: str, shape: Shape, heights: list[int], lanes: int, dtype: str) -> tirx.PrimFunc:
    x, w = (Pointer.of(name, dtype, [1 << 40]) for name in ("x", "w"))
    names = ("count", "chunks", "jump", "pitch", "height", "heights")
    count, chunks, jump, pitch, height, _ = sizes = [Var(name, "int64") for name in names]
    out = Pointer.of("out", dtype, [1 << 30, pitch])
    row, column, chunk, lane = (
        Axis(Var(name, "int64"), extent, kind)
        for name, extent, kind in (
            ("row", count * height, SPATIAL),
            ("column", index(shape.cols), SPATIAL),
            ("chunk", chunks, REDUCE),
            ("lane", index(lanes), REDUCE),
        )
    )
    # Axes of extent 1 are left out of contractions: channels whose number is odd.
    step = chunk.var if lanes == 1 else chunk.var * lanes + lane.var
    inside = chunk.var * jump + row.var * lanes + (index(0) if lanes == 1 else lane.var)
    left = tirx.BufferLoad(x.buffer, [inside])
    right = tirx.BufferLoad(w.buffer, [step * shape.cols + column.var])
    operands = (_operand(left), _operand(right))
    total = Var("sum", dtype)
    stored = Output(out.buffer, (row.var, column.var), total)
    reduce = (chunk,) if lanes == 1 else (chunk, lane)
    found = Contraction((), (row,), (column,), reduce, *operands, total, (stored,))

    def term(at: Values, k: Values, _panel: Panel, j: Expr) -> Expr:
        return substitute(left * right, {**at, **k, column.var: j})

    tile = Kernel(found, shape, term, chains=CHAINS)
    panel = Panel(found, {}, index(0), index(0), shape.cols, shape.cols)

    def of(rows: int) -> tirx.Stmt:
        at = lambda t: lambda i: {row.var: t * rows + i}  # noqa: E731
        return loop(count, lambda t: tile.tile(at(t), rows, panel, None), name="t")

    pointers = (x, w, out)
    body = block(
        *(tirx.DeclBuffer(one.buffer, data=one.pointer) for one in pointers),
        of_height(heights, height, of),
    )
    return private(name, [*(one.pointer for one in pointers), *sizes], body)


def _operand(load: TensorLoad) -> Operand:
    return Operand(load, load, load)
