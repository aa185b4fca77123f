"""Symbolic rules of operators that work element by element, and of reductions of known elements."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
from onnx import numpy_helper

from .symbolic_node import MAX_ELEMENTS, Node, Value, dtype_name, element_count
from .symbolic_numbers import Arithmetic, Number

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
    "Relu LeakyRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Mish Softplus Softsign Tanh Erf Gelu "
    "Swish ThresholdedRelu Exp Log Sqrt Reciprocal Sin Cos Tan Asin Acos Atan Sinh Cosh Sign Round "
    "Softmax LogSoftmax Hardmax Clip InstanceNormalization GroupNormalization LRN CumSum BitwiseNot "
    "LpNormalization MeanVarianceNormalization Trilu Shrink ScatterND ScatterElements Scatter"
).split()
BROADCAST = "BitwiseAnd BitwiseOr BitwiseXor BitShift Mean PRelu Xor".split()


def elementwise(node: Node) -> Value | None:
    """y[i] = f(a[i], b[i], ...), broadcast."""
    shapes = [node.shape(k) for k in range(len(node.inputs))]
    if any(shape is None for shape in shapes):
        return None
    shape = node.broadcast(*shapes)  # type: ignore[arg-type]
    compares = node.op_type in COMPARISON or node.op_type == "Xor"
    dtype = "bool" if compares else node.dtype()
    combine = ARITHMETIC.get(node.op_type) or COMPARISON.get(node.op_type)
    if node.op_type == "Mod":
        fmod = bool(node.attr("fmod", 0))

        def combine(m: Arithmetic, a: Number, b: Number) -> Number:
            return m.mod(a, b, fmod)

    columns = _broadcast_data(node, shape)
    if columns is None or combine is None:
        return node.value(dtype, shape)
    math = node.arithmetic(node.dtype())
    rows = zip(*columns)
    return node.value(dtype, shape, [reduce(lambda a, b: combine(math, a, b), row) for row in rows])


def _broadcast_data(node: Node, shape: tuple) -> list[list[Number]] | None:
    """The elements of every input, broadcast to `shape`; None if some are not tracked."""
    count = element_count(shape)
    if count is None or count > MAX_ELEMENTS:
        return None
    columns = []
    for value in node.inputs:
        if value is None or value.data is None:
            return None
        columns.append(list(np.broadcast_to(value.data, shape).flat))
    return columns


def where(node: Node) -> Value | None:
    """y[i] = a[i] if condition[i] else b[i]."""
    shapes = [node.shape(k) for k in range(3)]
    if any(shape is None for shape in shapes):
        return None
    shape = node.broadcast(*shapes)  # type: ignore[arg-type]
    count = element_count(shape)
    if count is None or count > MAX_ELEMENTS or node.elements(0) is None:
        return node.value(node.dtype(1), shape)
    # an input without known elements may still not be chosen
    columns = [
        [None] * count
        if value is None or value.data is None
        else list(np.broadcast_to(value.data, shape).flat)
        for value in node.inputs
    ]
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
    math = node.arithmetic(x.dtype)
    data = None if x.data is None else [UNARY[node.op_type](math, e) for e in x.data.flat]
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
    math = node.arithmetic(to)
    return node.value(to, x.shape, [math.cast(e) for e in x.data.flat])


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
    if axes is None and node.input(1) is not None or axes == [] and node.attr("noop_with_empty_axes"):
        return None
    math = node.arithmetic(x.dtype)
    total = reduce(lambda a, b: REDUCE[node.op_type](math, a, b), x.data.flat)
    return node.value(x.dtype, (1,) if node.attr("keepdims", 1) else (), [total])


def range_(node: Node) -> Value | None:
    """y[i] = start + i*delta, max(0, ceil((limit - start) / delta)) elements."""
    if any(node.elements(k) is None for k in range(3)):
        return node.value(node.dtype(), [node.unknown(0)])
    start, limit, delta = (node.elements(k)[0] for k in range(3))  # type: ignore[index]
    math = node.arithmetic(node.dtype())
    span = math.sub(limit, start)
    if not math.integral:
        length = math.ceil(math.div(span, delta))
    elif delta is None or math.less(0, delta) is not True:
        length = math.ceil(_exact(node, math.neg(span), math.neg(delta)))
    else:
        length = math.ceil(_exact(node, span, delta))
    length = node.arithmetic("int64").cast(length)
    if length is None or isinstance(length, float | bool):
        return node.value(node.dtype(), [node.unknown(0)])
    size = node.facts.maximum(0, length)  # type: ignore[arg-type]
    if not isinstance(size, int) or size > MAX_ELEMENTS:
        return node.value(node.dtype(), [size])
    data = [math.add(start, math.mul(k if math.integral else float(k), delta)) for k in range(size)]
    return node.value(node.dtype(), [size], data)


def _exact(node: Node, span: Number, delta: Number) -> Number:
    """span / delta as a fraction, for integers too."""
    return node.arithmetic("float64").div(span, delta)


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
    count = element_count(tuple(shape))
    if count is None or count > MAX_ELEMENTS or node.opset < 9:
        return node.value(dtype, shape)
    element = 0 if fill is None else numpy_helper.to_array(fill).reshape(-1)[0].item()
    return node.value(dtype, shape, [element] * count)


RULES: dict[str, Callable[[Node], Value | list[Value] | None]] = {
    **dict.fromkeys([*ARITHMETIC, *COMPARISON, *BROADCAST, "Mod"], elementwise),
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(SAME_SHAPE, same_shape),
    **dict.fromkeys(REDUCE, reduction),
    "Cast": cast,
    "CastLike": cast,
    "ConstantOfShape": constant_of_shape,
    "Dropout": dropout,
    "Range": range_,
    "Where": where,
}
