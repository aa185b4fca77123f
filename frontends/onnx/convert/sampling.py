"""Windows and points that are not a convolution's: written as one TE function each.

What such a function reads at positions from data is bounded by `passes/bound_indices.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from ..builder import Call, Converter, DeclinedError, Result
from .window import window


def max_pool_indices(call: Call) -> Result:
    """The largest of each window and where it is in the whole tensor; the first of equal ones."""
    kernel = tuple(call.attr("kernel_shape", ()))
    shape = call.fixed(call.shape(0), "the tensor")
    out, win = call.fixed(call.out_shape(), "the result"), window(call, kernel)
    order = list(range(len(kernel)))
    if call.attr("storage_order", 0):
        order.reverse()
    dtype = call.dtype(0)

    def pooled(x: te.Tensor) -> list[te.Tensor]:
        ks = [te.reduce_axis((0, size), f"k{axis}") for axis, size in enumerate(kernel)]
        larger = te.comm_reducer(
            lambda a, b: (
                tirx.Select(_wins(a, b), a[0], b[0]),
                tirx.Select(_wins(a, b), a[1], b[1]),
            ),
            lambda kind, index: (tirx.min_value(kind), tirx.const(-1, index)),
        )

        def element(*at: Expr) -> tuple[Expr, Expr]:
            place = [
                at[2 + axis] * win.strides[axis]
                + ks[axis] * win.dilations[axis]
                - win.padding[axis]
                for axis in range(len(kernel))
            ]
            inside = tirx.all(*(tirx.all(p >= 0, p < n) for p, n in zip(place, shape[2:])))
            flat: Expr = at[0] * shape[1] + at[1]
            flat = flat * prod(shape[2:])
            step = 1
            for axis in reversed(order):
                flat = flat + place[axis] * step
                step *= shape[2 + axis]
            value = tirx.if_then_else(inside, x(at[0], at[1], *place), tirx.min_value(dtype))
            index = tirx.if_then_else(inside, flat.astype("int64"), tirx.const(-1, "int64"))
            return larger((value, index), axis=ks)

        return list(te.compute(out, element, name="max_pool"))

    both = call.emit(call.te(pooled, call.tensor(0), name="max_pool_indices"))
    return [relax.TupleGetItem(both, k) for k in (0, 1)]


def _wins(a: Sequence[Expr], b: Sequence[Expr]) -> Expr:
    """Whether `a`, which came first, stays: unless it is nothing yet, or smaller."""
    return tirx.all(a[1] >= 0, tirx.any(a[0] >= b[0], b[1] < 0))


def _max_unpool(call: Call) -> Result:
    """Each element at its place in a tensor of zeros, which may be larger than the windows say."""
    kernel = call.attr("kernel_shape", ())
    shape = call.fixed(call.shape(0), "the tensor")
    out = call.fixed(call.out_shape(), "the result")
    strides = call.attr("strides", [1] * len(kernel))
    pads = call.attr("pads", [0] * 2 * len(kernel))
    spatial = [
        (size - 1) * stride + k - low - high
        for size, stride, k, low, high in zip(
            shape[2:], strides, kernel, pads[: len(kernel)], pads[len(kernel) :]
        )
    ]
    whole = (*shape[:2], *spatial)
    if any(given < size for given, size in zip(out, whole)):
        raise DeclinedError(f"an output shape {list(out)} smaller than {list(whole)}")
    if call.dtype(0) == "bfloat16":
        raise DeclinedError("bfloat16")
    zeros = call.emit(relax.op.zeros((prod(whole),), call.dtype(0)))
    flat = [call.emit(call.reshape(call.tensor(k), (prod(shape),))) for k in (0, 1)]
    placed = call.emit(relax.op.scatter_elements(zeros, flat[1], flat[0], 0))
    placed = call.emit(call.reshape(placed, whole))
    widths = [side for given, size in zip(out, whole) for side in (0, given - size)]
    return relax.op.nn.pad(placed, widths) if any(widths) else placed


def _col2im(call: Call) -> Result:
    """y[n, c, p] = sum of x[n, (c, k), l] over k and l with l * stride + k * dilation = p + pad."""
    image, block = call.need_ints(1, "the image"), call.need_ints(2, "the block")
    rank = len(image)
    strides, dilations = (call.attr(name, [1] * rank) for name in ("strides", "dilations"))
    pads = call.attr("pads", [0] * 2 * rank)
    counts = [
        (image[a] + pads[a] + pads[a + rank] - dilations[a] * (block[a] - 1) - 1) // strides[a] + 1
        for a in range(rank)
    ]
    out = call.fixed(call.out_shape(), "the result")
    rows, columns = call.fixed(call.shape(0)[1:], "the columns")
    if rows != out[1] * prod(block) or columns != prod(counts):
        raise DeclinedError("columns that are not those of the image and the block")

    def gathered(x: te.Tensor) -> te.Tensor:
        ks = [te.reduce_axis((0, size), f"k{axis}") for axis, size in enumerate(block)]

        def element(n: Expr, c: Expr, *at: Expr) -> Expr:
            row, column, hits = c, tirx.const(0, "int64"), []
            for a in range(rank):
                moved = at[a] + pads[a] - ks[a] * dilations[a]
                place = tirx.floordiv(moved, strides[a])
                hits.append(tirx.floormod(moved, strides[a]).equal(0))
                hits.append(tirx.all(place >= 0, place < counts[a]))
                row, column = row * block[a] + ks[a], column * counts[a] + place
            zero = tirx.const(0, x.dtype)
            return te.sum(tirx.if_then_else(tirx.all(*hits), x(n, row, column), zero), axis=ks)

        return te.compute(out, element, name="col2im")

    return call.te(gathered, call.tensor(0), name="col2im")


def _bilinear(
    image: te.Tensor, before: Sequence[Expr], at: Sequence[Expr], size: Sequence[Expr]
) -> Expr:
    """image[before, y, x] between four elements; what lies outside is 0."""
    y, x = at
    top, left = tirx.floor(y), tirx.floor(x)
    total: Expr = tirx.const(0, image.dtype)
    for down, right in product((0, 1), (0, 1)):
        row, column = top + down, left + right
        weight = (1 - tirx.abs(y - row)) * (1 - tirx.abs(x - column))
        inside = tirx.all(row >= 0, row < size[0], column >= 0, column < size[1])
        place = (tirx.Cast("int64", row), tirx.Cast("int64", column))
        zero = tirx.const(0, image.dtype)
        total = total + weight * tirx.if_then_else(inside, image(*before, *place), zero)
    return total


def _deform_conv(call: Call) -> Result:
    """A convolution of what lies at moved places: sampled columns, times the weight."""
    if call.rank(0) != 4:
        raise DeclinedError(f"{call.rank(0) - 2} spatial dims")
    dtype = call.dtype(0)
    _, channels, height, width = call.shape(0)
    filters, depth, *kernel = call.fixed(call.shape(1), "the kernel")
    batch, _, rows, columns = call.out_shape()
    (channels,) = call.fixed([channels], "the channels")
    win, groups = window(call, tuple(kernel)), call.attr("group", 1)
    per_group = channels // call.attr("offset_group", 1)
    area = kernel[0] * kernel[1]
    dims = [call.prim(dim) for dim in (batch, channels, area, rows, columns)]
    size = [call.prim(dim).astype(dtype) for dim in (height, width)]

    def sampled(x: te.Tensor, offset: te.Tensor, mask: te.Tensor | None = None) -> te.Tensor:
        def element(n: Expr, c: Expr, k: Expr, i: Expr, j: Expr) -> Expr:
            tap = tirx.floordiv(c, per_group) * area + k
            at = [tirx.floordiv(k, kernel[1]), tirx.floormod(k, kernel[1])]
            place = [
                (o * win.strides[a] + at[a] * win.dilations[a] - win.padding[a]).astype(dtype)
                + offset(n, tap * 2 + a, i, j)
                for a, o in enumerate((i, j))
            ]
            value = _bilinear(x, (n, c), place, size)
            return value if mask is None else value * mask(n, tap, i, j)

        return te.compute(dims, element, name="sampled")

    operands = [call.tensor(0), call.tensor(2), *([call.tensor(4)] if call.has(4) else [])]
    points = call.emit(call.te(sampled, *operands, name="deformed"))
    pixels = rows * columns
    points = call.emit(call.reshape(points, (batch, groups, depth * area, pixels)))
    weight = call.emit(call.reshape(call.tensor(1), (1, groups, filters // groups, depth * area)))
    result = call.emit(relax.op.matmul(weight, points))
    result = call.emit(call.reshape(result, call.out_shape()))
    if not call.has(3):
        return result
    bias = call.emit(call.reshape(call.tensor(3), (1, filters, 1, 1)))
    return relax.op.add(result, bias)


def _roi_align(call: Call) -> Result:
    """The largest of the weighted neighbours of each bin's points; the average is TVM's."""
    samples = call.attr("sampling_ratio", 0)
    if call.attr("mode", "avg") != "max":
        raise DeclinedError("left to TVM")
    if samples < 1:
        raise DeclinedError("mode max with a number of samples that depends on the region")
    half = 0.5 if call.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel" else 0.0
    scale, dtype = call.attr("spatial_scale", 1.0), call.dtype(0)
    _, _, height, width = call.shape(0)
    dims = [call.prim(dim) for dim in call.out_shape()]
    sizes = [call.prim(height), call.prim(width)]
    bins = [call.attr("output_height", 1), call.attr("output_width", 1)]

    def pooled(x: te.Tensor, rois: te.Tensor, batch: te.Tensor) -> te.Tensor:
        ks = [te.reduce_axis((0, samples), name) for name in ("ky", "kx")]

        def element(n: Expr, c: Expr, i: Expr, j: Expr) -> Expr:
            value: Expr = tirx.min_value(dtype)
            places, known = [], []
            for a, o in enumerate((i, j)):
                start, end = (rois(n, k) * scale - half for k in (1 - a, 3 - a))
                extent = end - start if half else tirx.max(end - start, tirx.const(1, dtype))
                step = extent / bins[a]
                point = start + o.astype(dtype) * step
                point = point + (ks[a].astype(dtype) + 0.5) * step / samples
                last = (sizes[a] - 1).astype(dtype)
                known.append(tirx.all(point >= -1, point <= last + 1))
                places.append(tirx.max(tirx.min(point, last), tirx.const(0, dtype)))
            low = [tirx.floor(place) for place in places]
            for corner in product((0, 1), (0, 1)):
                weight: Expr = tirx.const(1, dtype)
                where = []
                for a, side in enumerate(corner):
                    part = places[a] - low[a]
                    weight = weight * (part if side else 1 - part)
                    position = tirx.Cast("int64", low[a]) + side
                    where.append(tirx.min(position, sizes[a] - 1))
                value = tirx.max(value, weight * x(batch(n).astype("int64"), c, *where))
            zero = tirx.const(0, dtype)
            return te.max(tirx.if_then_else(tirx.all(*known), value, zero), axis=ks)

        return te.compute(dims, element, name="roi_align_max")

    return call.te(pooled, *call.tensors(), name="roi_align_max")


def _reverse_sequence(call: Call) -> Result:
    """y[t, b] = x[length[b] - 1 - t, b] within the sequence, else x[t, b]."""
    time, batch = call.attr("time_axis", 0), call.attr("batch_axis", 1)

    def reversed_(x: te.Tensor, lengths: te.Tensor) -> te.Tensor:
        def element(*at: Expr) -> Expr:
            length = lengths(at[batch]).astype("int64")
            place = tirx.Select(at[time] < length, length - 1 - at[time], at[time])
            return x(*(place if axis == time else i for axis, i in enumerate(at)))

        return te.compute(x.shape, element, name="reverse_sequence")

    return call.te(reversed_, call.tensor(0), call.tensor(1), name="reverse_sequence")


def _tensor_scatter(call: Call) -> Result:
    """The cache with the update from each sequence's position on."""
    axis, circular = call.axis(-2, call.rank(0)), call.attr("mode", "linear") == "circular"
    size, count = (call.prim(call.shape(k)[axis]) for k in (0, 1))
    starts = [call.tensor(2)] if call.has(2) else []

    def updated(x: te.Tensor, update: te.Tensor, start: te.Tensor | None = None) -> te.Tensor:
        def element(*at: Expr) -> Expr:
            first = tirx.const(0, "int64") if start is None else start(at[0]).astype("int64")
            place = at[axis] - first
            if circular:
                place = tirx.floormod(place, size)
            value = update(*(place if k == axis else i for k, i in enumerate(at)))
            return tirx.if_then_else(tirx.all(place >= 0, place < count), value, x(*at))

        return te.compute(x.shape, element, name="tensor_scatter")

    return call.te(updated, call.tensor(0), call.tensor(1), *starts, name="tensor_scatter")


