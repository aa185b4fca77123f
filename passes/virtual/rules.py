"""Relax movement operators as operations on virtual tensors: one rule each.

A rule gets the call and an `Operands`, through which it reads its arguments as virtual tensors and
its sizes as the algebra's. It returns the result, or a list of them for an operator with several
outputs, and raises `UnmappedError` where the call is not a known map of indices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from tvm import relax, tirx

from tvmext.frontends.dims import Expr, maximum, minimum, product, substitute

from . import operations as ops
from .gather import gather_elements, gather_nd, take
from .piece import local
from .prims import Prims, UnmappedError
from .scatter import scatter_elements, scatter_nd
from .scope import Size
from .tensor import VirtualTensor, filled

Result = VirtualTensor | list[VirtualTensor]
Rule = Callable[[Any, "Operands"], Result]


class Operands(Protocol):
    """How a rule reads the arguments of its call."""

    prims: Prims

    def tensor(self, expr: relax.Expr) -> VirtualTensor:
        """The argument as a virtual tensor; a physical one if nothing moved it."""
        ...

    def stored(self, expr: relax.Expr) -> VirtualTensor:
        """The argument as a physical tensor, whatever made it."""
        ...

    def values(self, expr: relax.Expr) -> np.ndarray | None:
        """The elements of an argument that is a constant."""
        ...


def rule_of(call: Any) -> Rule | None:
    """The rule of a call, if its operator has one."""
    return RULES.get(getattr(getattr(call, "op", None), "name", ""))


def _reshape(call: Any, operands: Operands) -> VirtualTensor:
    return ops.reshape(operands.tensor(call.args[0]), operands.prims.shape(call.ty))


def _permute(call: Any, operands: Operands) -> VirtualTensor:
    x, axes = operands.tensor(call.args[0]), call.attrs.axes
    return ops.permute(x, range(x.rank)[::-1] if axes is None else [int(a) for a in axes])


def _broadcast(call: Any, operands: Operands) -> VirtualTensor:
    x, shape = operands.tensor(call.args[0]), operands.prims.shape(call.ty)
    for size, target in zip(x.shape, shape[len(shape) - x.rank :], strict=True):
        if size not in (1, target):
            raise UnmappedError(f"whether {size} is 1 or {target} is known only at run time")
    return ops.broadcast(x, shape)


def _concat(call: Any, operands: Operands) -> VirtualTensor:
    return ops.concat(_parts(call, operands), int(call.attrs.axis or 0))


def _stack(call: Any, operands: Operands) -> VirtualTensor:
    return ops.stack(_parts(call, operands), int(call.attrs.axis or 0))


def _parts(call: Any, operands: Operands) -> list[VirtualTensor]:
    if not isinstance(call.args[0], relax.Tuple):
        raise UnmappedError("the parts are not listed")
    return [operands.tensor(field) for field in call.args[0].fields]


def _count(x: VirtualTensor) -> Size:
    return product(x.shape)


def _split(call: Any, operands: Operands) -> list[VirtualTensor]:
    x, axis = operands.tensor(call.args[0]), int(call.attrs.axis)
    sizes = [operands.prims.shape(field)[axis] for field in call.ty.fields]
    return ops.split(x, sizes, axis)


def _strided_slice(call: Any, operands: Operands) -> VirtualTensor:
    x, shape = operands.tensor(call.args[0]), operands.prims.shape(call.ty)
    axes, begins = (_prims(arg, operands) for arg in call.args[1:3])
    strides = _prims(call.args[4], operands) if len(call.args) > 4 else [1] * len(axes)
    for axis, begin, step in zip(axes, begins, strides, strict=True):
        if isinstance(axis, Expr) or isinstance(step, Expr):
            raise UnmappedError("an axis or step is known only at run time")
        begin = _begin(begin, x.shape[axis], step, bool(call.attrs.assume_inbound))
        x = ops.slices(x, axis, begin, shape[axis], step)
    return x


def _dynamic_strided_slice(call: Any, operands: Operands) -> VirtualTensor:
    x, shape = operands.tensor(call.args[0]), operands.prims.shape(call.ty)
    begins, strides = operands.values(call.args[1]), operands.values(call.args[3])
    if begins is None or strides is None:
        raise UnmappedError("the bounds are known only at run time")
    for axis, (begin, step) in enumerate(zip(begins.tolist(), strides.tolist(), strict=True)):
        x = ops.slices(x, axis, _begin(begin, x.shape[axis], step, False), shape[axis], step)
    return x


def _prims(arg: Any, operands: Operands) -> list[Size]:
    """The integers of a tuple of primitive values."""
    return [operands.prims.size(getattr(field, "value", field)) for field in arg.fields]


def _begin(begin: Size, size: Size, step: int, inside: bool) -> Size:
    """The first index, counted from the front and moved to the nearest end of the axis."""
    if inside or begin == 0:
        return begin
    if isinstance(begin, Expr):
        raise UnmappedError(f"the sign of {begin} is known only at run time")
    if begin < 0:
        return maximum(size + begin, 0)
    # with a positive step, a first index past the end leaves no element to ask for
    return begin if step > 0 else minimum(begin, size - 1)


def _pad(call: Any, operands: Operands) -> VirtualTensor:
    x, attrs = operands.tensor(call.args[0]), call.attrs
    widths = [int(width) for width in attrs.pad_width]
    before, after = widths[0::2], widths[1::2]
    if attrs.pad_mode == "constant":
        return ops.pad(x, before, after, _number(attrs.pad_value, call))
    mode = {"replicate": "edge", "reflect": "reflect", "circular": "wrap"}.get(attrs.pad_mode)
    if mode is None or min(widths) < 0:
        raise UnmappedError(f"padding of mode {attrs.pad_mode} by {widths}")
    return ops.pad_edges(x, before, after, mode)


def _tile(call: Any, operands: Operands) -> VirtualTensor:
    x, repeats = operands.tensor(call.args[0]), [int(n) for n in call.attrs.repeats]
    rank = max(x.rank, len(repeats))
    x = ops.reshape(x, (1,) * (rank - x.rank) + x.shape)
    return ops.tile(x, [1] * (rank - len(repeats)) + repeats)


def _repeat(call: Any, operands: Operands) -> VirtualTensor:
    x, times = operands.tensor(call.args[0]), int(call.attrs.repeats)
    if call.attrs.axis is None:
        return ops.repeat(ops.reshape(x, [_count(x)]), times, 0)
    return ops.repeat(x, times, int(call.attrs.axis))


def _flip(call: Any, operands: Operands) -> VirtualTensor:
    return ops.flip(operands.tensor(call.args[0]), int(call.attrs.axis))


def _layout_transform(call: Any, operands: Operands) -> VirtualTensor:
    x = operands.tensor(call.args[0])
    if call.attrs.pad_value is not None or not all(isinstance(n, int) for n in x.shape):
        raise UnmappedError("a layout with padding or symbolic sizes")
    inverse = call.attrs.index_map.inverse([tirx.IntImm("int64", n) for n in x.shape])
    prims = Prims()
    names = {str(prims.size(v)): local(k) for k, v in enumerate(inverse.initial_indices)}
    index = [substitute(prims.size(i), names) for i in inverse.final_indices]
    return x.remap(operands.prims.shape(call.ty), index)


def _pixel_shuffle(call: Any, operands: Operands) -> VirtualTensor:
    x, factor = operands.tensor(call.args[0]), int(call.attrs.upscale_factor)
    if x.rank != 4:
        raise UnmappedError(f"pixel_shuffle of rank {x.rank}")
    return ops.depth_to_space(x, factor, "CRD")


def _full(call: Any, operands: Operands) -> VirtualTensor:
    value = operands.values(call.args[1])
    if value is None:
        raise UnmappedError("the value is known only at run time")
    return filled(operands.prims.shape(call.ty), value.item())


def _zeros(call: Any, operands: Operands) -> VirtualTensor:
    return filled(operands.prims.shape(call.ty), _number(0, call))


def _ones(call: Any, operands: Operands) -> VirtualTensor:
    return filled(operands.prims.shape(call.ty), _number(1, call))


def _number(value: Any, call: Any) -> float | int:
    """The value in the arithmetic of the call's dtype."""
    return float(value) if str(call.ty.dtype).startswith(("float", "bfloat")) else int(value)


