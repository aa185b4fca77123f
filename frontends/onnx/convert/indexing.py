"""Reads and writes at positions that are data: gather, scatter, one-hot, triangles."""

from __future__ import annotations

import numpy as np
from tvm import relax

from ..builder import Call, Converter, DeclinedError, Result
from .movement import slice_axes


def _gather(call: Call) -> Result:
    """Rows by index. A single known index is a slice; others count from the end if negative."""
    axis = call.axis(0, call.rank(0))
    size, index = call.shape(0)[axis], call.scalar(1)
    if index is not None and isinstance(size, int):
        start = int(index) % size if size else 0
        part = slice_axes(call, call.tensor(0), [(axis, start, start + 1, 1)])
        return call.reshape(call.emit(part), call.out_shape())
    known = call.ints(1)
    if known is not None and isinstance(size, int) and size:
        rows = np.array(known, np.int64).reshape(call.shape(1)) % size  # type: ignore[arg-type]
        return relax.op.take(call.tensor(0), call.constant(rows, "rows"), axis, mode="clip")
    return relax.op.take(call.tensor(0), call.tensor(1), axis, mode="wrap")


def _from_end(call: Call, index: int, size: int | object) -> relax.Expr:
    """Indices of input `index` with negative ones counted from the end of a dim of `size`."""
    known = call.ints(index)
    if known is not None and min(known, default=0) >= 0:
        return call.tensor(index)
    if not isinstance(size, int):
        return call.tensor(index)
    indices, dtype = call.tensor(index), call.dtype(index)
    negative = call.emit(relax.op.less(indices, relax.const(np.array(0, dtype), dtype)))
    wrapped = call.emit(relax.op.add(indices, relax.const(np.array(size, dtype), dtype)))
    return call.emit(relax.op.where(negative, wrapped, indices))


def _gather_elements(call: Call) -> Result:
    axis = call.axis(0, call.rank(0))
    indices = _from_end(call, 1, call.shape(0)[axis])
    return relax.op.gather_elements(call.tensor(0), indices, axis)


def _gather_nd(call: Call) -> Result:
    indices = call.tensor(1)
    if call.dtype(1) != "int64":
        indices = call.emit(relax.op.astype(indices, "int64"))
    return relax.op.gather_nd(call.tensor(0), indices, call.attr("batch_dims", 0))


def _reduction(call: Call) -> str:
    return {"none": "update"}.get(call.attr("reduction", "none"), call.attr("reduction", "none"))


def _scatter_elements(call: Call) -> Result:
    axis = call.axis(0, call.rank(0))
    indices = _from_end(call, 1, call.shape(0)[axis])
    return relax.op.scatter_elements(
        call.tensor(0), indices, call.tensor(2), axis, _reduction(call)
    )


def _scatter_nd(call: Call) -> Result:
    return relax.op.scatter_nd(call.tensor(0), call.tensor(1), call.tensor(2), _reduction(call))


def _one_hot(call: Call) -> Result:
    (depth,) = call.need_ints(1, "the depth")
    values = call.known(2)
    if values is None:
        raise DeclinedError("on and off values that are known only at run time")
    off, on = (value.item() if isinstance(value, np.generic) else value for value in values.flat)
    dtype = call.dtype(2)
    indices = call.tensor(0)
    if call.dtype(0) not in ("int32", "int64"):
        indices = call.emit(relax.op.astype(indices, "int64"))
    kind = "int32" if call.dtype(0) == "int32" else "int64"
    below = call.emit(relax.op.less(indices, relax.const(np.array(0, kind), kind)))
    wrapped = call.emit(relax.op.add(indices, relax.const(np.array(depth, kind), kind)))
    indices = call.emit(relax.op.where(below, wrapped, indices))
    hot = relax.op.one_hot(
        indices,
        relax.prim_value(np.array(on, dtype).item()),
        relax.prim_value(np.array(off, dtype).item()),
        depth,
        call.attr("axis", -1),
    )
    return relax.op.astype(call.emit(hot), dtype)


def _trilu(call: Call) -> Result:
    offset = call.need_ints(1, "the diagonal")[0] if call.has(1) else 0
    build = relax.op.triu if call.attr("upper", 1) else relax.op.tril
    return build(call.tensor(0), offset)


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
