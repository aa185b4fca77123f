"""Operators that move elements without computing, emitted from the dims shape inference found.

No shape is computed at run time: the target of a reshape or broadcast is the symbolic shape of the
output, and bounds of a slice are expressions over the dims.
"""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper
from tvm import relax, te, tirx

from ...dims import Expr, maximum
from ..builder import Call, Converter, DeclinedError, Result
from . import runtime, runtime_slice


def _reshape(call: Call) -> Result:
    """Reshape, Flatten, Squeeze and Unsqueeze: same elements, other dims."""
    if not call.builder.has_defined(call.builder.value(call.node.output[0]).shape or ()):
        at_run_time = {"Reshape": runtime.reshape, "Squeeze": runtime.squeeze}
        return at_run_time.get(call.op, runtime.unsqueeze)(call)
    return call.reshape(call.tensor(0), call.out_shape())


def _transpose(call: Call) -> Result:
    rank = call.rank(0)
    perm = call.attr("perm", list(range(rank))[::-1])
    return relax.op.permute_dims(call.tensor(0), list(perm)) if rank else call.tensor(0)


def _expand(call: Call) -> Result:
    if call.shape(0) == call.out_shape():
        return call.tensor(0)
    return relax.op.broadcast_to(call.tensor(0), call.shape_expr(call.out_shape()))


def _tile(call: Call) -> Result:
    """[d0, d1] -> [1, d0, 1, d1] -> [r0, d0, r1, d1] -> [r0*d0, r1*d1]"""
    repeats = call.known(1)
    if repeats is None:
        raise DeclinedError("the repeats are known only at run time")
    dims, counts = call.shape(0), list(repeats.flat)
    if any(isinstance(count, Expr) for count in counts):
        return call.te(lambda x: _repeated(call, x), call.tensor(0), name="tile")
    split = call.emit(call.reshape(call.tensor(0), [d for dim in dims for d in (1, dim)]))
    spread = [d for count, dim in zip(counts, dims) for d in (_plain(count), dim)]
    tiled = call.emit(relax.op.broadcast_to(split, call.shape_expr(spread)))
    return call.reshape(tiled, call.out_shape())


def _repeated(call: Call, x: te.Tensor) -> te.Tensor:
    """y[i] = x[i modulo size]: TVM takes minutes over the views of unknown repeats."""
    dims = [call.prim(dim) for dim in call.out_shape()]
    sizes = list(x.shape)
    return te.compute(dims, lambda *at: x(*map(tirx.floormod, at, sizes)), name="tile")


def _concat(call: Call) -> Result:
    tensors = call.tensors()
    return relax.op.concat(tensors, call.axis(1, call.rank(0))) if len(tensors) > 1 else tensors[0]


def _split(call: Call) -> Result:
    """One slice per output: the parts are independent, and a slice can be a view."""
    if call.has(1) and call.known(1) is None:
        return runtime.split(call)
    axis, start = call.axis(0, call.rank(0)), 0
    parts: list[relax.Expr] = []
    for index in range(len(call.node.output)):
        size = call.out_shape(index)[axis] if call.wants(index) else 0
        parts.append(slice_axes(call, call.tensor(0), [(axis, start, start + size, 1)]))
        start = start + size  # type: ignore[assignment]
    return parts


Bounds = tuple[int, int | Expr, int | Expr, int]
"""Axis, begin and end inside the dim, and step of one sliced axis."""


def slice_axes(call: Call, tensor: relax.Expr, bounds: list[Bounds]) -> relax.Expr:
    """`tensor[begin:end:step]` along each axis of `bounds`; begin and end lie inside the dim."""
    return relax.op.strided_slice(
        tensor,
        axes=[axis for axis, *_ in bounds],
        begin=[call.prim(begin) for _, begin, _, _ in bounds],
        end=[call.prim(end) for _, _, end, _ in bounds],
        strides=[call.prim(step) for *_, step in bounds],
        assume_inbound=True,
    )


