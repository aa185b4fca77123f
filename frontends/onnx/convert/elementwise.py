"""Arithmetic, comparisons, logic, casts and activations: one element in, one element out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
from tvm import relax, te, tirx, topi
from tvm.ir import Expr

from ...storage import NARROW_INTEGERS, numpy_dtype, stored
from ..builder import Call, Converter, DeclinedError, Result
from . import runtime
from .narrow import NARROW, convert

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = tuple(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))


def _unary(build: Callable[[relax.Expr], relax.Expr]) -> Converter:
    def convert(call: Call) -> Result:
        return build(call.tensor(0))

    return convert


def operand(call: Call, index: int, dtype: str | None = None) -> relax.Expr:
    """Input `index` of a broadcasting operator; one known element becomes a 0-d constant.

    Shape inference of the other operand then keeps its dims, and the number ends up in the kernel
    instead of in a buffer. `dtype` converts it.
    """
    rank = max((call.rank(i) for i in range(len(call)) if i != index and call.has(i)), default=-1)
    value = call.scalar(index)
    target = dtype or call.dtype(index)
    if value is not None and call.rank(index) <= rank:
        return relax.const(np.array(value, numpy_dtype(target)), target)
    tensor = call.tensor(index)
    return tensor if target == call.dtype(index) else relax.op.astype(tensor, target)


def _binary(build: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Converter:
    def convert(call: Call) -> Result:
        if call.version < 7 and call.attr("broadcast") and call.attr("axis") is not None:
            return build(call.tensor(0), _from_axis(call))
        return build(*runtime.together(call, [operand(call, 0), operand(call, 1)]))

    return convert


def _from_axis(call: Call) -> relax.Expr:
    """The second operand along the axes from `axis` on, as before operator set 7."""
    after = call.rank(0) - call.axis(0, call.rank(0)) - call.rank(1)
    return call.emit(call.reshape(call.tensor(1), (*call.shape(1), *[1] * after)))


def _variadic(build: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Converter:
    def convert(call: Call) -> Result:
        return reduce(lambda a, b: call.emit(build(a, b)), call.tensors())

    return convert


def _mean(call: Call) -> Result:
    total = reduce(lambda a, b: call.emit(relax.op.add(a, b)), call.tensors())
    return relax.op.divide(total, relax.const(float(len(call)), call.dtype(0)))


def _mod(call: Call) -> Result:
    """fmod=1 takes the sign of the dividend, as C does; else that of the divisor."""
    truncated = call.attr("fmod", 0)
    if call.dtype(0) not in FLOATS:
        build = relax.op.mod if truncated else relax.op.floor_mod
        return build(operand(call, 0), operand(call, 1))
    wide = "float64" if call.dtype(0) == "float64" else "float32"
    a, b = (call.emit(relax.op.astype(call.tensor(k), wide)) for k in (0, 1))
    result = call.te(lambda x, y: _remainder(x, y, bool(truncated)), a, b, name="mod")
    return relax.op.astype(call.emit(result), call.dtype(0))


def _remainder(a: te.Tensor, b: te.Tensor, truncated: bool) -> te.Tensor:
    """fmod(a, b), which is exact, moved by b where the signs differ; a zero has the sign of b."""

    def element(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        zero = tirx.const(0, x.dtype)

        def value(*at: Expr) -> Expr:
            rest, by = _fmod(x(*at), y(*at)), y(*at)
            if truncated:
                return rest
            signed = tirx.Select(rest.equal(zero), tirx.copysign(zero, by), rest)
            return tirx.Select(signed * by < zero, rest + by, signed)

        return te.compute(x.shape, value, name="remainder")

    shape = topi.add(a, b).shape
    return element(topi.broadcast_to(a, shape), topi.broadcast_to(b, shape))


def _pow(call: Call) -> Result:
    """Small constant exponents become products, which are exact and vectorize."""
    base, exponent = call.tensor(0), call.scalar(1)
    if call.rank(1) <= call.rank(0):
        if exponent == 2:
            return relax.op.multiply(base, base)
        if exponent == 3:
            return relax.op.multiply(call.emit(relax.op.multiply(base, base)), base)
        if exponent == 0.5 and call.dtype(0) in FLOATS:
            return relax.op.sqrt(base)
    if call.dtype(0) in FLOATS:
        return relax.op.power(operand(call, 0), operand(call, 1, call.dtype(0)))
    wide = relax.op.power(operand(call, 0, "float64"), operand(call, 1, "float64"))
    return relax.op.astype(call.emit(wide), call.dtype(0))


def _fmod(x: Expr, y: Expr) -> Expr:
    """C's; TVM has no lowering of its own operator."""
    dtype = str(x.ty.dtype)
    return tirx.call_pure_extern(dtype, "fmod" if dtype == "float64" else "fmodf", x, y)