def _triangle(call: Any, operands: Operands) -> VirtualTensor:
    x, k = operands.tensor(call.args[0]), operands.prims.size(call.args[1].value)
    return ops.triangle(x, k, call.op.name == "relax.triu", _number(0, call))


def _take(call: Any, operands: Operands) -> VirtualTensor:
    x, indices = call.args
    return take(operands.tensor(x), operands, indices, int(call.attrs.axis or 0), call.attrs.mode)


def _gather_elements(call: Any, operands: Operands) -> VirtualTensor:
    x, indices = call.args
    return gather_elements(operands.tensor(x), operands, indices, int(call.attrs.axis))


def _gather_nd(call: Any, operands: Operands) -> VirtualTensor:
    x, indices = call.args
    return gather_nd(operands.tensor(x), operands, indices, int(call.attrs.batch_dims))


def _scatter_nd(call: Any, operands: Operands) -> VirtualTensor:
    data, indices, updates = call.args
    _overwriting(call)
    return scatter_nd(operands.tensor(data), operands, indices, operands.tensor(updates))


def _scatter_elements(call: Any, operands: Operands) -> VirtualTensor:
    data, indices, updates = call.args
    _overwriting(call)
    axis = int(call.attrs.axis)
    return scatter_elements(
        operands.tensor(data), operands, indices, operands.tensor(updates), axis
    )


def _overwriting(call: Any) -> None:
    if call.attrs.reduction != "update":
        raise UnmappedError(f"a scatter that combines by '{call.attrs.reduction}'")


_BY_NAME: dict[str, Rule] = {
    "reshape": _reshape,
    "flatten": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "permute_dims": _permute,
    "broadcast_to": _broadcast,
    "concat": _concat,
    "stack": _stack,
    "split": _split,
    "strided_slice": _strided_slice,
    "dynamic_strided_slice": _dynamic_strided_slice,
    "nn.pad": _pad,
    "tile": _tile,
    "repeat": _repeat,
    "flip": _flip,
    "layout_transform": _layout_transform,
    "nn.pixel_shuffle": _pixel_shuffle,
    "full": _full,
    "zeros": _zeros,
    "ones": _ones,
    "tril": _triangle,
    "triu": _triangle,
    "take": _take,
    "gather_elements": _gather_elements,
    "gather_nd": _gather_nd,
    "scatter_nd": _scatter_nd,
    "scatter_elements": _scatter_elements,
}

RULES: Mapping[str, Rule] = {f"relax.{name}": rule for name, rule in _BY_NAME.items()}
"""The rule of each operator, by its name in Relax."""
