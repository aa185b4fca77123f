"""Reductions over axes, positions of extremes, running sums."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from ...storage import numpy_dtype
from ..builder import Call, Converter, DeclinedError, Result
from . import runtime

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
            return _of_nothing(call)
        if not chosen:
            return after(tensor) if after else tensor
        if call.dtype(0) == "bool":
            result = call.emit(build(relax.op.astype(tensor, "uint8"), chosen, _keeps(call)))
            return relax.op.astype(result, "bool")
        result = build(tensor, chosen, _keeps(call))
        return after(call.emit(result)) if after else result

    return convert


def _keeps(call: Call) -> bool:
    return bool(call.attr("keepdims", 1))


def _of_nothing(call: Call) -> relax.Expr:
    """What a reduction of an empty set is; integers have their own least and largest."""
    dtype, value = call.dtype(0), NOTHING[call.op]
    if dtype == "bool":
        value = value > 0
    elif "float" not in dtype and abs(value) == math.inf:
        value = np.iinfo(dtype).max if value > 0 else np.iinfo(dtype).min
    number = relax.const(np.array(value, numpy_dtype(dtype)), dtype)
    return relax.op.broadcast_to(number, call.shape_expr(call.out_shape()))


NOTHING = {
    "ReduceL1": 0.0, "ReduceL2": 0.0, "ReduceLogSum": -math.inf, "ReduceLogSumExp": -math.inf,
    "ReduceMax": -math.inf, "ReduceMean": math.nan, "ReduceMin": math.inf, "ReduceProd": 1.0,
    "ReduceSum": 0.0, "ReduceSumSquare": 0.0,
}  # fmt: skip


def _square(x: relax.Expr) -> relax.Expr:
    return relax.op.multiply(x, x)


def _log_sum_exp(x: relax.Expr, axes: list[int], keepdims: bool) -> relax.Expr:
    """m + log(sum(exp(x - m))) with m = max(x), but finite: an infinity less itself is NaN."""
    kind = "float16" if str(x.ty.dtype) == "float16" else "float32"
    op, largest = relax.op, float(np.finfo(kind).max)
    top = op.clip(op.max(x, axes, keepdims=True), -largest, largest)
    total = op.sum(op.exp(op.subtract(x, top)), axes, keepdims=True)
    result = op.add(top, op.log(total))
    return result if keepdims else op.squeeze(result, axes)


def _arg(build: Reduction) -> Converter:
    def convert(call: Call) -> Result:
        axis = call.axis(0, call.rank(0))
        if not call.attr("select_last_index", 0):
            return build(call.tensor(0), axis, _keeps(call))
        # the first of the reversed axis
        (size,) = call.fixed(call.shape(0)[axis : axis + 1], "the axis")
        reversed_ = call.emit(relax.op.flip(call.tensor(0), axis))
        first = call.emit(build(reversed_, axis, _keeps(call)))
        return relax.op.subtract(relax.const(size - 1, "int64"), first)

    return convert


def _top_k(call: Call) -> Result:
    keys = _sort_keys(call, call.tensor(0), call.dtype(0))
    if not call.attr("k") and call.ints(1) is None:
        return runtime.top_k(call, keys)
    (count,) = [call.attr("k")] if call.attr("k") else call.need_ints(1, "k")
    axis = call.axis(-1, call.rank(0))
    extent = call.shape(0)[axis]
    if count < 1 or (isinstance(extent, int) and count > extent):
        raise DeclinedError(f"k is {count}, of {extent} elements")
    largest = bool(call.attr("largest", 1))
    indices = call.emit(relax.op.topk(keys, count, axis, "indices", largest, "int64"))
    return [relax.op.gather_elements(call.tensor(0), indices, axis), indices]


def _sort_keys(call: Call, x: relax.Expr, dtype: str) -> relax.Expr:
    """Integers in the order of the elements, NaN above all: TVM's sort only compares, which with
    NaN is no order, and knows no uint64."""
    if "float" not in dtype and dtype != "uint64":
        return x
    wide = dtype if dtype in ("float64", "uint64") else "float32"
    if wide != dtype:
        x = call.emit(relax.op.astype(x, wide))
    key, top = ("int32", 2**31 - 1) if wide == "float32" else ("int64", 2**63 - 1)

    def ordered(x: te.Tensor) -> te.Tensor:
        def element(*at: Expr) -> Expr:
            if wide == "uint64":
                return tirx.reinterpret(key, x(*at)) ^ tirx.const(-top - 1, key)
            bits = tirx.reinterpret(key, x(*at) + tirx.const(0, wide))  # -0 is 0
            flipped = tirx.Select(bits < 0, bits ^ tirx.const(top, key), bits)
            return tirx.Select(tirx.isnan(x(*at)), tirx.const(top, key), flipped)

        return te.compute(x.shape, element, name="sort_keys")

    return call.emit(call.te(ordered, x, name="sort_keys"))


def _cumulative(build: Reduction) -> Converter:
    def convert(call: Call) -> Result:
        known = call.ints(1)
        if not call.rank(0):
            raise DeclinedError("a tensor without dims")
        if 0 in call.shape(0):
            return call.tensor(0)
        if known is None:
            return runtime.along(call, lambda axis: along(call, axis), 1)
        return along(call, known[0] % call.rank(0))

    def along(call: Call, axis: int) -> relax.Expr:
        tensor, reverse = call.tensor(0), call.attr("reverse", 0)
        if reverse:
            tensor = call.emit(relax.op.flip(tensor, axis))
        total = build(tensor, axis, exclusive=bool(call.attr("exclusive", 0)))
        return relax.op.flip(call.emit(total), axis) if reverse else total

    return convert


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
    "CumSum": _cumulative(relax.op.cumsum),
    "CumProd": _cumulative(relax.op.cumprod),
}
