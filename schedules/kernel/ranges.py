"""What sizes that are known at run time only may be, as far as the user declared it."""

from __future__ import annotations

from collections.abc import Iterable

import tvm
from tvm import sym
from tvm.ir import Range

from tvmext.passes.share_kernels import NO_LIMIT, RANGES

from .analysis import Axis, variables
from .contraction import size
from .emit import index

Span = tuple[int, int | None]
"""The least and the most that a size may be; None is no limit."""

ANY: Span = (0, None)


def span(axes: Iterable[Axis], func: tvm.tirx.PrimFunc) -> Span:
    """How few and how many points `axes` of a kernel may have."""
    ranges = func.attrs[RANGES] if func.attrs is not None and RANGES in func.attrs else {}
    total = index(size(axes))
    ana = sym.Analyzer()
    for var in variables(total):
        low, high = map(int, ranges.get(var.name, (0, NO_LIMIT)))
        if high == NO_LIMIT:
            return ANY
        ana.bind(var, Range.from_min_extent(low, high - low + 1))
    found = ana.const_int_bound(total)
    return max(0, int(found.min_value)), int(found.max_value)