def _bit_shift(call: Call) -> Result:
    """A shift by the width or more, or by less than 0, leaves copies of the sign bit, or zeros.

    The machine's shift instructions would not.
    """
    dtype, (x, by) = call.dtype(0), (call.tensor(0), call.tensor(1))
    left, signed = call.attr("direction") == "LEFT", dtype.startswith("int")
    last, zero = (
        relax.const(np.array(value, dtype), dtype)
        for value in (np.dtype(dtype).itemsize * 8 - 1, 0)
    )
    inside = call.emit(relax.op.less_equal(by, last))
    if signed:
        positive = call.emit(relax.op.greater_equal(by, zero))
        inside = call.emit(relax.op.logical_and(inside, positive))
    by = call.emit(relax.op.where(inside, by, last))
    if signed and not left:
        return relax.op.right_shift(x, by)
    shifted = call.emit((relax.op.left_shift if left else relax.op.right_shift)(x, by))
    return relax.op.where(inside, shifted, zero)


def _bit_cast(call: Call) -> Result:
    """The same bits under another name."""
    source, target = call.dtype(0), call.out_dtype()
    if {source, target} & NARROW_INTEGERS or "float4_e2m1fn" in (source, target):
        raise DeclinedError(f"bits of {source} as {target}, types of less than a byte")
    x, before, after = call.tensor(0), stored(source), stored(target)
    if "bool" in (before, after):  # TVM's is a byte that is 0 or 1
        return relax.op.astype(x, after)
    if before == after:
        return x

    def reinterpreted(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *at: tirx.reinterpret(after, x(*at)), name="bit_cast")

    return call.te(reinterpreted, x, name="bit_cast")


def _sinh(call: Call) -> Result:
    """(exp(x) - exp(-x)) / 2; x + x^3/6 + x^5/120 + x^7/5040 near 0, where the terms cancel."""

    def value(x: Expr) -> Expr:
        near = x + x * x * x / 6 * (1 + x * x / 20 * (1 + x * x / 42))
        far = _half_exp(x) - _half_exp(-x)
        return tirx.Select(tirx.all(x > -0.5, x < 0.5), near, far)

    return _computed(call, value, "sinh")


def _cosh(call: Call) -> Result:
    """(exp(x) + exp(-x)) / 2"""
    return _computed(call, lambda x: _half_exp(x) + _half_exp(-x), "cosh")


def _half_exp(x: Expr) -> Expr:
    """exp(x) / 2, also where exp(x) itself would be too large."""
    return tirx.exp(x - tirx.const(math.log(2), x.ty.dtype))


def _computed(call: Call, value: Callable[[Expr], Expr], name: str) -> relax.Expr:
    """value(x) of every element, in float32 at least."""
    dtype = call.dtype(0)
    wide = "float64" if dtype == "float64" else "float32"
    x = call.emit(relax.op.astype(call.tensor(0), wide))

    def compute(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *at: value(x(*at)), name=name)

    return relax.op.astype(call.emit(call.te(compute, x, name=name)), dtype)


def _reciprocal(call: Call) -> Result:
    return relax.op.divide(relax.const(1.0, call.dtype(0)), call.tensor(0))


def _sign(x: relax.Expr) -> relax.Expr:
    unsigned = str(x.ty.dtype).startswith("uint")  # -1 is none of its numbers
    return relax.op.minimum(x, relax.const(1, x.ty.dtype)) if unsigned else relax.op.sign(x)


def _equal(a: relax.Expr, b: relax.Expr) -> relax.Expr:
    bools = str(a.ty.dtype) == "bool"  # vectors of them would be compared as floats
    return relax.op.logical_not(relax.op.logical_xor(a, b)) if bools else relax.op.equal(a, b)


