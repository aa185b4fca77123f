"""Movement operators on virtual tensors, in NumPy's and ONNX's terms.

Each takes and returns `VirtualTensor`s; sizes, offsets and bounds may be symbolic, axes and steps
are ints. An axis may be negative. Nothing here checks types or broadcasts sizes that may differ:
the caller has a well-typed graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from tvmext.frontends.dims import floordiv, product

from .piece import Guard, Lookup, local, locals_of
from .scope import Size
from .tensor import VirtualTensor, assemble, filled, layered


def permute(x: VirtualTensor, axes: Sequence[int]) -> VirtualTensor:
    """out[i_axes[0], i_axes[1], ...] = x[i_0, i_1, ...]"""
    axes = [axis % x.rank for axis in axes]
    return x.remap([x.shape[a] for a in axes], [local(axes.index(k)) for k in range(x.rank)])


def reshape(x: VirtualTensor, shape: Sequence[Size]) -> VirtualTensor:
    """The same elements in row-major order; the sizes must have equal products.

    The axes are taken in the smallest groups of equal products, so that a symbolic dim only meets
    its own group.
    """
    shape = tuple(shape)
    if 0 in shape:
        return VirtualTensor(shape, ())
    index: list[Size] = [0] * x.rank
    for old, new in _groups(x.shape, shape):
        flat: Size = 0
        for k, stride in zip(new, _strides(shape, new)):
            flat = flat + local(k) * stride
        for place, (k, stride) in enumerate(zip(old, _strides(x.shape, old))):
            position = floordiv(flat, stride)
            index[k] = position % x.shape[k] if place else position
    return x.remap(shape, index)


def slices(x: VirtualTensor, axis: int, begin: Size, size: Size, step: int = 1) -> VirtualTensor:
    """out[i] = x[begin + step*i] along the axis, i < size; `step` may be negative."""
    axis %= x.rank
    index: list[Size] = list(locals_of(x.rank))
    index[axis] = begin + step * local(axis)
    return x.remap(_with(x.shape, axis, size), index)


def flip(x: VirtualTensor, axis: int) -> VirtualTensor:
    """out[i] = x[n - 1 - i] along the axis."""
    return slices(x, axis, x.shape[axis] - 1, x.shape[axis], -1)


def broadcast(x: VirtualTensor, shape: Sequence[Size]) -> VirtualTensor:
    """NumPy's broadcast_to: trailing axes align, axes of size 1 repeat."""
    offset = len(shape) - x.rank
    index = [0 if size == 1 else local(k + offset) for k, size in enumerate(x.shape)]
    return x.remap(shape, index)


def concat(parts: Sequence[VirtualTensor], axis: int) -> VirtualTensor:
    """The tensors one after another along the axis."""
    axis %= parts[0].rank
    ends = list(accumulate((part.shape[axis] for part in parts), initial=0))
    shape = _with(parts[0].shape, axis, ends[-1])
    origins = [_with((0,) * len(shape), axis, end) for end in ends]
    return assemble(shape, zip(origins, parts))


def stack(parts: Sequence[VirtualTensor], axis: int) -> VirtualTensor:
    """The tensors along a new axis."""
    axis %= parts[0].rank + 1
    return concat([expand(part, axis) for part in parts], axis)


def split(x: VirtualTensor, sizes: Sequence[Size], axis: int) -> list[VirtualTensor]:
    """Consecutive slices of the given sizes."""
    begins = accumulate(sizes[:-1], initial=0)
    return [slices(x, axis, begin, size) for begin, size in zip(begins, sizes)]


def expand(x: VirtualTensor, axis: int) -> VirtualTensor:
    """A new axis of size 1 before `axis` of the result."""
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    return x.remap(shape, [local(k) for k in range(len(shape)) if k != axis])


def squeeze(x: VirtualTensor, axis: int) -> VirtualTensor:
    """Without an axis of size 1."""
    axis %= x.rank
    index: list[Size] = list(locals_of(x.rank - 1))
    return x.remap([*x.shape[:axis], *x.shape[axis + 1 :]], [*index[:axis], 0, *index[axis:]])


