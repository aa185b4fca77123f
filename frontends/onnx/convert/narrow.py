"""Casts from and to ONNX's 8-, 4- and 2-bit types, which lie in memory as bytes (storage.py).

Reading a small float is a look-up among its 256 bytes. Writing one rounds the bits of a float32 to
the nearest, halves to even:

    normal      (bits + 2^(22-m) - 1 + lowest kept bit) >> (23 - m),  less the difference of biases
    subnormal   |x| + c - c in bits, with c so large that its last bit is the format's smallest step

where m is the number of the format's mantissa bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from ...storage import NARROW_FLOATS, NARROW_INTEGERS, STORED, stored, values
from ..builder import Call, DeclinedError
from ..symbolic_node import TRACKED

NARROW = NARROW_FLOATS | NARROW_INTEGERS
KNOWN = frozenset([*TRACKED, "bfloat16", *STORED, ""])
"""Types that a module can hold; a value of no type is no tensor, or nothing is known of it."""


@dataclass(frozen=True)
class _Format:
    """Codes without the sign. `over` is what exceeds `largest` without saturation, `nan` NaN.

    Formats without a negative zero (`fnuz`) have their one NaN in its place.
    """

    bits: int
    mantissa: int
    bias: int
    largest: int
    over: int
    nan: int
    fnuz: bool = False


FORMATS = {
    "float8_e4m3fn": _Format(8, 3, 7, 0x7E, 0x7F, 0x7F),
    "float8_e4m3fnuz": _Format(8, 3, 8, 0x7F, 0x80, 0x80, True),
    "float8_e5m2": _Format(8, 2, 15, 0x7B, 0x7C, 0x7E),
    "float8_e5m2fnuz": _Format(8, 2, 16, 0x7F, 0x80, 0x80, True),
    "float4_e2m1fn": _Format(4, 1, 1, 0x7, 0x7, 0x8),
}
"""ONNX, "Float stored in 8 bits"; OCP Microscaling Formats 1.0. A float4 has no NaN: it is -0."""


def convert(
    call: Call,
    tensor: relax.Expr,
    source: str,
    target: str,
    saturate: bool = True,
    rounding: str = "up",
) -> relax.Expr:
    """`tensor`, of ONNX type `source`, as `target`; one of them is narrow, each as it is stored."""
    tensor = call.emit(tensor)
    if source in NARROW_FLOATS:
        middle = target if target in ("float16", "bfloat16", "float64") else "float32"
        table = call.constant(values(source, middle), f"{source}_as_{middle}")
        index = call.emit(relax.op.astype(tensor, "int32"))
        tensor, source = call.emit(relax.op.take(table, index, 0, mode="fast")), middle
    if target in NARROW_FLOATS:
        if source != "float32":
            tensor = call.emit(relax.op.astype(tensor, "float32"))
        if target == "float8_e8m0fnu":
            return call.te(lambda x: _exponents(x, rounding), tensor, name="to_e8m0")
        return call.te(
            lambda x: _encoded(x, FORMATS[target], saturate), tensor, name=f"to_{target}"
        )
    if target in NARROW_INTEGERS:
        return _wrapped(call, tensor, target)
    return tensor if stored(source) == target else relax.op.astype(tensor, target)


def _wrapped(call: Call, tensor: relax.Expr, target: str) -> relax.Expr:
    """The lowest bits of an integer, the first of them its sign."""
    bits, signed = int(target[-1]), not target.startswith("u")
    whole = call.emit(relax.op.astype(tensor, "int32"))

    def lowest(x: te.Tensor) -> te.Tensor:
        def element(*at: Expr) -> Expr:
            if signed:
                return ((x(*at) << (32 - bits)) >> (32 - bits)).astype("int8")
            return tirx.bitwise_and(x(*at), (1 << bits) - 1).astype("uint8")

        return te.compute(x.shape, element, name="wrapped")

    return call.te(lowest, whole, name=f"to_{target}")


def _encoded(x: te.Tensor, form: _Format, saturate: bool) -> te.Tensor:
    """float32 as the codes of a small float."""
    shift = 23 - form.mantissa
    smallest_normal = (127 + 1 - form.bias) << 23
    step = np.float32(2.0 ** (24 - form.bias - form.mantissa))
    over = form.largest if saturate else form.over

    def element(*at: Expr) -> Expr:
        bits = tirx.reinterpret("uint32", x(*at))
        size = tirx.bitwise_and(bits, _u(0x7FFFFFFF))
        kept = tirx.bitwise_and(size >> _u(shift), _u(1))
        rounded = (size + kept + _u((1 << (shift - 1)) - 1)) >> _u(shift)
        normal = rounded - _u((127 - form.bias) << form.mantissa)
        grid = tirx.const(step, "float32")
        moved = tirx.reinterpret("uint32", tirx.reinterpret("float32", size) + grid)
        small = moved - _u(int(step.view(np.uint32)))
        code = tirx.Select(size < _u(smallest_normal), small, normal)
        code = tirx.Select(code > _u(form.largest), _u(over), code)
        sign = (bits >> _u(31)) << _u(form.bits - 1)
        if form.fnuz:
            sign = tirx.Select(tirx.any(code.equal(_u(0)), code.equal(_u(form.nan))), _u(0), sign)
        nan = tirx.Select(size > _u(0x7F800000), _u(form.nan), tirx.bitwise_or(code, sign))
        return nan.astype("uint8")

    return te.compute(x.shape, element, name="encoded")


def _exponents(x: te.Tensor, rounding: str) -> te.Tensor:
    """float32 as a power of two: its exponent, and one more where that is nearer."""

    def element(*at: Expr) -> Expr:
        size = tirx.bitwise_and(tirx.reinterpret("uint32", x(*at)), _u(0x7FFFFFFF))
        exponent, rest = size >> _u(23), tirx.bitwise_and(size, _u(0x7FFFFF))
        half, none = _u(0x400000), exponent.equal(_u(0))
        if rounding == "up":  # 2^-127 itself is a subnormal float32, of half the mantissa
            more = tirx.Select(none, rest > half, rest > _u(0))
        elif rounding == "nearest":
            more = tirx.Select(none, rest >= _u(0x600000), rest >= half)
        else:
            more = tirx.const(False, "bool")
        code = tirx.min(exponent + more.astype("uint32"), _u(0xFE))
        return tirx.Select(size > _u(0x7F800000), _u(0xFF), code).astype("uint8")

    return te.compute(x.shape, element, name="exponents")


def _u(value: int) -> Expr:
    return tirx.const(value, "uint32")


def check_operand(call: Call) -> None:
    """Declines types without code, and to compute with the bytes of a narrow type."""
    for name in [*call.node.input, *call.node.output]:
        dtype = call.builder.value(name).dtype if name else ""
        if dtype not in KNOWN:
            raise DeclinedError(f"'{name}' is of the type {dtype}, which there is no code for")
    for index in range(len(call)):
        if call.has(index) and call.dtype(index) in NARROW and call.op not in MOVING:
            raise DeclinedError(f"{call.dtype(index)} operands")


MOVING = frozenset({
    "BitCast", "Cast", "CastLike", "Compress", "Concat", "DepthToSpace", "DequantizeLinear",
    "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "If", "Loop",
    "QuantizeLinear", "Reshape", "Scan", "ScatterElements", "ScatterND", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
})  # fmt: skip
"""Operators that take bytes as they are, or know what they mean."""
