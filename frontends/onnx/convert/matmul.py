"""Matrix products."""

from __future__ import annotations

import numpy as np
from tvm import relax

from .. import stock
from ..builder import Call, Converter, DeclinedError, Result


def _matmul(call: Call) -> Result:
    return relax.op.matmul(call.tensor(0), call.tensor(1))


def _gemm(call: Call) -> Result:
    """alpha * A' @ B' + beta * C; a transposed weight is `permute_dims`, for the passes to fold."""
    left, right, dtype = call.tensor(0), call.tensor(1), call.dtype(0)
    if call.attr("transA", 0):
        left = call.emit(relax.op.permute_dims(left))
    if call.attr("transB", 0):
        right = call.emit(relax.op.permute_dims(right))
    result = _scaled(call, relax.op.matmul(left, right), call.attr("alpha", 1.0), dtype)
    if not call.has(2):
        return result
    bias = _scaled(call, call.tensor(2), call.attr("beta", 1.0), dtype)
    return relax.op.add(call.emit(result), bias)


def _scaled(call: Call, tensor: relax.Expr, factor: float, dtype: str) -> relax.Expr:
    if factor == 1.0:
        return tensor
    number = np.array(factor, np.float64 if dtype == "float64" else np.float32)
    return call.emit(relax.op.multiply(call.emit(tensor), relax.const(number.item(), dtype)))


def _einsum(call: Call) -> Result:
    """TVM's, which does not look whether the operands fit the equation."""
    terms = call.attr("equation").replace(" ", "").partition("->")[0].split(",")
    if len(terms) != len(call):
        raise DeclinedError(f"{len(call)} operands of '{call.attr('equation')}'")
    for index, term in enumerate(terms):
        if "..." not in term and len(term) != call.rank(index):
            raise DeclinedError(f"operand {index}, '{term}', has {call.rank(index)} dims")
    return stock.convert(call)


CONVERTERS: dict[str, Converter] = {"MatMul": _matmul, "Gemm": _gemm, "Einsum": _einsum}
