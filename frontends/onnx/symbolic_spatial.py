"""Symbolic rules of matrix products, convolution, pooling and resizing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvmext.errors import ModelError

from ..dims import ceildiv, floordiv, minimum, product
from .symbolic_node import Node, Size, Value
from .symbolic_numbers import Number, is_size

WEIGHT_INPUT = {"QLinearConv": 3, "QLinearMatMul": 3}
"""Which input is the second operand, where it is not input 1."""
RESULT_DTYPE = {"ConvInteger": "int32", "MatMulInteger": "int32"}


def _result_dtype(node: Node) -> str:
    if node.op_type in WEIGHT_INPUT:
        return node.dtype(7)  # the zero point of y
    return RESULT_DTYPE.get(node.op_type, node.dtype())


def matmul(node: Node) -> Value | None:
    """y[..., m, n] = sum of a[..., m, k] * b[..., k, n] over k."""
    a, b = node.shape(0), node.shape(WEIGHT_INPUT.get(node.op_type, 1))
    if not a or not b:
        return None
    node.facts.require_equal(a[-1], b[-2] if len(b) > 1 else b[0], node.where)
    rows, columns = a[-2:-1] if len(a) > 1 else (), b[-1:] if len(b) > 1 else ()
    return node.value(_result_dtype(node), node.broadcast(a[:-2], b[:-2]) + rows + columns)


def gemm(node: Node) -> Value | None:
    """y[m, n] = sum of a[m, k] * b[k, n] over k, + c; transA and transB swap an operand's dims."""
    a, b = node.shape(0), node.shape(1)
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    m, k = a[::-1] if node.attr("transA", 0) else a
    k2, n = b[::-1] if node.attr("transB", 0) else b
    node.facts.require_equal(k, k2, node.where)
    node.broadcast((m, n), node.shape(2) or ())
    return node.value(node.dtype(), (m, n))


