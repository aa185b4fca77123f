"""The quantized operators of com.microsoft.

Most are QuantizeLinear of ONNX's operator of DequantizeLinear, which the passes know; products of
bytes whose scales come from the run are MatMulInteger, as ONNX Runtime's quantizer writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .contrib_attention import integer_product
from .contrib_body import Body, UnwrittenError


def _matmul_n_bits(b: Body) -> None:
    """x @ w', with w in blocks of a row that share a scale and a zero point; lowest bits first."""
    bits, block = b.attr("bits", 4), b.attr("block_size", 32)
    rows, length = b.attr("N"), b.attr("K")
    if bits not in (2, 4, 8) or b.has(4):
        raise UnwrittenError
    blocks = -(-length // block)
    weight = _unpacked(b, b.input(1), bits, [rows, blocks * block])
    scales = b.op("Reshape", b.input(2), b.constant([rows, blocks]))
    given = b.constants.get(b.input(3)) if b.has(3) else None
    if b.has(3) and (given is None or given.dtype != np.uint8):
        raise UnwrittenError
    if given is None:
        zeros = b.constant(np.full((rows, blocks), 1 << (bits - 1)), "uint8")
    else:
        padded = -(-blocks * bits // 8) * 8 // bits
        zeros = _unpacked(b, b.input(3), bits, [rows, padded])
        zeros = b.op("Slice", zeros, *(b.constant([k]) for k in (0, blocks, 1)))
    real = b.op("DequantizeLinear", weight, scales, zeros, axis=1, block_size=block)
    if blocks * block != length:
        real = b.op("Slice", real, *(b.constant([k]) for k in (0, length, 1)))
    y = b.op("MatMul", b.input(0), b.op("Transpose", real, perm=[1, 0]))
    b.result(0, b.op("Add", y, b.input(5)) if b.has(5) else y)


def _unpacked(b: Body, packed: str, bits: int, dims: list[int]) -> str:
    """Each byte as the 8 / `bits` numbers in it."""
    if packed not in b.constants:
        raise UnwrittenError
    whole = b.constants[packed]
    parts = [(whole >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return b.constant(np.stack(parts, -1).reshape(dims), "uint8")


def _quantized(op_type: str, operands: int, *passed: str) -> Callable[[Body], None]:
    """quantize(f(dequantize(x, scale, zero), ..)): three inputs an operand, two of the result.

    `passed` are the attributes that `op_type` has too.
    """

    def build(b: Body) -> None:
        _around(b, op_type, operands, {k: b.attributes[k] for k in passed if k in b.attributes})

    return build


def _around(b: Body, op_type: str, operands: int, attributes: dict[str, Any]) -> None:
    real = [_dequantized(b, 3 * k) for k in range(operands)]
    _requantized(b, b.op(op_type, *real, **attributes), 3 * operands)


def _dequantized(b: Body, first: int, **attributes: int) -> str:
    inputs = [b.input(k) for k in range(first, first + 3) if b.has(k)]
    return b.op("DequantizeLinear", *inputs, **attributes)


def _requantized(b: Body, real: str, scale: int) -> None:
    zero = [b.input(scale + 1)] if b.has(scale + 1) else []
    b.result(0, b.op("QuantizeLinear", real, b.input(scale), *zero))


POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


def _pool(op_type: str) -> Callable[[Body], None]:
    """Of data channels-first or channels-last."""

    def build(b: Body) -> None:
        x = _dequantized(b, 0)
        attributes = {k: b.attributes[k] for k in POOL if k in b.attributes}
        if not b.attr("channels_last", 0):
            _requantized(b, b.op(op_type, x, **attributes), 3)
            return
        rank = len(b.shape(0))
        y = b.op("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)])
        y = b.op(op_type, y, **attributes)
        _requantized(b, b.op("Transpose", y, perm=[0, *range(2, rank), 1]), 3)

    return build


def _concat(b: Body) -> None:
    """Scale and zero point of the result, then three inputs an operand."""
    count = (len(b.node.input) - 2) // 3
    real = [_dequantized(b, 2 + 3 * k) for k in range(count)]
    joined = b.op("Concat", *real, axis=b.attr("axis"))
    _requantized(b, joined, 0)


def _softmax(b: Body) -> None:
    """Along one axis; before operator set 13, all axes from it on were one."""
    axis = b.attr("axis", -1)
    if b.attr("opset") < 13 and axis not in (-1, len(b.shape(0)) - 1):
        b.unwritten()
    _around(b, "Softmax", 1, {"axis": axis})


def _where(b: Body) -> None:
    real = b.op("Where", b.input(0), _dequantized(b, 1), _dequantized(b, 4))
    _requantized(b, real, 7)


def _gemm(b: Body) -> None:
    """quantize(alpha * a' @ b' + c), c in units of both scales; not quantized without a scale."""
    columns = 0 if b.attr("transB", 0) else 1
    sides = [_dequantized(b, 0), _dequantized(b, 3, axis=columns)]
    if b.has(6):
        unit = b.op("Mul", b.input(1), b.input(4))
        sides.append(b.op("Mul", b.op("Cast", b.input(6), to=1), unit))
    alpha, swaps = b.attr("alpha", 1.0), {k: b.attr(k, 0) for k in ("transA", "transB")}
    y = b.op("Gemm", *sides, alpha=alpha, beta=alpha, **swaps)
    if b.has(7):
        _requantized(b, y, 7)
    else:
        b.result(0, y)


def _dynamic_matmul(b: Body) -> None:
    """a @ dequantize(b) + bias, with a in bytes of its own range."""
    data, scale, zero = b.ops("DynamicQuantizeLinear", 3, b.input(0))
    operands = [data, b.input(1), zero, *([b.input(3)] if b.has(3) else [])]
    y = b.op("Cast", b.op("MatMulInteger", *operands), to=1)
    y = b.op("Mul", y, b.op("Mul", scale, b.input(2)))
    b.result(0, b.op("Add", y, b.input(4)) if b.has(4) else y)


def _integer_matmul_to_float(b: Body) -> None:
    y = integer_product(b, (0, 4, 2), (1, 5, 3))
    b.result(0, b.op("Add", y, b.input(6)) if b.has(6) else y)


def _integer_matmul(b: Body) -> None:
    """Of 16 bits, into 32."""
    b.result(0, b.op("MatMul", *(b.op("Cast", b.input(k), to=6) for k in (0, 1))))


BODIES: dict[str, Callable[[Body], None]] = {
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulInteger16": _integer_matmul,
    "MatMulIntegerToFloat": _integer_matmul_to_float,
    "MatMulNBits": _matmul_n_bits,
    "QGemm": _gemm,
    "QLinearAdd": _quantized("Add", 2),
    "QLinearAveragePool": _pool("AveragePool"),
    "QLinearConcat": _concat,
    "QLinearGlobalAveragePool": _pool("GlobalAveragePool"),
    "QLinearLeakyRelu": _quantized("LeakyRelu", 1, "alpha"),
    "QLinearMul": _quantized("Mul", 2),
    "QLinearSigmoid": _quantized("Sigmoid", 1),
    "QLinearSoftmax": _softmax,
    "QLinearWhere": _where,
}
