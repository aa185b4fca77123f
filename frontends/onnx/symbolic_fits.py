"""Dims that an operator walks together: a kernel counts one of them, and would leave the others.

TVM's type inference refuses numbers that differ; what is said here also holds for dims with names.
"""

from __future__ import annotations

from collections.abc import Callable

from ..dims import ceildiv, product
from .symbolic_node import Node, Shape, Size

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
TOGETHER = {
    "BatchNormalization": "nc. c. c. c. c.",
    "Conv": "nc. m. m",
    "ConvTranspose": "nc. c.",
    "DeformConv": "nc. m. n. m",
    "InstanceNormalization": "nc. c c",
    "MaxRoiPool": "nchw r5",
    "RoiAlign": "nchw r4 r",
}
"""The dims of each input: a letter is one size wherever it stands, a digit a number, "." more."""
SINGLE = {
    "Clip": (1, 2),
    "CumProd": (1,),
    "CumSum": (1,),
    "If": (0,),
    "Loop": (0, 1),
    "OneHot": (1,),
    "Pad": (2,),
    "Range": (0, 1, 2),
    "TopK": (1,),
    "Trilu": (1,),
}
"""The inputs that have one element."""


def require_fit(node: Node) -> None:
    """States that the operands of a node of ONNX's own domain fit.

    Raises ModelError if they do not, ValueError if one has another number of dims.
    """
    for k in SINGLE.get(node.op_type, ()):
        shape = node.shape(k)
        if shape is not None:
            node.facts.require_equal(product(shape), 1, node.where)
    if letters := TOGETHER.get(node.op_type):
        _require_letters(node, letters.split())
    elif check := _CHECKS.get(node.op_type):
        check(node)


def _require_letters(node: Node, inputs: list[str]) -> None:
    found: dict[str, Size] = {digit: int(digit) for digit in "45"}
    for k, letters in enumerate(inputs):
        shape = node.shape(k)
        if shape is None:
            continue
        named = letters.rstrip(".")
        for letter, size in zip(named, shape, strict=named == letters):
            node.facts.require_equal(size, found.setdefault(letter, size), node.where)


def _grid_sample(node: Node) -> None:
    """A grid per image, of points with a coordinate per spatial axis."""
    x, grid = node.shape(), node.shape(1)
    if x is not None and grid is not None:
        node.facts.require_equal(grid[0], x[0], node.where)
        node.facts.require_equal(grid[-1], len(x) - 2, node.where)


def _group_norm(node: Node) -> None:
    """Scale and bias have an element per channel, before operator set 21 one per group."""
    x = node.shape()
    count = node.attr("num_groups") if node.opset < 21 else x[1] if x else None
    for k in (1, 2):
        shape = node.shape(k)
        if count is not None and shape is not None:
            node.facts.require_equal(shape[0], count, node.where)


def _layer_norm(node: Node) -> None:
    """Scale and bias are broadcast to the axes of x from `axis` on, never the other way."""
    x = node.shape()
    for k in (1, 2):
        shape = node.shape(k)
        if x is None or shape is None:
            continue
        if len(shape) > len(x):
            raise ValueError(f"{len(shape)} dims for {len(x)}")
        for size, other in zip(x[::-1], shape[::-1]):
            (both,) = node.broadcast((size,), (other,))
            node.facts.require_equal(both, size, node.where)


def _max_unpool(node: Node) -> None:
    """An index per element."""
    x, indices = node.shape(), node.shape(1)
    if x is not None and indices is not None:
        for size, other in zip(x, indices, strict=True):
            node.facts.require_equal(size, other, node.where)


def _one_hot(node: Node) -> None:
    """What is off, and what is on."""
    values = node.shape(2)
    if values is not None:
        (count,) = values
        node.facts.require_equal(count, 2, node.where)


def _quantized(node: Node) -> None:
    """A scale is one number, has an element for each of an axis, or for each block of that."""
    x, block = node.shape(), node.attr("block_size", 0)
    for k in (1, 2):
        shape = node.shape(k)
        if x is None or shape is None or (not block and shape in ((), (1,))):
            continue
        axis = node.axis(1, len(x))
        if not block:
            (count,) = shape
            node.facts.require_equal(count, x[axis], node.where)
            continue
        for at, (size, count) in enumerate(zip(x, shape, strict=True)):
            wanted = ceildiv(size, block) if at == axis else size
            node.facts.require_equal(count, wanted, node.where)


def _recurrent(node: Node) -> None:
    """X[.., input], W[directions, gates, input], R[directions, gates, hidden], B, peepholes P.

    States and lengths are matched where they are converted.
    """
    x, w, r = (node.shape(k) for k in range(3))
    if x is None or w is None or r is None:
        return
    directions, gates, hidden = r
    fitting: list[tuple[Shape | None, Shape]] = [
        (w, (directions, gates, x[2])),
        (r, (directions, GATES[node.op_type] * hidden, hidden)),
        (node.shape(3), (directions, 2 * gates)),
        (node.shape(7), (directions, 3 * hidden)),
    ]
    for shape, wanted in fitting:
        for size, other in zip(wanted if shape is None else shape, wanted, strict=True):
            node.facts.require_equal(size, other, node.where)


def _reverse_sequence(node: Node) -> None:
    """A length per sequence."""
    x, lengths = node.shape(), node.shape(1)
    if x is not None and lengths is not None:
        (count,) = lengths
        node.facts.require_equal(count, x[node.attr("batch_axis", 1)], node.where)


def _tensor_scatter(node: Node) -> None:
    """The update has the dims of the cache but along `axis`, and begins somewhere per sequence."""
    cache, update, begins = node.shape(), node.shape(1), node.shape(2)
    if cache is None or update is None:
        return
    axis = node.axis(-2, len(cache))
    for k, (size, other) in enumerate(zip(cache, update, strict=True)):
        if k != axis:
            node.facts.require_equal(size, other, node.where)
    if begins is not None:
        (count,) = begins
        node.facts.require_equal(count, cache[0], node.where)


_CHECKS: dict[str, Callable[[Node], None]] = {
    **dict.fromkeys(GATES, _recurrent),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _quantized),
    "GridSample": _grid_sample,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "MaxUnpool": _max_unpool,
    "RMSNormalization": _layer_norm,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "TensorScatter": _tensor_scatter,
}
