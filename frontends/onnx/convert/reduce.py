"""Reductions over axes, positions of extremes, running sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax

from ..builder import Call, Converter, DeclinedError, Result

Reduction = Callable[..., relax.Expr]


def _reduce(
    build: Reduction,
    before: Callable[[relax.Expr], relax.Expr] | None = None,
    after: Callable[[relax.Expr], relax.Expr] | None = None,
) -> Converter:
    """`after(build(before(x), axes, keepdims))`"""

    def convert(call: Call) -> Result:
        axes = call.axes(1)
        tensor = call.emit(before(call.tensor(0))) if before else call.tensor(0)
        if not axes and call.attr("noop_with_empty_axes", 0):
            return after(tensor) if after else tensor
        rank = call.rank(0)
        chosen = sorted({axis % rank for axis in axes}) if axes else list(range(rank))
        if any(call.shape(0)[axis] == 0 for axis in chosen):
            raise DeclinedError("a reduction over a dim of size 0")
        if not chosen:
            return after(tensor) if after else tensor
        result = build(tensor, chosen, bool(call.attr("keepdims", 1)))
        return after(call.emit(result)) if after else result

    return convert


def _square(x: relax.Expr) -> relax.Expr:
    return relax.op.multiply(x, x)


def _log_sum_exp(x: relax.Expr, axes: list[int], keepdims: bool) -> relax.Expr:
    """m + log(sum(exp(x - m))) with m = max(x), but finite: an infinity less itself is NaN."""
    op, largest = relax.op, float(np.finfo(np.float32).max)
    top = op.clip(op.max(x, axes, keepdims=True), -largest, largest)
    total = op.sum(op.exp(op.subtract(x, top)), axes, keepdims=True)
    result = op.add(top, op.log(total))
    return result if keepdims else op.squeeze(result, axes)


def _arg(build: Reduction) -> Converter:
    def convert(call: Call) -> Result:
        if call.attr("select_last_index", 0):
            raise DeclinedError("select_last_index")
        axis = call.axis(0, call.rank(0))
        return build(call.tensor(0), axis, bool(call.attr("keepdims", 1)))

    return convert


def _top_k(call: Call) -> Result:
    (count,) = [call.attr("k")] if call.attr("k") else call.need_ints(1, "k")
    axis = call.axis(-1, call.rank(0))
    extent = call.shape(0)[axis]
    if count < 1 or (isinstance(extent, int) and count > extent):
        raise DeclinedError(f"k is {count}, of {extent} elements")
    return relax.op.topk(
        call.tensor(0),
        count,
        axis,
        "both",
        bool(call.attr("largest", 1)),
        "int64",
    )


def _cum_sum(call: Call) -> Result:
    (axis,) = call.need_ints(1, "the axis")
    axis %= call.rank(0)
    tensor, reverse = call.tensor(0), call.attr("reverse", 0)
    if reverse:
        tensor = call.emit(relax.op.flip(tensor, axis))
    total = relax.op.cumsum(tensor, axis, exclusive=bool(call.attr("exclusive", 0)))
    return relax.op.flip(call.emit(total), axis) if reverse else total


CONVERTERS: dict[str, Converter] = {
    "ReduceMax": _reduce(relax.op.max),
    "ReduceMin": _reduce(relax.op.min),
    "ReduceSum": _reduce(relax.op.sum),
    "ReduceMean": _reduce(relax.op.mean),
    "ReduceProd": _reduce(relax.op.prod),
    "ReduceL1": _reduce(relax.op.sum, before=relax.op.abs),
    "ReduceL2": _reduce(relax.op.sum, before=_square, after=relax.op.sqrt),
    "ReduceSumSquare": _reduce(relax.op.sum, before=_square),
    "ReduceLogSumExp": _reduce(_log_sum_exp),
    "ReduceLogSum": _reduce(relax.op.sum, after=relax.op.log),
    "ArgMax": _arg(relax.op.argmax),
    "ArgMin": _arg(relax.op.argmin),
    "TopK": _top_k,
    "CumSum": _cum_sum,
}