def _slice(call: Call) -> Result:
    if "starts" not in call.attributes and any(
        call.has(k) and (call.known(k) if k < 3 else call.ints(k)) is None for k in range(1, 5)
    ):
        return runtime_slice.slice_(call)
    shape, out = call.shape(0), call.out_shape()
    bounds: list[Bounds] = []
    mirrored: list[Bounds] = []
    flipped: list[int] = []
    for axis, start, step in _slice_starts(call):
        axis %= len(shape)
        if step == -1 and shape[axis] == out[axis]:
            flipped.append(axis)
        elif step < 0:
            size, count = call.fixed((shape[axis], out[axis]), f"a slice with step {step}")
            first = start + size if isinstance(start, int) and start < 0 else start
            (first,) = call.fixed([first], f"the start of a slice with step {step}")
            flipped.append(axis)  # and then forwards, from its mirror image
            begin = max(0, size - 1 - first)
            mirrored.append(_inside(axis, begin, -step, size, count))
        elif shape[axis] != out[axis]:
            bounds.append(_inside(axis, start, step, shape[axis], out[axis]))
    tensor = call.tensor(0)
    if bounds:
        tensor = call.emit(slice_axes(call, tensor, bounds))
    for axis in flipped:
        tensor = call.emit(relax.op.flip(tensor, axis))
    return slice_axes(call, tensor, mirrored) if mirrored else tensor


def _slice_starts(call: Call) -> list[tuple[int, int | Expr, int]]:
    """(axis, start, step) of each sliced axis, as the model gives them."""
    if "starts" in call.attributes:  # before operator set 10
        starts = list(call.attr("starts"))
        return [(a, s, 1) for a, s in zip(call.attr("axes", range(len(starts))), starts)]
    known = call.known(1)
    if known is None:
        raise DeclinedError("the starts are known only at run time")
    starts = [_plain(start) for start in known.flat]
    axes = call.need_ints(3, "the list of axes") if call.has(3) else list(range(len(starts)))
    steps = call.need_ints(4, "the steps") if call.has(4) else [1] * len(starts)
    return list(zip(axes, starts, steps))


def _inside(axis: int, start: int | Expr, step: int, size: int | Expr, count: int | Expr) -> Bounds:
    """Bounds of `count` elements from `start`, which may be negative or past the end."""
    if isinstance(start, int) and start < 0:
        start = maximum(0, size + start)
    if isinstance(start, int) and isinstance(size, int):
        start = min(start, size)
    if isinstance(count, int):
        end = start + max(0, (count - 1) * step + 1) if count else start
    else:
        end = start + count * step
    return axis, start, end, step


def _plain(element: object) -> int | Expr:
    return element if isinstance(element, Expr) else int(element)  # type: ignore[call-overload]


def _range(call: Call) -> Result:
    if any(call.known(k) is None for k in range(3)):
        return runtime.arange(call)
    (count,), dtype = call.out_shape(), call.dtype(0)
    limits = [call.known(index) for index in range(3)]
    if dtype in ("int32", "int64") and all(limit is not None for limit in limits):
        start, end, step = (_plain(limit.reshape(-1)[0]) for limit in limits if limit is not None)
        return relax.op.arange(call.prim(start), call.prim(end), call.prim(step), dtype)
    steps = call.emit(relax.op.arange(call.prim(0), call.prim(count), call.prim(1), "int64"))
    scaled = relax.op.multiply(call.emit(relax.op.astype(steps, dtype)), call.tensor(2))
    return relax.op.add(call.emit(scaled), call.tensor(0))


def _constant_of_shape(call: Call) -> Result:
    tensor = call.attr("value")
    value = numpy_helper.to_array(tensor).reshape(()) if tensor else np.zeros((), np.float32)
    number = relax.const(value, str(value.dtype))
    return relax.op.full(call.shape_expr(call.out_shape()), number, str(value.dtype))


def _pad(call: Call) -> Result:
    pads = list(call.attr("pads", ())) or call.known(1)
    if pads is None:
        raise DeclinedError("the padding is known only at run time")
    amounts = [_plain(amount) for amount in pads]
    rank = call.rank(0)
    axes = call.need_ints(3, "the list of axes") if call.has(3) else list(range(rank))
    begin, end = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        for side, amount in ((begin, amounts[position]), (end, amounts[position + len(axes)])):
            if isinstance(amount, Expr):
                raise DeclinedError(f"a padding of {amount} elements, which depends on a dim")
            side[axis % rank] = amount
    return _padded(call, begin, end)


