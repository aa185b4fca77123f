"""Products whose rows are the columns of a matrix in memory: what is ahead is fetched.

    out[m, n] = sum_k a[k, m] * b[k, n]

A tile takes a few neighbours from every line of `a`, and the next line is as far away as a row of
`a` is long. Prefetchers of the hardware follow such strides within a page only, and a row may be
half of one: without help every step of the sum waits for memory.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr

from tvmext.arch import dtype_bits

from ..kernel.analysis import analyzer, constant, flat_index, stride, substitute
from ..kernel.contraction import Contraction
from ..kernel.emit import Values, block
from ..levels import LINE_BYTES
from .panel import Panel
from .panels import fetch
from .tile import Ahead

STEPS_AHEAD = 24
"""Steps of the sum by which a line is fetched before it is read: some 100 ns of a tile."""


def down_columns(found: Contraction) -> bool:
    """Whether rows of `lhs` are neighbours in memory, and each step of the sum is on a new line."""
    load = found.lhs.load
    if not found.lhs.direct or load is None or len(found.reduce) != 1 or not found.rows:
        return False
    axes = (*found.batch, *found.rows, *found.reduce)
    ana = analyzer(axes, load.source.shape)
    offset = flat_index(load)
    near, far = (stride(offset, axis.var, ana) for axis in (found.rows[-1], found.reduce[0]))
    if near is None or far is None or constant(near) != 1:
        return False
    bits = dtype_bits(str(load.source.dtype))
    return ana.can_prove(far * bits >= LINE_BYTES * 8)


def columns_ahead(
    found: Contraction, at: Callable[[Expr], Values], height: int, panel: Panel
) -> Ahead:
    """Fetches what a tile of `height` rows reads of `lhs` some steps later, past the end too."""
    load = found.lhs.load
    assert load is not None
    k = found.reduce[0].var
    ends = sorted({0, height - 1})

    def ahead(step: Expr, count: int) -> tirx.Stmt:
        rows = [{**at(tirx.const(i, "int64")), **panel.at} for i in ends]
        steps = [{k: step + (STEPS_AHEAD + n)} for n in range(count)]
        places = (substitute(load, {**row, **later}) for later in steps for row in rows)
        return block(*(fetch(place, level=1) for place in places))

    return ahead
