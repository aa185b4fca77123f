"""Symbolic rules of operators that work element by element, and of reductions of known elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
from onnx import numpy_helper

from .symbolic_node import MAX_ELEMENTS, Node, Shape, Size, Value, constant_shape, dtype_name
from .symbolic_numbers import Arithmetic, Number, is_size

Combine = Callable[[Arithmetic, Number, Number], Number]


def _not(a: Number) -> Number:
    return None if a is None else not a


def _and(a: Number, b: Number) -> Number:
    return False if a is False or b is False else None if a is None or b is None else bool(a and b)


def _or(a: Number, b: Number) -> Number:
    return True if a is True or b is True else None if a is None or b is None else bool(a or b)


ARITHMETIC: dict[str, Combine] = {
    "Add": lambda m, a, b: m.add(a, b),
    "Sub": lambda m, a, b: m.sub(a, b),
    "Mul": lambda m, a, b: m.mul(a, b),
    "Div": lambda m, a, b: m.div(a, b),
    "Pow": lambda m, a, b: m.pow(a, b),
    "Max": lambda m, a, b: m.max(a, b),
    "Min": lambda m, a, b: m.min(a, b),
    "Sum": lambda m, a, b: m.add(a, b),
}
COMPARISON: dict[str, Combine] = {
    "Equal": lambda m, a, b: m.equal(a, b),
    "Less": lambda m, a, b: m.less(a, b),
    "Greater": lambda m, a, b: m.less(b, a),
    "LessOrEqual": lambda m, a, b: _not(m.less(b, a)),
    "GreaterOrEqual": lambda m, a, b: _not(m.less(a, b)),
    "And": lambda m, a, b: _and(a, b),
    "Or": lambda m, a, b: _or(a, b),
}
UNARY: dict[str, Callable[[Arithmetic, Number], Number]] = {
    "Identity": lambda m, a: a,
    "Neg": lambda m, a: m.neg(a),
    "Abs": lambda m, a: m.abs(a),
    "Floor": lambda m, a: m.floor(a),
    "Ceil": lambda m, a: m.ceil(a),
    "Not": lambda m, a: _not(a),
}
SAME_SHAPE = (
    "Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Gelu", "Swish", "Mish",
    "Sigmoid", "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Shrink", "Clip", "Erf", "Exp",
    "Log", "Sqrt", "Reciprocal", "Sign", "Round", "BitwiseNot", "Sin", "Cos", "Tan", "Asin",
    "Acos", "Atan", "Sinh", "Cosh", "Tanh", "Softmax", "LogSoftmax", "Hardmax", "CumProd", "CumSum",
    "Trilu",
    "LRN", "LpNormalization", "InstanceNormalization", "GroupNormalization",
    "MeanVarianceNormalization", "Scatter", "ScatterND", "ScatterElements",
)  # fmt: skip
BROADCAST = ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift", "Mean", "PRelu", "Xor")


def elementwise(node: Node) -> Value | None:
    """y[i] = f(a[i], b[i], ...), broadcast."""
    shapes = node.shapes()
    if shapes is None:
        return None
    compares = node.op_type in COMPARISON or node.op_type == "Xor"
    dtype = "bool" if compares else node.dtype()
    older = node.op_type == "PRelu" or (node.attr("broadcast") and node.attr("axis") is not None)
    if node.opset < 7 and older:
        return node.value(dtype, shapes[0])  # the second operand lies along its axes from `axis` on
    shape = node.broadcast(*shapes)
    combine, columns = _combination(node), _broadcast_data(node, shape)
    if combine is None or columns is None:
        return node.value(dtype, shape)
    arithmetic = node.arithmetic(node.dtype())
    rows = zip(*columns)
    return node.value(
        dtype, shape, [reduce(lambda a, b: combine(arithmetic, a, b), row) for row in rows]
    )


def _combination(node: Node) -> Combine | None:
    """What is done with two elements; None if elements are not tracked."""
    if node.op_type == "Mod":
        fmod = bool(node.attr("fmod", 0))
        return lambda m, a, b: m.mod(a, b, fmod)
    return ARITHMETIC.get(node.op_type) or COMPARISON.get(node.op_type)


def _broadcast_data(node: Node, shape: Shape) -> list[list[Number]] | None:
    """The elements of every input, broadcast to `shape`; None if there are too many."""
    sizes = constant_shape(shape)
    if sizes is None:
        return None
    columns: list[list[Number]] = []
    for value in node.inputs:
        if value is None or value.data is None:
            columns.append([None] * math.prod(sizes))
        else:
            columns.append(list(np.broadcast_to(value.data, sizes).flat))
    return columns


def where(node: Node) -> Value | None:
    """y[i] = a[i] if condition[i] else b[i]."""
    shapes = node.shapes()
    if shapes is None:
        return None
    shape = node.broadcast(*shapes)
    # an input without known elements may still not be the one that is chosen
    columns = _broadcast_data(node, shape)
    if columns is None:
        return node.value(node.dtype(1), shape)
    chosen = [
        (a if c else b) if isinstance(c, bool) else a if _same(a, b) else None
        for c, a, b in zip(*columns)
    ]
    return node.value(node.dtype(1), shape, chosen)


def _same(a: Number, b: Number) -> bool:
    return a is not None and type(a) is type(b) and a == b


def unary(node: Node) -> Value | None:
    """y[i] = f(x[i])."""
    x = node.input(0)
    if x is None or x.shape is None:
        return None
    f, arithmetic = UNARY[node.op_type], node.arithmetic(x.dtype)
    data = None if x.data is None else [f(arithmetic, e) for e in x.data.flat]
    return node.value(x.dtype, x.shape, data)


def same_shape(node: Node) -> Value | None:
    """y has the dtype and shape of x; elements are not tracked."""
    if node.shape() is None or len(node.proto.output) > 1:
        return None
    return node.value(node.dtype(), node.shape())


def cast(node: Node) -> Value | None:
    """y[i] = (to) x[i]; CastLike takes the dtype of its second input."""
    x = node.input(0)
    if x is None:
        return None
    to = node.dtype(1) if node.op_type == "CastLike" else dtype_name(node.attr("to"))
    if x.data is None or not to:
        return node.value(to, x.shape)
    arithmetic = node.arithmetic(to)
    return node.value(to, x.shape, [arithmetic.cast(e) for e in x.data.flat])


def dequantize(node: Node) -> Value | None:
    """y = (x - zero) * scale, of the dtype of the scale or the one asked for."""
    kind = node.attr("output_dtype", 0)
    return node.value(dtype_name(kind) if kind else node.dtype(1), node.shape())


def dropout(node: Node) -> list[Value] | None:
    """Inference: y = x, mask = true."""
    x = node.input(0)
    if x is None or x.shape is None:
        return None
    return [node.value(x.dtype, x.shape, x.data), node.value("bool", x.shape)]


REDUCE: dict[str, Combine] = {
    "ReduceSum": ARITHMETIC["Add"],
    "ReduceProd": ARITHMETIC["Mul"],
    "ReduceMax": ARITHMETIC["Max"],
    "ReduceMin": ARITHMETIC["Min"],
}


def reduction(node: Node) -> Value | None:
    """y[kept] = reduce of x over the axes; for known elements of a vector, the rest is ONNX's."""
    x = node.input(0)
    if x is None or x.data is None or x.data.ndim != 1 or not x.data.size:
        return None
    axes = node.ints(1, "axes")
    if (axes is None and node.input(1) is not None) or node.attr("noop_with_empty_axes", 0):
        return None
    combine, arithmetic = REDUCE[node.op_type], node.arithmetic(x.dtype)
    total = reduce(lambda a, b: combine(arithmetic, a, b), x.data.flat)
    return node.value(x.dtype, (1,) if node.attr("keepdims", 1) else (), [total])