def tile(x: VirtualTensor, repeats: Sequence[Size]) -> VirtualTensor:
    """The whole tensor repeated along each axis; as many repeats as axes."""
    shape = tuple(n * size for n, size in zip(repeats, x.shape, strict=True))
    if 0 in shape:
        return VirtualTensor(shape, ())
    return x.remap(
        shape, [local(k) if n == 1 else local(k) % x.shape[k] for k, n in enumerate(repeats)]
    )


def repeat(x: VirtualTensor, times: Size, axis: int) -> VirtualTensor:
    """Each element `times` times in a row along the axis."""
    axis %= x.rank
    if times == 0:
        return VirtualTensor(_with(x.shape, axis, 0), ())
    index: list[Size] = list(locals_of(x.rank))
    index[axis] = floordiv(local(axis), times)
    return x.remap(_with(x.shape, axis, times * x.shape[axis]), index)


def roll(x: VirtualTensor, shift: Size, axis: int) -> VirtualTensor:
    """out[(i + shift) % n] = x[i] along the axis; 0 <= shift <= n unless both are ints."""
    size = x.shape[axis]
    if isinstance(shift, int) and isinstance(size, int):
        shift = shift % size if size else 0
    return concat([slices(x, axis, size - shift, shift), slices(x, axis, 0, size - shift)], axis)


def pad(
    x: VirtualTensor, before: Sequence[Size], after: Sequence[Size], value: float | int | bool
) -> VirtualTensor:
    """Constant padding; negative amounts crop."""
    for axis, (left, right) in enumerate(zip(before, after, strict=True)):
        cut, keep = (-left if _negative(left) else 0), (right if _negative(right) else 0)
        if cut != 0 or keep != 0:
            x = slices(x, axis, cut, x.shape[axis] - cut + keep)
    before = [0 if _negative(left) else left for left in before]
    after = [0 if _negative(right) else right for right in after]
    shape = [left + n + right for left, n, right in zip(before, x.shape, after)]
    return assemble(shape, [(before, x), ((0,) * x.rank, filled(shape, value))])


def pad_edges(
    x: VirtualTensor, before: Sequence[Size], after: Sequence[Size], mode: str
) -> VirtualTensor:
    """Padding with the tensor's own elements: `mode` is "edge", "reflect" or "wrap", as in NumPy.

    "reflect" needs amounts below the size, "wrap" amounts up to the size. None may be negative.
    """
    for axis, (left, right) in enumerate(zip(before, after, strict=True)):
        x = concat([*_border(x, axis, left, 0, mode), x, *_border(x, axis, right, 1, mode)], axis)
    return x


def _border(x: VirtualTensor, axis: int, amount: Size, end: int, mode: str) -> list[VirtualTensor]:
    if amount == 0:
        return []
    n = x.shape[axis]
    match mode:
        case "edge":
            edge = slices(x, axis, end * (n - 1), 1)
            return [broadcast(edge, _with(x.shape, axis, amount))]
        case "reflect":
            return [slices(x, axis, n - 2 if end else amount, amount, -1)]
        case _:
            return [slices(x, axis, 0 if end else n - amount, amount)]


def take(
    x: VirtualTensor, lookup: Lookup, axis: int, rank: int, shape: Sequence[Size]
) -> VirtualTensor:
    """out[a.., i.., b..] = x[a.., indices[i..], b..]; indices have `rank` axes, out has `shape`.

    ``lookup.index`` is over the axes of the result: local(axis) ... local(axis + rank - 1).
    """
    axis %= x.rank
    index: list[Size] = [local(k) for k in range(axis)]
    index += [lookup.symbol, *(local(k + rank - 1) for k in range(axis + 1, x.rank))]
    return x.remap(shape, index, (lookup,))