def einsum(node: Node) -> Value | None:
    """A dim per letter; the letters of the result are given, or those that occur once, sorted."""
    text = node.attr("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if "." in text or len(terms) != len(node.inputs):
        return None
    dims: dict[str, Size] = {}
    for k, term in enumerate(terms):
        shape = node.shape(k)
        if shape is None or len(shape) != len(term):
            return None
        for letter, size in zip(term, shape):
            if letter in dims:
                (size,) = node.broadcast((dims[letter],), (size,))
            dims[letter] = size
    if not arrow:
        right = "".join(sorted(c for c in dims if left.count(c) == 1))
    return node.value(node.dtype(), [dims[letter] for letter in right])


def _window(node: Node, x: Sequence[Size], kernel: Sequence[Size]) -> list[Size]:
    """Dims after sliding a window: floor((x + pads - dilation*(kernel - 1) - 1) / stride) + 1."""
    rank = len(kernel)
    _require_positive(node)
    strides = node.attr("strides") or [1] * rank
    dilations = node.attr("dilations") or [1] * rank
    pads = node.attr("pads") or [0] * (2 * rank)
    auto = node.attr("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        return [ceildiv(size, stride) for size, stride in zip(x, strides)]
    dims: list[Size] = []
    for k, size in enumerate(x):
        padding = 0 if auto == "VALID" else pads[k] + pads[k + rank]
        room = size + padding - dilations[k] * (kernel[k] - 1) - 1
        if not node.attr("ceil_mode", 0):
            node.facts.assume_at_least(room, 0, node.where)
            dims.append(floordiv(room, strides[k]) + 1)
            continue
        # the last window must begin inside the tensor or its leading padding
        begins = ceildiv(size + (0 if auto == "VALID" else pads[k]), strides[k])
        dims.append(minimum(ceildiv(room, strides[k]) + 1, begins))
    return dims


def _require_positive(node: Node) -> None:
    """Raises ModelError if an attribute has a size or a step that is none."""
    for name in ("kernel_shape", "strides", "dilations"):
        values = list(node.attr(name) or ())
        if any(value < 1 for value in values):
            raise ModelError(
                f"{node.where} has the {name} {values}; all have to be 1 or more",
                hint="export it again",
            )


def conv(node: Node) -> Value | None:
    """y[n, m, spatial]: the window of w[m, c/group, kernel] over x[n, c, spatial]."""
    x, w = node.shape(0), node.shape(WEIGHT_INPUT.get(node.op_type, 1))
    if x is None or w is None:
        return None
    node.facts.require_equal(x[1], w[1] * node.attr("group", 1), node.where)
    kernel = node.attr("kernel_shape") or w[2:]
    return node.value(_result_dtype(node), [x[0], w[0], *_window(node, x[2:], kernel)])


def deform_conv(node: Node) -> Value | None:
    """y of a convolution whose window is moved by offset[n, 2*groups*kernel, spatial of y]."""
    x, w = node.shape(0), node.shape(1)
    if x is None or w is None:
        return None
    node.facts.require_equal(x[1], w[1] * node.attr("group", 1), node.where)
    kernel = node.attr("kernel_shape") or w[2:]
    spatial = _window(node, x[2:], kernel)
    taps = product(kernel) * node.attr("offset_group", 1)
    for k, count in ((2, len(spatial) * taps), (4, taps)):
        shape = node.shape(k)
        if shape is not None:
            for size, other in zip(shape, (x[0], count, *spatial), strict=True):
                node.facts.require_equal(size, other, node.where)
    return node.value(node.dtype(), [x[0], w[0], *spatial])


def conv_transpose(node: Node) -> Value | None:
    """y = stride*(x - 1) + output_padding + dilation*(kernel - 1) + 1 - pads; SAME: x*stride."""
    x, w = node.shape(0), node.shape(1)
    if x is None or w is None:
        return None
    rank = len(x) - 2
    _require_positive(node)
    kernel = node.attr("kernel_shape") or w[2:]
    strides = node.attr("strides") or [1] * rank
    dilations = node.attr("dilations") or [1] * rank
    extra = node.attr("output_padding") or [0] * rank
    pads = node.attr("pads") or [0] * (2 * rank)
    auto = node.attr("auto_pad", "NOTSET")
    dims = node.attr("output_shape")
    if dims is None and auto.startswith("SAME"):
        dims = [size * stride for size, stride in zip(x[2:], strides)]
    elif dims is None:
        padding = [0 if auto == "VALID" else pads[k] + pads[k + rank] for k in range(rank)]
        dims = [
            strides[k] * (x[2 + k] - 1) + extra[k] + dilations[k] * (kernel[k] - 1) + 1 - padding[k]
            for k in range(rank)
        ]
    channels, bias = w[1] * node.attr("group", 1), node.shape(2)
    if bias is not None:
        node.facts.require_equal(bias[0], channels, node.where)
    return node.value(node.dtype(), [x[0], channels, *dims[-rank:]])


def pool(node: Node) -> Value | list[Value] | None:
    """A window over x[n, c, spatial]; MaxPool has the indices as a second output."""
    x = node.shape(0)
    if x is None:
        return None
    dims = [*x[:2], *_window(node, x[2:], node.attr("kernel_shape"))]
    y = node.value(node.dtype(), dims)
    return [y, node.value("int64", dims)] if node.op_type == "MaxPool" else y


def depth_to_space(node: Node) -> Value | None:
    """y[n, c/(b*b), h*b, w*b]."""
    shape, block = node.shape(), node.attr("blocksize")
    if shape is None or len(shape) != 4:
        return None
    n, c, h, w = shape
    node.facts.require_divides(block * block, c, node.where)
    return node.value(node.dtype(), [n, floordiv(c, block * block), h * block, w * block])


def space_to_depth(node: Node) -> Value | None:
    """y[n, c*b*b, h/b, w/b]."""
    shape, block = node.shape(), node.attr("blocksize")
    if shape is None or len(shape) != 4:
        return None
    n, c, h, w = shape
    for size in (h, w):
        node.facts.require_divides(block, size, node.where)
    dims = [n, c * block * block, floordiv(h, block), floordiv(w, block)]
    return node.value(node.dtype(), dims)


def resize(node: Node) -> Value | None:
    """y = sizes, or floor(x * scales); of the named axes only, where `axes` names some."""
    x = node.input(0)
    if x is None or x.shape is None:
        return None
    if node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    sizes, scales = node.elements(3), _scales(node)
    dims = list(x.shape)
    for k, axis in enumerate(node.attr("axes") or range(len(dims))):
        size: Number = None
        if sizes:
            size = sizes[k]
        elif scales and node.input(3) is None:
            size = _scaled(node, x.shape[axis], scales[k])
        dims[axis] = size if is_size(size) else node.unknown(axis % len(dims))
    return node.value(x.dtype, dims)


def _scales(node: Node) -> list[Number] | None:
    """Upsample has them as an attribute or input 1, Resize as input 1 (opset 10) or 2."""
    if node.attr("scales"):
        return list(node.attr("scales"))
    old = node.op_type == "Upsample" or node.opset < 11
    return node.elements(1 if old else 2)


def _scaled(node: Node, size: Size, scale: Number) -> Number:
    """floor(size * scale) in single precision, as runtimes compute it."""
    single = node.arithmetic("float32")
    return node.arithmetic("int64").cast(single.floor(single.mul(single.cast(size), scale)))


def max_unpool(node: Node) -> Value | None:
    """y: the given shape; without one ONNX's inference knows it."""
    shape = node.sizes(2)
    return node.value(node.dtype(), shape) if shape else None


def non_max_suppression(node: Node) -> Value | None:
    """y[n, 3], n known only to the run, of boxes[b, i, 4] and scores[b, c, i]."""
    boxes, scores = node.shape(0), node.shape(1)
    if boxes is None or scores is None or len(boxes) != 3 or len(scores) != 3:
        return None
    for a, b in ((boxes[0], scores[0]), (boxes[1], scores[2]), (boxes[2], 4)):
        node.facts.require_equal(a, b, node.where)
    return node.value("int64", [node.unknown(0), 3])


def stft(node: Node) -> Value | None:
    """y[batch, frames, bins, 2]; ONNX's own inference forgets that `onesided` is the default."""
    shape, step = node.shape(0), node.ints(1)
    window, given = node.shape(2), node.ints(3)
    length: Size | None = given[0] if given else window[0] if window else None
    if shape is None or not step or step[0] < 1 or length is None:
        return None
    frames = floordiv(shape[1] - length, step[0]) + 1
    bins = floordiv(length, 2) + 1 if node.attr("onesided", 1) else length
    return node.value(node.dtype(), [shape[0], frames, bins, 2])


RULES: dict[str, Callable[[Node], Value | list[Value] | None]] = {
    **dict.fromkeys(["Conv", "ConvInteger", "QLinearConv"], conv),
    **dict.fromkeys(["MatMul", "MatMulInteger", "QLinearMatMul"], matmul),
    **dict.fromkeys(["AveragePool", "LpPool", "MaxPool"], pool),
    **dict.fromkeys(["Resize", "Upsample"], resize),
    "ConvTranspose": conv_transpose,
    "DeformConv": deform_conv,
    "DepthToSpace": depth_to_space,
    "Einsum": einsum,
    "Gemm": gemm,
    "MaxUnpool": max_unpool,
    "NonMaxSuppression": non_max_suppression,
    "STFT": stft,
    "SpaceToDepth": space_to_depth,
}