def _padded(call: Call, begin: list[int], end: list[int]) -> relax.Expr:
    """Negative padding cuts off, the rest fills."""
    tensor, shape = call.tensor(0), call.shape(0)
    cuts: list[Bounds] = [
        (axis, max(0, -first), size + min(0, last), 1)
        for axis, (first, last, size) in enumerate(zip(begin, end, shape))
        if first < 0 or last < 0
    ]
    if cuts:
        tensor = call.emit(slice_axes(call, tensor, cuts))
    widths = [max(0, amount) for pair in zip(begin, end) for amount in pair]
    if not any(widths):
        return tensor
    mode = call.attr("mode", "constant")
    if mode == "wrap":
        return _wrapped(call, tensor, widths)
    value = call.scalar(2) if call.has(2) else call.attr("value", 0.0)
    if value is None and mode == "constant":
        return _filled(call, tensor, widths)
    return relax.op.nn.pad(tensor, widths, "replicate" if mode == "edge" else mode, value or 0)


def _wrapped(call: Call, tensor: relax.Expr, widths: list[int]) -> relax.Expr:
    """y[i] = x[(i - begin) modulo size]"""
    sizes = call.emit(tensor).ty.shape.values
    for axis, size in enumerate(sizes):
        first, last = widths[2 * axis : 2 * axis + 2]
        if first or last:
            if not isinstance(size, tirx.IntImm) or not size.value:
                raise DeclinedError(f"wrapping around {size} elements")
            index = call.constant(
                np.arange(-first, size.value + last) % size.value, f"wrapped_{axis}"
            )
            tensor = call.emit(relax.op.take(tensor, index, axis, mode="fast"))
    return tensor


def _filled(call: Call, tensor: relax.Expr, widths: list[int]) -> relax.Expr:
    """Padded with a number that is known only at run time."""
    tensor = call.emit(tensor)
    inside = call.emit(relax.op.ones(tensor.ty.shape, "bool"))
    padded = call.emit(relax.op.nn.pad(tensor, widths))
    mask = call.emit(relax.op.nn.pad(call.emit(relax.op.astype(inside, "uint8")), widths))
    value = call.emit(call.reshape(call.tensor(2), ()))
    return relax.op.where(call.emit(relax.op.astype(mask, "bool")), padded, value)


def _eye_like(call: Call) -> Result:
    rows, columns = call.out_shape()
    return relax.op.eye(
        call.prim(rows), call.prim(columns), call.prim(call.attr("k", 0)), call.out_dtype()
    )


def _depth_to_space(call: Call) -> Result:
    """[N, C, H, W] -> [N, C/b/b, H*b, W*b]"""
    block = call.attr("blocksize")
    n, _, height, width = call.shape(0)
    channels = call.out_shape()[1]
    if call.attr("mode", "DCR") == "DCR":
        split, perm = (n, block, block, channels, height, width), [0, 3, 4, 1, 5, 2]
    else:
        split, perm = (n, channels, block, block, height, width), [0, 1, 4, 2, 5, 3]
    parts = call.emit(call.reshape(call.tensor(0), split))
    moved = call.emit(relax.op.permute_dims(parts, perm))
    return call.reshape(moved, call.out_shape())


def _space_to_depth(call: Call) -> Result:
    """[N, C, H, W] -> [N, b*b*C, H/b, W/b]"""
    block = call.attr("blocksize")
    n, channels, _, _ = call.shape(0)
    _, _, height, width = call.out_shape()
    split = (n, channels, height, block, width, block)
    parts = call.emit(call.reshape(call.tensor(0), split))
    perm = [0, 3, 5, 1, 2, 4] if call.attr("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    moved = call.emit(relax.op.permute_dims(parts, perm))
    return call.reshape(moved, call.out_shape())


CONVERTERS: dict[str, Converter] = {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "Pad": _pad,
    "EyeLike": _eye_like,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
