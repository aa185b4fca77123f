"""Symbolic rules of operators with indices that are data.

An index needs something to point at: an axis that is indexed has an element, unless nothing is
asked for. The shapes that an operator walks together must fit, or it would leave its tensors.
"""

from __future__ import annotations

from collections.abc import Callable

from ..dims import minimum, product
from .symbolic_node import Node, Shape, Size, Value, constant_shape
from .symbolic_numbers import is_size


def gather(node: Node) -> Value | None:
    """y[i, j, k] = x[i, indices[j], k]."""
    x, indices = node.input(0), node.input(1)
    if x is None or indices is None or x.shape is None or indices.shape is None or not x.shape:
        return None
    axis = node.axis(0, len(x.shape))
    dims = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    picks, constant, data = node.ints(1), constant_shape(dims), None
    needed = max((max(pick + 1, -pick) for pick in picks), default=0) if picks is not None else 1
    _assume_some(node, x.shape[axis], indices.shape, needed)
    if x.data is not None and x.data.size and picks is not None and constant is not None:
        length = x.data.shape[axis]
        data = x.data.take([pick % length for pick in picks], axis).reshape(constant)
    return node.value(x.dtype, dims, data)


def gather_elements(node: Node) -> Value | None:
    """y[i, j] = x[indices[i, j], j]."""
    shape, indices = node.shape(), node.shape(1)
    if shape is None or indices is None:
        return None
    _assume_within(node, shape, indices)
    return node.value(node.dtype(), indices)


def gather_nd(node: Node) -> Value | None:
    """y[batch, i, rest] = x[batch, indices[batch, i, :], rest]."""
    shape, indices = node.shape(), node.shape(1)
    if shape is None or not indices or not isinstance(indices[-1], int):
        return None
    batch, end = node.attr("batch_dims", 0), node.attr("batch_dims", 0) + indices[-1]
    for size, other in zip(shape[:batch], indices[:batch], strict=True):
        node.facts.require_equal(size, other, node.where)
    for size in shape[batch:end]:
        _assume_some(node, size, indices[:-1])
    return node.value(node.dtype(), indices[:-1] + shape[end:])


def scatter_elements(node: Node) -> Value | None:
    """y = x;  y[indices[i, j], j] = updates[i, j]."""
    x, indices, updates = node.input(0), node.shape(1), node.shape(2)
    if x is None or x.shape is None or indices is None or updates is None:
        return None
    _assume_within(node, x.shape, indices)
    for size, other in zip(indices, updates, strict=True):
        node.facts.require_equal(size, other, node.where)
    return node.value(x.dtype, x.shape)


def scatter_nd(node: Node) -> Value | None:
    """y = x;  y[indices[i, :], rest] = updates[i, rest]."""
    x, indices, updates = node.input(0), node.shape(1), node.shape(2)
    if x is None or x.shape is None or not indices or updates is None:
        return None
    if isinstance(indices[-1], int):
        for size, other in zip(indices[:-1] + x.shape[indices[-1] :], updates, strict=True):
            node.facts.require_equal(size, other, node.where)
    return node.value(x.dtype, x.shape)


def one_hot(node: Node) -> Value | None:
    """y[i, d] = on if indices[i] == d else off, with values = [off, on]."""
    shape, depth = (
        node.shape(),
        [int(d) if isinstance(d, float) else d for d in node.elements(1) or ()],
    )
    if shape is None:
        return None
    axis = node.attr("axis", -1)
    axis += len(shape) + 1 if axis < 0 else 0
    size: Size = depth[0] if depth and is_size(depth[0]) else node.unknown(axis)
    dims = [*shape[:axis], size, *shape[axis:]]
    indices, values = node.ints(0), node.elements(2)
    if indices is None or values is None or not isinstance(size, int) or axis != len(shape):
        return node.value(node.dtype(2), dims)
    data = [values[d in (i, i + size)] for i in indices for d in range(size)]
    return node.value(node.dtype(2), dims, data)


def _assume_some(node: Node, size: Size, picks: Shape, least: int = 1) -> None:
    """An axis has `least` elements if there are any indices into it."""
    if least == 1 and size in picks:
        return  # no elements, no indices
    node.facts.assume_at_least(size, least * minimum(1, product(picks)), node.where)


def _assume_within(node: Node, shape: Shape, indices: Shape) -> None:
    """Indices along one axis, walked together with the others: those lie in the tensor's."""
    axis = node.axis(0, len(shape))
    for k, (size, other) in enumerate(zip(shape, indices, strict=True)):
        if k == axis:
            _assume_some(node, size, indices)
        else:
            node.facts.assume_at_least(size, other, node.where)


RULES: dict[str, Callable[[Node], Value | list[Value] | None]] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
}