def depth_to_space(x: VirtualTensor, block: int, mode: str = "DCR") -> VirtualTensor:
    """ONNX DepthToSpace of [n, c*block*block, h, w]; mode "DCR" or "CRD"."""
    n, c, h, w = x.shape
    inner = floordiv(c, block * block)
    if mode == "DCR":
        blocks = permute(reshape(x, [n, block, block, inner, h, w]), [0, 3, 4, 1, 5, 2])
    else:
        blocks = permute(reshape(x, [n, inner, block, block, h, w]), [0, 1, 4, 2, 5, 3])
    return reshape(blocks, [n, inner, block * h, block * w])


def space_to_depth(x: VirtualTensor, block: int) -> VirtualTensor:
    """ONNX SpaceToDepth of [n, c, h, w], h and w being multiples of the block."""
    n, c, h, w = x.shape
    high, wide = floordiv(h, block), floordiv(w, block)
    blocks = permute(reshape(x, [n, c, high, block, wide, block]), [0, 3, 5, 1, 2, 4])
    return reshape(blocks, [n, block * block * c, high, wide])


def unfold(
    x: VirtualTensor, axis: int, size: int, step: int = 1, dilation: int = 1
) -> VirtualTensor:
    """Sliding windows: axis of n becomes windows, and a new last axis of `size` their elements.

    out[.., i, .., j] = x[.., step*i + dilation*j, ..]
    """
    axis %= x.rank
    count = floordiv(x.shape[axis] - dilation * (size - 1) - 1, step) + 1
    index: list[Size] = list(locals_of(x.rank))
    index[axis] = step * local(axis) + dilation * local(x.rank)
    return x.remap([*_with(x.shape, axis, count), size], index)


def update(x: VirtualTensor, part: VirtualTensor, offset: Sequence[Size]) -> VirtualTensor:
    """`x` with the elements of `part` at `offset`: a scatter into a box, as into a cache."""
    return assemble(x.shape, [(offset, part), ((0,) * x.rank, x)])


def triangle(x: VirtualTensor, k: Size, upper: bool, value: float | int | bool) -> VirtualTensor:
    """The part of the last two axes with column - row >= k (upper) or <= k; `value` elsewhere."""
    rows, columns = x.shape[-2:]
    difference = local(x.rank - 1) - local(x.rank - 2)
    guard = Guard(difference, k, columns) if upper else Guard(difference, 1 - rows, k + 1)
    kept = x.read(x.shape, locals_of(x.rank), (), (guard,))
    return layered(x.shape, [*kept, *filled(x.shape, value).pieces])


def _groups(old: Sequence[Size], new: Sequence[Size]) -> list[tuple[list[int], list[int]]]:
    """The axes of two shapes in the smallest consecutive groups of equal products.

    Axes of size 1 belong to no group. Sizes whose equality is not provable share the last group.
    """
    groups: list[tuple[list[int], list[int]]] = []
    left = [k for k, size in enumerate(old) if size != 1]
    right = [k for k, size in enumerate(new) if size != 1]
    while left or right:
        ends = {total: k for k, total in reversed(list(enumerate(_products(old, left))))}
        match = next(
            ((ends[total], k) for k, total in enumerate(_products(new, right)) if total in ends),
            (len(left) - 1, len(right) - 1),
        )
        groups.append((left[: match[0] + 1], right[: match[1] + 1]))
        left, right = left[match[0] + 1 :], right[match[1] + 1 :]
    return groups


def _products(shape: Sequence[Size], axes: Sequence[int]) -> list[Size]:
    """Products of the first one, two, ... of the axes."""
    return list(accumulate((shape[k] for k in axes), lambda a, b: a * b))


def _strides(shape: Sequence[Size], axes: Sequence[int]) -> list[Size]:
    """The row-major stride of each of the axes within their group."""
    return [product(shape[k] for k in axes[place + 1 :]) for place in range(len(axes))]


def _with(shape: Sequence[Size], axis: int, size: Size) -> tuple[Size, ...]:
    """The shape with one size replaced."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def _negative(size: Size) -> bool:
    return isinstance(size, int) and size < 0