def _det(call: Call) -> Result:
    """Elimination: with the largest pivot of each column, the product of the pivots."""
    shape = call.shape(0)
    (size, other) = call.fixed(shape[-2:], "the matrix")
    if size != other or not 1 <= size <= 64:
        raise DeclinedError(f"matrices of {size} x {other} elements")
    dtype = call.dtype(0)
    wide = "float64" if dtype == "float64" else "float32"
    rows = call.emit(relax.op.astype(call.tensor(0), wide))
    result = None
    for left in range(size, 0, -1):
        columns = call.emit(relax.op.squeeze(_piece(call, rows, -1, 0, 1), [-1]))
        best = call.emit(relax.op.argmax(call.emit(relax.op.abs(columns)), -1, keepdims=True))
        # the pivot's row comes first, the first row in its place
        steps = call.constant(np.arange(left), f"rows_{left}")
        zero = relax.const(0, "int64")
        order = call.emit(relax.op.where(call.emit(relax.op.equal(steps, best)), zero, steps))
        is_first = call.constant(np.arange(left) == 0, f"first_{left}")
        order = call.emit(relax.op.where(is_first, best, order))
        wide_order = call.emit(relax.op.expand_dims(order, -1))
        target = call.shape_expr([*shape[:-2], left, left])
        wide_order = call.emit(relax.op.broadcast_to(wide_order, target))
        rows = call.emit(relax.op.gather_elements(rows, wide_order, call.rank(0) - 2))
        pivot = _piece(call, _piece(call, rows, -2, 0, 1), -1, 0, 1)
        value = call.emit(relax.op.squeeze(pivot, [-2, -1]))
        swapped = call.emit(relax.op.greater(call.emit(relax.op.squeeze(best, [-1])), zero))
        value = call.emit(relax.op.where(swapped, call.emit(relax.op.negative(value)), value))
        result = value if result is None else call.emit(relax.op.multiply(result, value))
        if left > 1:
            rows = _eliminated(call, rows, pivot, left)
    return result if wide == dtype else relax.op.astype(result, dtype)


