"""Dims that an operator walks together: a kernel counts one of them, and would leave the others.

TVM's type inference refuses numbers that differ; what is said here also holds for dims with names.
"""

from __future__ import annotations

from collections.abc import Callable

from .symbolic_node import Node, Size

RECURRENT = "sbi dgi dgh"
TOGETHER = {
    "BatchNormalization": "nc. c. c. c. c.",
    "Conv": "nc. m. m",
    "ConvTranspose": "nc. c.",
    "DeformConv": "nc. m. n. m",
    "GRU": RECURRENT,
    "InstanceNormalization": "nc. c c",
    "LSTM": RECURRENT,
    "MaxRoiPool": "nchw r5",
    "RNN": RECURRENT,
    "RoiAlign": "nchw r4 r",
}
"""The dims of each input: a letter is one size wherever it stands, a digit a number, "." the rest.
Of recurrent layers the other dims are stated where they are converted."""


def require_fit(node: Node) -> None:
    """States that the operands of a node of ONNX's own domain fit.

    Raises ModelError if they do not, ValueError if one has another number of dims.
    """
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
    "GridSample": _grid_sample,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "MaxUnpool": _max_unpool,
    "RMSNormalization": _layer_norm,
    "ReverseSequence": _reverse_sequence,
    "TensorScatter": _tensor_scatter,
}
