"""Reads and writes at positions that are data: gather, scatter, one-hot, triangles.

Indices count from the end if they are negative, as the lowerings of passes/indexing.py have it, and
nothing is read or written outside of a tensor; a known index that is out of range is an error of
shape inference (symbolic_indexing.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax

from tvmext.errors import ModelError

from .. import graph as graphs
from ..builder import Call, Converter, Result
from ..symbolic_node import MAX_SIZE
from . import runtime, sizes
from .movement import slice_axes


def _check_known(call: Call, axes: Sequence[int]) -> None:
    """Raises ModelError if a constant index is out of range; the last dim is one index per axis."""
    known = call.known(1)
    if known is None or known.dtype == object or not known.size or not axes:
        return
    columns = known.reshape(-1, len(axes)).astype(np.int64)
    for axis, indices in zip(axes, columns.T):
        size = call.shape(0)[axis]
        low, high = int(indices.min()), int(indices.max())
        if isinstance(size, int) and not -size <= low <= high < size:
            wrong = high if high >= size else low
            raise ModelError(
                f"{call.op} '{graphs.label(call.node)}' reads index {wrong} of an axis of size "
                f"{size}",
                hint=f"indices from {-size} to {size - 1}",
            )


def _gather(call: Call) -> Result:
    """Rows by index. A single known index is a slice."""
    axis = call.axis(0, call.rank(0))
    _check_known(call, [axis])
    size, index = call.shape(0)[axis], call.scalar(1)
    if index is not None and isinstance(size, int):
        start = int(index) % size if size else 0
        part = slice_axes(call, call.tensor(0), [(axis, start, start + 1, 1)])
        return call.reshape(call.emit(part), call.out_shape())
    return relax.op.take(call.tensor(0), call.tensor(1), axis, mode="wrap")


def _gather_elements(call: Call) -> Result:
    axis = call.axis(0, call.rank(0))
    _check_known(call, [axis])
    return relax.op.gather_elements(call.tensor(0), call.tensor(1), axis)


def _gather_nd(call: Call) -> Result:
    batch, depth = call.attr("batch_dims", 0), call.shape(1)[-1]
    _check_known(call, range(batch, batch + depth) if isinstance(depth, int) else [])
    indices = call.tensor(1)
    if call.dtype(1) != "int64":
        indices = call.emit(relax.op.astype(indices, "int64"))
    return relax.op.gather_nd(call.tensor(0), indices, batch)


REDUCTIONS = {"none": "update", "add": "add", "mul": "mul", "min": "min", "max": "max"}
"""What scattered updates do to an element, and Relax's word for it."""


def _reduction(call: Call) -> str:
    asked = str(call.attr("reduction", "none"))
    if asked not in REDUCTIONS:
        raise ModelError(
            f"{call.op} '{graphs.label(call.node)}' has the reduction {asked!r}",
            hint=f"one of {', '.join(REDUCTIONS)}",
        )
    return REDUCTIONS[asked]


def _scatter_elements(call: Call) -> Result:
    axis = call.axis(0, call.rank(0))
    _check_known(call, [axis])
    return relax.op.scatter_elements(*call.tensors(), axis, _reduction(call))


def _scatter_nd(call: Call) -> Result:
    depth = call.shape(1)[-1]
    _check_known(call, range(depth) if isinstance(depth, int) else [])
    return relax.op.scatter_nd(*call.tensors(), _reduction(call))


def _one_hot(call: Call) -> Result:
    """y[i, d] = on if indices[i] == d else off, with values = [off, on]."""
    indices, rank = call.tensor(0), call.rank(0) + 1
    axis = call.axis(-1, rank)
    depth = sizes.out_of(call)[axis]
    if not call.builder.has_defined([depth]):
        runtime.define_one(call, 1, depth)
    if call.dtype(0) != "int64":
        indices = call.emit(relax.op.astype(indices, "int64"))
    count = call.emit(relax.op.arange(call.prim(0), call.prim(depth), call.prim(1), "int64"))
    count = call.emit(call.reshape(count, [depth if k == axis else 1 for k in range(rank)]))
    indices = call.emit(relax.op.expand_dims(indices, axis))
    size = (
        relax.const(depth, "int64")
        if isinstance(depth, int)
        else call.emit(relax.op.shape_to_tensor(call.shape_expr([depth])))
    )
    below = call.emit(relax.op.less(indices, relax.const(0, "int64")))
    wrapped = call.emit(relax.op.add(indices, size))
    indices = call.emit(relax.op.where(below, wrapped, indices))
    off, on = (
        call.emit(call.reshape(call.emit(slice_axes(call, call.tensor(2), [(0, k, k + 1, 1)])), ()))
        for k in (0, 1)
    )
    return relax.op.where(call.emit(relax.op.equal(indices, count)), on, off)


def _trilu(call: Call) -> Result:
    if call.has(1) and call.ints(1) is None:
        return runtime.trilu(call)
    offset = call.need_ints(1, "the diagonal")[0] if call.has(1) else 0
    build = relax.op.triu if call.attr("upper", 1) else relax.op.tril
    return build(call.tensor(0), max(-MAX_SIZE, min(offset, MAX_SIZE)))


CONVERTERS: dict[str, Converter] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "Scatter": _scatter_elements,
    "ScatterND": _scatter_nd,
    "OneHot": _one_hot,
    "Trilu": _trilu,
}