def _clip(call: Call) -> Result:
    tensor, dtype = call.tensor(0), call.dtype(0)
    limits = [call.attr("min"), call.attr("max")]
    for side, build in enumerate((relax.op.maximum, relax.op.minimum)):
        if limits[side] is not None:
            limit = relax.const(np.array(limits[side], numpy_dtype(dtype)), dtype)
        elif call.has(side + 1):
            limit = operand(call, side + 1)
        else:
            continue
        tensor = call.emit(build(tensor, limit))
    return tensor


def _where(call: Call) -> Result:
    return relax.op.where(call.tensor(0), operand(call, 1), operand(call, 2))


def _cast(call: Call) -> Result:
    source, target = call.dtype(0), call.out_dtype()
    if not {source, target} <= {"bool", *FLOATS, *INTEGERS, *NARROW}:
        raise DeclinedError(f"a cast from {source} to {target}")
    if source != target and {source, target} & NARROW:
        saturate, rounding = bool(call.attr("saturate", 1)), call.attr("round_mode", "up")
        return convert(call, call.tensor(0), source, target, saturate, rounding)
    return cast(call, target)


def cast(call: Call, target: str) -> relax.Expr:
    """Input 0 as `target`; ONNX truncates towards zero and maps every nonzero to true."""
    source = call.dtype(0)
    if source == target:
        return call.tensor(0)
    if not {source, target} <= {"bool", *FLOATS, *INTEGERS}:
        raise DeclinedError(f"a cast from {source} to {target}")
    if target == "bool":  # NaN is true, and TVM's not_equal would say that it equals 0
        zero = relax.const(np.array(0, numpy_dtype(source)), source)
        return relax.op.logical_not(call.emit(relax.op.equal(call.tensor(0), zero)))
    return relax.op.astype(call.tensor(0), target)


def _gelu(call: Call) -> Result:
    if call.attr("approximate", "none") == "tanh":
        return relax.op.nn.gelu_tanh(call.tensor(0))
    return relax.op.nn.gelu(call.tensor(0))


def _hard_sigmoid(call: Call) -> Result:
    """max(0, min(1, alpha * x + beta))"""
    return _clamped_line(call, call.attr("alpha", 0.2), call.attr("beta", 0.5))


def _hard_swish(call: Call) -> Result:
    """x * max(0, min(1, x / 6 + 0.5))"""
    return relax.op.multiply(call.tensor(0), _clamped_line(call, 1 / 6, 0.5))


def _clamped_line(call: Call, slope: float, offset: float) -> relax.Expr:
    dtype = call.dtype(0)
    line = relax.op.multiply(call.tensor(0), relax.const(slope, dtype))
    line = call.emit(relax.op.add(call.emit(line), relax.const(offset, dtype)))
    low = call.emit(relax.op.maximum(line, relax.const(0.0, dtype)))
    return call.emit(relax.op.minimum(low, relax.const(1.0, dtype)))


def _leaky_relu(call: Call) -> Result:
    return relax.op.nn.leakyrelu(call.tensor(0), call.attr("alpha", 0.01))


def _prelu(call: Call) -> Result:
    """x, and slope * x below 0; before operator set 7 the slopes are the channels'."""
    x, slope = call.tensor(0), call.tensor(1)
    if call.version < 7 and call.rank(1) == 1 and call.rank(0) > 1:
        dims = (call.shape(1)[0], *[1] * (call.rank(0) - 2))
        slope = call.emit(call.reshape(slope, dims))
    zero = relax.const(np.array(0, numpy_dtype(call.dtype(0))), call.dtype(0))
    below = call.emit(relax.op.less(x, zero))
    return relax.op.where(below, call.emit(relax.op.multiply(x, slope)), x)


def _elu(call: Call) -> Result:
    return _exponential_below_zero(call, 1.0, call.attr("alpha", 1.0))


def _selu(call: Call) -> Result:
    gamma = call.attr("gamma", 1.0507009873554805)
    return _exponential_below_zero(call, gamma, gamma * call.attr("alpha", 1.6732632423543772))


