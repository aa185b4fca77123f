"""What a quantized tensor stands for: ``(data - zero) * scale``, read off Relax expressions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from tvm import relax
from tvm.tirx import IntImm

from ..constants import Lookup, as_constant

BYTES = ("int8", "uint8")
Term: TypeAlias = np.ndarray | relax.Expr
"""A constant, or a tensor that is known at run time only."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """Bytes with their zero point (int32) and scale; `scale` is None where integers are meant.

    Scale and zero point are one number, or vectors along `axis`; arrays where they are constants.
    """

    data: Term
    dtype: str
    rank: int
    zero: Term
    scale: np.ndarray | None = None
    axis: int = 0

    def along(self, axis: int) -> bool:
        """Whether the parameters differ along `axis` at most."""
        sizes = [size(term) for term in (self.zero, self.scale) if term is not None]
        return self.axis == axis or all(n == 1 for n in sizes)

    def signed(self, builder: relax.BlockBuilder) -> Quantized:
        """The same numbers with data of int8: data and zero point moved by 128."""
        if self.dtype == "int8":
            return self
        if isinstance(self.data, np.ndarray):
            data: Term = (self.data.astype(np.int16) - 128).astype(np.int8)
        else:
            data = moved(builder, self.data, "int8")
        if isinstance(self.zero, np.ndarray):
            zero: Term = np.asarray(self.zero - np.int32(128))
        else:
            zero = builder.emit(relax.op.subtract(self.zero, relax.const(128, "int32")))
        return replace(self, data=data, dtype="int8", zero=zero)


def size(term: Term) -> int | None:
    """How many elements there are, if that is known."""
    if isinstance(term, np.ndarray):
        return term.size
    dims = [int(dim) for dim in term.ty.shape if isinstance(dim, IntImm)]
    return math.prod(dims) if len(dims) == term.ty.ndim else None


def moved(builder: relax.BlockBuilder, data: relax.Expr, dtype: str) -> relax.Var:
    """Bytes of the other sign, moved by 128: the highest bit is turned."""
    bits = data if str(data.ty.dtype) == "uint8" else builder.emit(relax.op.astype(data, "uint8"))
    turned = builder.emit(relax.op.bitwise_xor(bits, relax.const(128, "uint8")))
    return turned if dtype == "uint8" else builder.emit(relax.op.astype(turned, dtype))


def bound(expr: relax.Expr, lookup: Lookup) -> relax.Expr:
    """What a variable is bound to, `expr` itself if nothing."""
    while isinstance(expr, relax.Var) and lookup(expr) is not None:
        expr = lookup(expr)
    return expr


def called(expr: relax.Expr, name: str) -> bool:
    return isinstance(expr, relax.Call) and getattr(expr.op, "name", "") == f"relax.{name}"


def value_of(expr: relax.Expr, lookup: Lookup) -> np.ndarray | None:
    """The elements of a constant, perhaps cast or moved; weights are read as they are stored."""
    constant = as_constant(expr, lookup)
    if constant is not None:
        return constant.value.numpy()
    call = bound(expr, lookup)
    if not any(called(call, name) for name in ("astype", "permute_dims", "reshape")):
        return None
    inner = value_of(call.args[0], lookup)
    if inner is None:
        return None
    if called(call, "astype"):
        return inner.astype(str(call.ty.dtype))
    if called(call, "reshape"):
        return inner.reshape([int(dim) for dim in call.ty.shape])
    axes = call.attrs.axes
    return inner.transpose(None if axes is None else [int(axis) for axis in axes])


def quantized(expr: relax.Expr, lookup: Lookup) -> Quantized | None:
    """`expr` as bytes with a zero point, if it is ``dequantize`` or a difference of integers."""
    call = bound(expr, lookup)
    if called(call, "dequantize"):
        data, scale, zero = call.args
        factor, shift = value_of(scale, lookup), value_of(zero, lookup)
        if factor is None or shift is None or not _bytes(data):
            return None
        axis = int(call.attrs.axis) % max(1, call.ty.ndim)
        return _read(data, shift.astype(np.int32), lookup, factor.astype(np.float32), axis)
    if called(call, "subtract") and str(call.ty.dtype) == "int32":
        inner, zero = bound(call.args[0], lookup), call.args[1]
        if called(inner, "astype") and _bytes(inner.args[0]):
            return _integers(inner.args[0], zero, lookup)
    if called(call, "astype") and str(call.ty.dtype) == "int32" and _bytes(call.args[0]):
        return _read(call.args[0], np.zeros((), np.int32), lookup)
    return None


def _integers(data: relax.Expr, zero: relax.Expr, lookup: Lookup) -> Quantized | None:
    """``data - zero``; a zero point of several dims is a vector along its one long axis."""
    known = value_of(zero, lookup)
    shape = [getattr(dim, "value", 0) for dim in zero.ty.shape]
    long = [axis - len(shape) + data.ty.ndim for axis, n in enumerate(shape) if n != 1]
    if len(long) > 1 or len(shape) > data.ty.ndim:
        return None
    term = zero if known is None else known.reshape(-1 if long else ())
    return _read(data, term, lookup, None, long[0] if long else 0)


def _read(
    data: relax.Expr, zero: Term, lookup: Lookup, scale: np.ndarray | None = None, axis: int = 0
) -> Quantized:
    known = value_of(data, lookup)
    stored = data if known is None else known
    return Quantized(stored, str(data.ty.dtype), data.ty.ndim, zero, scale, axis)


def _bytes(expr: relax.Expr) -> bool:
    return str(expr.ty.dtype) in BYTES


def limited(builder: relax.BlockBuilder, real: relax.Expr, low: float, high: float) -> relax.Expr:
    """`real` between two bounds, in operators that take any layout, which `clip` does not."""
    for bound_by, end in ((relax.op.maximum, low), (relax.op.minimum, high)):
        if np.isfinite(end):
            real = builder.emit(bound_by(real, relax.const(end, "float32")))
    return real


def stored(
    builder: relax.BlockBuilder,
    real: relax.Expr,
    zero: int,
    dtype: str,
    low: float = -np.inf,
    high: float = np.inf,
) -> relax.Expr:
    """`real`, in units of the scale, rounded and saturated; bounds are those of the result.

    Limited first, it is small enough to be rounded by one sum.
    """
    limits = np.iinfo(dtype)
    ends = (float(np.clip(end, limits.min, limits.max)) - zero for end in (low, high))
    whole = builder.emit(relax.op.round(limited(builder, real, *ends)))
    if zero:
        whole = builder.emit(relax.op.add(whole, relax.const(float(zero), "float32")))
    return relax.op.astype(whole, dtype)
