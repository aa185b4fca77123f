"""Symbolic rules of operators that move, select and reshape."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..dims import Expr, ceildiv, floordiv, product
from .symbolic_node import Node, Shape, Size, Value, array, constant_shape
from .symbolic_numbers import is_size

FAR = 2**31 - 1
"""A slice bound at or beyond this means the end of the axis."""


def shape_of(node: Node) -> Value | None:
    """y = dims of x, from start to end."""
    shape = node.shape()
    if shape is None:
        return None
    dims = list(shape[node.attr("start", 0) : node.attr("end", len(shape))])
    return node.value("int64", [len(dims)], dims)


def size_of(node: Node) -> Value | None:
    """y = product of the dims of x."""
    shape = node.shape()
    return None if shape is None else node.value("int64", (), [product(shape)])


def reshape(node: Node) -> Value | None:
    """y has the elements of x and the dims in `shape`; 0 copies a dim, -1 takes what is left."""
    x = node.input(0)
    target = node.attr("shape") or node.elements(1)
    if x is None:
        return None
    if target is None:
        length = node.shape(1)
        if not length or not isinstance(length[0], int):
            return Value(x.dtype, None)
        target = [None] * length[0]
    dims: list[Size | None] = []
    for k, size in enumerate(target):
        copies = size == 0 and isinstance(size, int) and not node.attr("allowzero", 0)
        if copies:
            size = x.shape[k] if x.shape is not None and k < len(x.shape) else None
        dims.append(None if size == -1 else size)
    return node.value(x.dtype, _reshaped(node, x.shape, dims), x.data)


def _reshaped(node: Node, source: Shape | None, dims: list[Size | None]) -> list[Size]:
    """The open dim follows from the number of elements; without one, the numbers must agree."""
    open_axes = [k for k, size in enumerate(dims) if size is None]
    rest = product(size for size in dims if size is not None)
    if source is None or len(open_axes) > 1:
        return [node.unknown(k) if size is None else size for k, size in enumerate(dims)]
    total = product(source)
    if not open_axes:
        node.facts.require_equal(total, rest, node.where)
    elif rest == 0:
        dims[open_axes[0]] = 0
    else:
        node.facts.require_divides(rest, total, node.where)
        dims[open_axes[0]] = floordiv(total, rest)
    return [size for size in dims if size is not None]


def flatten(node: Node) -> Value | None:
    """y = x as a matrix, split before `axis`."""
    x = node.input(0)
    if x is None or x.shape is None:
        return None
    axis = node.attr("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    return node.value(x.dtype, (product(x.shape[:axis]), product(x.shape[axis:])), x.data)


def transpose(node: Node) -> Value | None:
    """y[i, j, ...] = x[... permuted]."""
    x = node.input(0)
    if x is None or x.shape is None:
        return None
    perm = node.attr("perm") or list(range(len(x.shape)))[::-1]
    data = None if x.data is None else x.data.transpose(perm)
    return node.value(x.dtype, [x.shape[k] for k in perm], data)


def unsqueeze(node: Node) -> Value | None:
    """y = x with dims of 1 at `axes` of y."""
    x, axes = node.input(0), node.ints(1, "axes")
    if x is None or x.shape is None:
        return None
    if axes is None:
        return _of_rank(node, x, 1)
    dims = list(x.shape)
    for axis in sorted(a % (len(x.shape) + len(axes)) for a in axes):
        dims.insert(axis, 1)
    return node.value(x.dtype, dims, x.data)


def _of_rank(node: Node, x: Value, sign: int) -> Value | None:
    """x with as many dims more or less as there are axes, which only the run knows."""
    count = node.shape(1)
    if x.shape is None or not count or not isinstance(count[0], int):
        return None
    rank = len(x.shape) + sign * count[0]
    return node.value(x.dtype, map(node.unknown, range(rank)))


def squeeze(node: Node) -> Value | None:
    """y = x without `axes`, which must be 1; without `axes`, without every dim that is 1."""
    x, axes = node.input(0), node.ints(1, "axes")
    if x is None or x.shape is None:
        return None
    if axes is None and node.input(1) is not None:
        return _of_rank(node, x, -1)
    if axes is None:
        dropped = {k for k, size in enumerate(x.shape) if size == 1}
        for size in x.shape:
            if isinstance(size, Expr):  # a size that happened to be 1 would change the rank
                node.facts.assume_at_least(size, 2, node.where)
    else:
        dropped = {axis % len(x.shape) for axis in axes}
        for k in dropped:
            node.facts.require_equal(x.shape[k], 1, node.where)
    return node.value(x.dtype, [s for k, s in enumerate(x.shape) if k not in dropped], x.data)


def concat(node: Node) -> Value | None:
    """y = inputs one after the other along `axis`; the other dims must agree."""
    shapes = node.shapes()
    if shapes is None or not shapes[0]:
        return None
    axis = node.axis(1 if node.opset < 4 else 0, len(shapes[0]))
    dims = list(shapes[0])
    for shape in shapes[1:]:
        for k, (size, other) in enumerate(zip(dims, shape, strict=True)):
            if k == axis:
                dims[k] = size + other
            else:
                node.facts.require_equal(size, other, node.where)
                dims[k] = other if isinstance(other, int) else size
    if constant_shape(dims) is None:
        return node.value(node.dtype(), dims)
    parts = [_tracked(value) for value in node.inputs if value is not None]
    return node.value(node.dtype(), dims, np.concatenate(parts, axis))


def _tracked(value: Value) -> np.ndarray:
    """The elements, all None where only their number is known."""
    if value.data is not None:
        return value.data
    sizes = constant_shape(value.shape) or ()
    return array([None] * math.prod(sizes), sizes)


def split(node: Node) -> list[Value] | None:
    """Consecutive parts of x along `axis`."""
    x = node.input(0)
    if x is None or x.shape is None:
        return None
    axis = node.axis(0, len(x.shape))
    sizes = node.sizes(1, "split")
    parts = len(node.proto.output)
    if sizes is None:
        if node.input(1) is not None:
            front, back = x.shape[:axis], x.shape[axis + 1 :]
            return [
                node.value(x.dtype, [*front, node.unknown(axis, k), *back]) for k in range(parts)
            ]
        chunk = ceildiv(x.shape[axis], parts)
        if node.opset < 18:
            node.facts.require_divides(parts, x.shape[axis], node.where)
            chunk = floordiv(x.shape[axis], parts)
        sizes = [chunk] * (parts - 1) + [x.shape[axis] - chunk * (parts - 1)]
        whole = x.shape[axis]
        if isinstance(whole, int) and isinstance(chunk, int):  # 5 in 4 parts: 2, 2, 1, 0
            sizes = [max(0, min(chunk, whole - chunk * k)) for k in range(parts)]
    for size in sizes:
        node.facts.assume_at_least(size, 0, node.where)
    node.facts.require_equal(sum(sizes[1:], sizes[0]), x.shape[axis], node.where)
    values, start = [], 0
    for size in sizes:
        data = None
        if x.data is not None and isinstance(size, int):
            data = x.data.take(range(start, start + size), axis)
            start += size
        dims = [*x.shape[:axis], size, *x.shape[axis + 1 :]]
        values.append(node.value(x.dtype, dims, data))
    return values


def expand(node: Node) -> Value | None:
    """y = x broadcast with a tensor of the dims in `shape`."""
    x, target = node.input(0), node.elements(1)
    if x is None or x.shape is None or target is None:
        return None
    padded = (1,) * (len(target) - len(x.shape)) + x.shape
    sizes = list(padded)
    for k, size in enumerate(target, len(padded) - len(target)):
        if is_size(size):
            (sizes[k],) = node.broadcast((padded[k],), (size,))
        elif node.facts.at_least(padded[k], 2) is not True:
            sizes[k] = node.unknown(k)  # else it can only be the dim of x
    constant = constant_shape(sizes)
    data = None if x.data is None or constant is None else np.broadcast_to(x.data, constant)
    return node.value(x.dtype, sizes, data)


def tile(node: Node) -> Value | None:
    """y = x repeated along each axis."""
    x, repeats = node.input(0), node.sizes(1)
    if x is None or x.shape is None or repeats is None:
        return None
    dims = [size * repeat for size, repeat in zip(x.shape, repeats)]
    times, data = node.ints(1), None
    if x.data is not None and times is not None and constant_shape(dims) is not None:
        data = np.tile(x.data, times)
    return node.value(x.dtype, dims, data)


def slice_(node: Node) -> Value | None:
    """y = x[start:end:step] per axis, bounds clamped to the axis."""
    x = node.input(0)
    if x is None or x.shape is None:
        return None
    starts, ends = node.sizes(1, "starts"), node.sizes(2, "ends")
    axes, steps = _slice_axes(node, len(x.shape)), node.ints(4)
    if starts is None or ends is None or axes is None or (steps is None and node.input(4)):
        named = range(len(x.shape)) if axes is None else axes
        return node.value(
            x.dtype, [node.unknown(k) if k in named else s for k, s in enumerate(x.shape)]
        )
    dims, data = list(x.shape), x.data
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(axes)):
        size = _slice_length(node, dims[axis], start, end, step)
        dims[axis] = node.unknown(axis) if size is None else size
        if data is not None and isinstance(start, int) and isinstance(end, int):
            data = data[(slice(None),) * axis + (_python_slice(start, end, step),)]
        else:
            data = None
    return node.value(x.dtype, dims, data)


def _slice_axes(node: Node, rank: int) -> list[int] | None:
    """The axes that are sliced; the first ones if none are named, None if only the run knows."""
    axes = node.ints(3, "axes")
    if axes is None and node.input(3) is None:
        length = node.shape(1)
        count = len(node.attr("starts")) if length is None else length[0]
        axes = list(range(count)) if isinstance(count, int) else None
    return None if axes is None else [axis % rank for axis in axes]


def _python_slice(start: int, end: int, step: int) -> slice:
    return slice(start, None if step < 0 and end <= -FAR else end, step)


def _slice_length(node: Node, size: Size, start: Size, end: Size, step: int) -> Size | None:
    """Number of elements that a slice of one axis has, None if only the run knows."""
    facts = node.facts
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(size)[_python_slice(start, end, step)])
    if step < 0:
        whole = start == -1 and isinstance(end, int) and end <= -FAR
        return ceildiv(size, -step) if whole else None
    low, high = _from_front(node, start, size), _from_front(node, end, size)
    high = facts.minimum(high, size)
    if isinstance(start, int) and isinstance(end, int) and facts.at_least(high, low) is None:
        # constants that cut away more than there is: no network means that
        facts.assume_at_least(high, low, node.where)
    high = facts.maximum(0, high)
    # high - max(0, low), and nothing if that is negative
    return ceildiv(facts.maximum(0, facts.minimum(high, high - low)), step)


def _from_front(node: Node, bound: Size, size: Size) -> Size:
    """A slice bound with a negative one, which counts from the end, turned around."""
    facts = node.facts
    if isinstance(bound, int):
        return size + bound if -FAR < bound < 0 else bound if bound < FAR else size
    if facts.at_least(0, bound) is True:
        facts.assume_at_least(-1, bound, node.where)
        return size + bound
    facts.assume_at_least(bound, 0, node.where)
    return bound


def pad(node: Node) -> Value | None:
    """y[k] = x[k] + begin[k] + end[k] elements along each axis."""
    x = node.input(0)
    pads = node.sizes(1, "paddings" if node.opset < 2 else "pads")
    if x is None or x.shape is None or pads is None:
        return None
    axes = node.ints(3)
    if axes is None:
        if node.input(3) is not None:
            return None
        axes = list(range(len(x.shape)))
    dims = list(x.shape)
    for k, axis in enumerate(axes):
        dims[axis % len(dims)] = dims[axis % len(dims)] + pads[k] + pads[k + len(axes)]
    return node.value(x.dtype, dims)


def top_k(node: Node) -> list[Value] | None:
    """The k largest elements along `axis` and their indices."""
    shape = node.shape()
    k = node.sizes(1) if node.attr("k") is None else [node.attr("k")]
    if not shape:
        return None
    axis = node.axis(-1, len(shape))
    size: Size = k[0] if k is not None else node.unknown(axis)
    dims = [*shape[:axis], size, *shape[axis + 1 :]]
    return [node.value(node.dtype(), dims), node.value("int64", dims)]


def unknown_count(node: Node) -> Value | None:
    """NonZero: y[d, n], n known only to the run."""
    shape = node.shape()
    return None if shape is None else node.value("int64", [len(shape), node.unknown(1)])


def unique(node: Node) -> list[Value] | None:
    """The elements, or slices along an axis, that differ; the run tells how many they are."""
    shape, axis = node.shape(), node.attr("axis")
    if shape is None:
        return None
    if axis is None:
        count, size, dims = node.unknown(0), product(shape), []
    else:
        axis %= len(shape)
        count, size, dims = node.unknown(axis), shape[axis], [*shape]
    dims[axis or 0 : (axis or 0) + 1] = [count]
    found = [node.value(node.dtype(), dims)]
    found += [node.value("int64", [n]) for n in (count, size, count)]
    return found[: len(node.proto.output)]


RULES: dict[str, Callable[[Node], Value | list[Value] | None]] = {
    "Concat": concat,
    "Expand": expand,
    "Flatten": flatten,
    "NonZero": unknown_count,
    "Pad": pad,
    "Reshape": reshape,
    "Shape": shape_of,
    "Size": size_of,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "TopK": top_k,
    "Transpose": transpose,
    "Unique": unique,
    "Unsqueeze": unsqueeze,
}