def range_(node: Node) -> Value | None:
    """y[i] = start + i*delta, max(0, ceil((limit - start) / delta)) elements."""
    ends = [node.elements(k) for k in range(3)]
    length = None
    if all(ends):
        start, limit, delta = (end[0] for end in ends if end)
        length = _steps(node, start, limit, delta)
    if length is None:
        return node.value(node.dtype(), [node.unknown(0)])
    if not isinstance(length, int) or length > MAX_ELEMENTS:
        return node.value(node.dtype(), [length])
    own = node.arithmetic(node.dtype())
    data = [own.add(start, own.mul(own.cast(k), delta)) for k in range(length)]
    return node.value(node.dtype(), [length], data)


def _steps(node: Node, start: Number, limit: Number, delta: Number) -> Size | None:
    """Number of elements of a range, counted with fractions."""
    exact = node.arithmetic("float64")
    span, step = exact.sub(limit, start), delta
    if step is not None and exact.less(0, step) is False:
        span, step = exact.neg(span), exact.neg(step)
    length = node.arithmetic("int64").cast(exact.ceil(exact.div(span, step)))
    return node.facts.maximum(0, length) if is_size(length) else None


def constant_of_shape(node: Node) -> Value | None:
    """y[i] = value, of the shape in the input."""
    fill = node.attr("value")
    dtype = dtype_name(fill.data_type) if fill is not None else "float32"
    shape = node.sizes(0)
    if shape is None:
        length = node.shape(0)
        if not length or not isinstance(length[0], int):
            return Value(dtype, None)
        return node.value(dtype, [node.unknown(k) for k in range(length[0])])
    sizes = constant_shape(shape)
    if sizes is None:
        return node.value(dtype, shape)
    element = 0.0 if fill is None else numpy_helper.to_array(fill).reshape(-1)[0].item()
    return node.value(dtype, shape, [element] * math.prod(sizes))


RULES: dict[str, Callable[[Node], Value | list[Value] | None]] = {
    **dict.fromkeys([*ARITHMETIC, *COMPARISON, *BROADCAST, "Mod"], elementwise),
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(SAME_SHAPE, same_shape),
    **dict.fromkeys(REDUCE, reduction),
    "Cast": cast,
    "CastLike": cast,
    "ConstantOfShape": constant_of_shape,
    "DequantizeLinear": dequantize,
    "Dropout": dropout,
    "Range": range_,
    "Where": where,
}