def _eliminated(call: Call, rows: relax.Expr, pivot: relax.Expr, left: int) -> relax.Expr:
    """The rest of the matrix less multiples of its first row; nothing where the pivot is 0."""
    first = _piece(call, _piece(call, rows, -2, 0, 1), -1, 1, left)
    column = _piece(call, _piece(call, rows, -2, 1, left), -1, 0, 1)
    one = relax.const(1.0, rows.ty.dtype)
    is_zero = call.emit(relax.op.equal(pivot, relax.const(0.0, rows.ty.dtype)))
    factor = call.emit(relax.op.divide(column, call.emit(relax.op.where(is_zero, one, pivot))))
    rest = _piece(call, _piece(call, rows, -2, 1, left), -1, 1, left)
    return call.emit(relax.op.subtract(rest, call.emit(relax.op.multiply(factor, first))))


def _piece(call: Call, tensor: relax.Expr, axis: int, begin: int, end: int) -> relax.Expr:
    axis %= len(tensor.ty.shape)
    return call.emit(relax.op.strided_slice(tensor, [axis], [begin], [end], [1]))


CONVERTERS: dict[str, Converter] = {
    "Col2Im": _col2im,
    "DeformConv": _deform_conv,
    "Det": _det,
    "MaxUnpool": _max_unpool,
    "ReverseSequence": _reverse_sequence,
    "RoiAlign": _roi_align,
    "TensorScatter": _tensor_scatter,
}
