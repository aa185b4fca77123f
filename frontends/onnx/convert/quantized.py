"""Quantized tensors and products of them, as ONNX defines them.

    QuantizeLinear    y = saturate(round(x / scale) + zero)      halves to even
    DequantizeLinear  y = (x - zero) * scale                     the difference exact

The integer operators become products of differences, the QLinear ones a product of real numbers
between dequantize and quantize; `passes/quantized` makes 8-bit kernels of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from tvm import relax

from ...storage import NARROW_FLOATS, stored
from ..builder import Call, Converter, DeclinedError, Dims, Result
from .conv import convolution
from .narrow import NARROW, convert

INTEGERS = frozenset({"int8", "uint8", "int16", "uint16"})
"""What TVM's own quantize and dequantize take; other types are narrower, or float8."""


@dataclass(frozen=True)
class _Parameter:
    """Where a scale and a zero point are found, and how they spread over the data.

    They are one number, a vector along `axis`, or `block` elements of `axis` share each of them.
    """

    call: Call
    axis: int
    block: int

    @staticmethod
    def of(call: Call, default_axis: int = 1) -> _Parameter:
        rank, block = call.rank(0), int(call.attr("block_size", 0))
        one_number = not block and call.shape(1) in ((), (1,))
        axis = 0 if one_number else call.axis(default_axis, rank)
        return _Parameter(call, axis, block)

    def blocks(self, dims: Dims) -> Dims:
        """``[.., n, ..]`` as ``[.., n / block, block, ..]``."""
        (n,) = self.call.fixed(dims[self.axis : self.axis + 1], "the axis of the blocks")
        if n % self.block:
            raise DeclinedError(f"{n} elements in blocks of {self.block}")
        return (*dims[: self.axis], n // self.block, self.block, *dims[self.axis + 1 :])

    def split(self, tensor: relax.Expr) -> relax.Expr:
        """The data with an axis for the elements of a block."""
        return self.call.emit(self.call.reshape(tensor, self.blocks(self.call.shape(0))))

    def spread(self, tensor: relax.Expr, index: int) -> relax.Expr:
        """Parameter `index` against the data, which is split where there are blocks."""
        dims = self.call.shape(index)
        if not self.block:
            one = dims in ((), (1,))
            wide = () if one else _along(self.call.rank(0), self.axis, dims)
            return self.call.emit(self.call.reshape(tensor, wide))
        wide = (*dims[: self.axis + 1], 1, *dims[self.axis + 1 :])
        return self.call.emit(self.call.reshape(tensor, wide))


def _quantize(call: Call) -> Result:
    dtype = call.out_dtype()
    if dtype not in INTEGERS | NARROW:
        raise DeclinedError(f"quantizing to {dtype}")
    where, x, scale = _Parameter.of(call), _real(call, 0), _real(call, 1)
    if not where.block and dtype in INTEGERS:
        zero = call.tensor(2) if call.has(2) else relax.const(0, dtype)
        return relax.op.quantize(x, scale, zero, where.axis, dtype)
    data = where.split(x) if where.block else x
    quotient = call.emit(relax.op.divide(data, where.spread(scale, 1)))
    if dtype in NARROW_FLOATS:  # there is no zero point but 0
        saturate = bool(call.attr("saturate", 1))
        exact = convert(call, quotient, "float32", dtype, saturate)
    else:
        exact = _rounded(call, where, quotient, dtype)
    return call.reshape(call.emit(exact), call.out_shape())


def _rounded(call: Call, where: _Parameter, quotient: relax.Expr, dtype: str) -> relax.Expr:
    rounded = call.emit(relax.op.round(quotient))
    if call.has(2):
        shift = call.emit(relax.op.astype(where.spread(call.tensor(2), 2), "float32"))
        rounded = call.emit(relax.op.add(rounded, shift))
    limits = ml_dtypes.iinfo(dtype)
    clipped = call.emit(relax.op.clip(rounded, float(limits.min), float(limits.max)))
    return relax.op.astype(clipped, stored(dtype))


def _dequantize(call: Call) -> Result:
    source = call.dtype(0)
    if source not in INTEGERS | NARROW | {"int32"}:
        raise DeclinedError(f"dequantizing from {source}")
    where, x, scale = _Parameter.of(call), call.tensor(0), _real(call, 1)
    if source in NARROW_FLOATS:  # there is no zero point but 0
        x = call.emit(convert(call, x, source, "float32"))
        data = where.split(x) if where.block else x
        real = call.emit(relax.op.multiply(data, where.spread(scale, 1)))
        real = call.reshape(real, call.out_shape())
        return real if call.out_dtype() == "float32" else _cast(call, real, call.out_dtype())
    zero = call.tensor(2) if call.has(2) else relax.const(0, stored(source))
    if where.block:
        zero = where.spread(zero, 2) if call.has(2) else zero
        exact = call.emit(relax.op.astype(_difference(call, where.split(x), zero), "float32"))
        real = call.emit(relax.op.multiply(exact, where.spread(scale, 1)))
        real = call.reshape(real, call.out_shape())
    else:
        real = relax.op.dequantize(x, scale, zero, where.axis, "float32")
    return real if call.out_dtype() == "float32" else _cast(call, real, call.out_dtype())


def _real(call: Call, index: int) -> relax.Expr:
    """Input `index` in float32: half types only store."""
    tensor = call.tensor(index)
    return tensor if call.dtype(index) == "float32" else _cast(call, tensor, "float32")


def _cast(call: Call, tensor: relax.Expr, dtype: str) -> relax.Expr:
    return call.emit(relax.op.astype(call.emit(tensor), dtype))


def _difference(call: Call, x: relax.Expr, zero: relax.Expr) -> relax.Expr:
    """``x - zero`` in int32."""
    return call.emit(relax.op.subtract(_cast(call, x, "int32"), _cast(call, zero, "int32")))


def _dynamic_quantize(call: Call) -> Result:
    """The scale and zero point that put all of x, and 0, into a byte."""
    e, x, zero = call.emit, call.tensor(0), relax.const(0.0, "float32")
    low = e(relax.op.minimum(e(relax.op.min(x)), zero))
    high = e(relax.op.maximum(e(relax.op.max(x)), zero))
    span = e(relax.op.divide(e(relax.op.subtract(high, low)), relax.const(255.0, "float32")))
    nothing = e(relax.op.equal(high, low))
    scale = e(relax.op.where(nothing, relax.const(1.0, "float32"), span))
    first = e(relax.op.round(e(relax.op.divide(e(relax.op.negative(low)), scale))))
    point = _cast(call, relax.op.clip(first, 0.0, 255.0), "uint8")
    return [e(relax.op.quantize(x, scale, point, 0, "uint8")), scale, point]


def _matmul_integer(call: Call) -> Result:
    left, right = (_integers(call, i, i + 2, axis) for i, axis in ((0, -2), (1, -1)))
    return relax.op.matmul(left, right)


def _conv_integer(call: Call) -> Result:
    left, right = (_integers(call, i, i + 2, 0) for i in (0, 1))
    return convolution(call, left, right, call.shape(1))


def _integers(call: Call, index: int, zero: int, axis: int) -> relax.Expr:
    """Operand `index` in int32, less its zero point: one number, or a vector along `axis`."""
    if not call.has(zero):
        return _cast(call, call.tensor(index), "int32")
    point = call.tensor(zero)
    if call.rank(zero) == 1 and call.shape(zero) != (1,):
        point = call.emit(call.reshape(point, _along(call.rank(index), axis, call.shape(zero))))
    elif call.rank(zero) == 1:
        point = call.emit(call.reshape(point, ()))
    return _difference(call, call.tensor(index), point)


def _along(rank: int, axis: int, dims: Dims) -> Dims:
    return tuple(dims[0] if i == axis % rank else 1 for i in range(rank))


def _qlinear_matmul(call: Call) -> Result:
    left = _operand(call, 0, call.rank(0) - 2)
    right = _operand(call, 3, call.rank(3) - 1)
    return _requantized(call, relax.op.matmul(left, right), 6)


def _qlinear_conv(call: Call) -> Result:
    left, right = _operand(call, 0, 0), _operand(call, 3, 0)
    real = call.emit(convolution(call, left, right, call.shape(3)))
    if call.has(8):
        dims = call.shape(8)
        scale = _product(call, 1, 4)
        zero = relax.const(0, "int32")
        bias = call.emit(relax.op.dequantize(call.tensor(8), scale, zero, 0, "float32"))
        bias = call.emit(call.reshape(bias, _along(call.rank(0), 1, dims)))
        real = call.emit(relax.op.add(real, bias))
    return _requantized(call, real, 6)


def _product(call: Call, left: int, right: int) -> relax.Expr:
    """The product of two scales, a constant if they are."""
    known = call.known(left), call.known(right)
    if known[0] is None or known[1] is None:
        return call.emit(relax.op.multiply(_real(call, left), _real(call, right)))
    scales = [np.asarray(each, np.float32) for each in known]
    return call.constant(np.asarray(scales[0] * scales[1]), "scale")


def _operand(call: Call, index: int, axis: int) -> relax.Expr:
    """Real numbers from the data, scale and zero point at `index`."""
    if call.rank(index + 1) == 1 and axis < 0:
        raise DeclinedError("a scale of one dim for data of one")
    scale, zero = _numbers(call, index + 1)
    return call.emit(relax.op.dequantize(call.tensor(index), scale, zero, axis, "float32"))


def _requantized(call: Call, real: relax.Expr, index: int) -> relax.Expr:
    scale, zero = _numbers(call, index)
    return relax.op.quantize(call.emit(real), scale, zero, 0, call.out_dtype())


def _numbers(call: Call, index: int) -> tuple[relax.Expr, relax.Expr]:
    """The scale and zero point at `index`: numbers or vectors, all that TVM's operators take."""
    for name, k in (("scale", index), ("zero point", index + 1)):
        if call.rank(k) > 1:
            raise DeclinedError(f"a {name} of {call.rank(k)} dims")
    return _real(call, index), call.tensor(index + 1)


CONVERTERS: dict[str, Converter] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "QLinearMatMul": _qlinear_matmul,
    "QLinearConv": _qlinear_conv,
}