def _exponential_below_zero(call: Call, slope: float, scale: float) -> relax.Expr:
    """slope * x for x >= 0, scale * (exp(x) - 1) below"""
    x, dtype = call.tensor(0), call.dtype(0)
    below = call.emit(relax.op.exp(call.emit(relax.op.minimum(x, relax.const(0.0, dtype)))))
    below = call.emit(relax.op.subtract(below, relax.const(1.0, dtype)))
    below = call.emit(relax.op.multiply(below, relax.const(scale, dtype)))
    above = call.emit(relax.op.maximum(x, relax.const(0.0, dtype)))
    return relax.op.add(call.emit(relax.op.multiply(above, relax.const(slope, dtype))), below)


def _is_inf(call: Call) -> Result:
    x, dtype = call.tensor(0), call.dtype(0)
    wanted = [
        sign * np.inf
        for sign, name in ((1, "detect_positive"), (-1, "detect_negative"))
        if call.attr(name, 1)
    ]
    if not wanted:
        return relax.op.zeros(call.shape_expr(call.shape(0)), "bool")
    found = [call.emit(relax.op.equal(x, relax.const(value, dtype))) for value in wanted]
    return reduce(relax.op.logical_or, found)


def _softplus(call: Call) -> Result:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which cannot overflow."""
    x, dtype = call.tensor(0), call.dtype(0)
    decay = call.emit(relax.op.exp(call.emit(relax.op.negative(call.emit(relax.op.abs(x))))))
    tail = call.emit(relax.op.log(call.emit(relax.op.add(decay, relax.const(1.0, dtype)))))
    return relax.op.add(call.emit(relax.op.maximum(x, relax.const(0.0, dtype))), tail)


def _identity(call: Call) -> Result:
    return call.tensor(0)


def _dropout(call: Call) -> Result:
    """The identity at inference, or if it drops nothing."""
    training = call.has(2) and call.scalar(2) is not False
    if training and not (call.has(1) and call.scalar(1) == 0):
        raise DeclinedError("training mode")
    if not call.wants(1):
        return call.tensor(0)
    kept = relax.op.ones(call.shape_expr(call.out_shape(1)), call.out_dtype(1))
    return [call.tensor(0), kept]


CONVERTERS: dict[str, Converter] = {
    "Abs": _unary(relax.op.abs),
    "Ceil": _unary(relax.op.ceil),
    "Cos": _unary(relax.op.cos),
    "Erf": _unary(relax.op.erf),
    "Exp": _unary(relax.op.exp),
    "Floor": _unary(relax.op.floor),
    "IsNaN": _unary(relax.op.isnan),
    "Log": _unary(relax.op.log),
    "Neg": _unary(relax.op.negative),
    "Not": _unary(relax.op.logical_not),
    "Relu": _unary(relax.op.nn.relu),
    "Sigmoid": _unary(relax.op.sigmoid),
    "Sign": _unary(_sign),
    "Sin": _unary(relax.op.sin),
    "Sqrt": _unary(relax.op.sqrt),
    "Tanh": _unary(relax.op.tanh),
    "Add": _binary(relax.op.add),
    "And": _binary(relax.op.logical_and),
    "Div": _binary(relax.op.divide),
    "Equal": _binary(_equal),
    "Greater": _binary(relax.op.greater),
    "GreaterOrEqual": _binary(relax.op.greater_equal),
    "Less": _binary(relax.op.less),
    "LessOrEqual": _binary(relax.op.less_equal),
    "Mul": _binary(relax.op.multiply),
    "Or": _binary(relax.op.logical_or),
    "Sub": _binary(relax.op.subtract),
    "Xor": _binary(relax.op.logical_xor),
    "Max": _variadic(relax.op.maximum),
    "Min": _variadic(relax.op.minimum),
    "Sum": _variadic(relax.op.add),
    "Mean": _mean,
    "Mod": _mod,
    "BitShift": _bit_shift,
    "BitCast": _bit_cast,
    "Sinh": _sinh,
    "Cosh": _cosh,
    "Pow": _pow,
    "Reciprocal": _reciprocal,
    "Clip": _clip,
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "PRelu": _prelu,
    "Elu": _elu,
    "Selu": _selu,
    "IsInf": _is_inf,
    "LeakyRelu": _leaky_relu,
    "Softplus": _softplus,
    "Identity": _identity,
    "Dropout": _dropout,
}
