"""Operators that compute some elements of their result without the others.

matmul(x, w)[.., i, :]  =  matmul(x[.., i, :], w)         products: rows and batches
norm(x)[i, :]           =  norm(x[i, :])                  norms, softmax: all but their axes
sum(x, -1)[i]           =  sum(x[i, :], -1)               reductions
(a + b)[i, j]           =  a[i, j] + b[i, j]              elementwise ones, broadcast or not
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax

from .fusible import FUSIBLE
from .prims import Prims
from .scope import Size

Interval = tuple[Size, Size]
Box = tuple[Interval, ...]
"""(begin, extent) along each axis."""

REDUCTIONS = frozenset(
    f"relax.{name}" for name in ("mean", "sum", "max", "min", "prod", "variance", "std")
)


def whole(shape: Sequence[Size]) -> Box:
    """All elements."""
    return tuple((0, size) for size in shape)


def rows_of(value: Any) -> frozenset[int]:
    """The axes of a result along which a part can be computed alone."""
    name = getattr(getattr(value, "op", None), "name", "")
    rank = len(getattr(getattr(value, "ty", None), "shape", None) or ())
    axes = frozenset(range(rank))
    if name in FUSIBLE or name in REDUCTIONS:
        return axes
    if name == "relax.matmul" and all(len(arg.ty.shape or ()) >= 2 for arg in value.args):
        return axes - {rank - 1}
    if name in ("relax.nn.softmax", "relax.nn.log_softmax"):
        return axes - {int(value.attrs.axis) % rank}
    if name == "relax.nn.layer_norm":
        return axes - {int(axis) % rank for axis in value.attrs.axes}
    return frozenset()


def operands(call: relax.Call, box: Box, prims: Prims) -> list[tuple[int, Box]] | None:
    """The tensors that a call reads to compute `box`, by their places, and of each the box.

    None if it is not known how one of them is broadcast. Raises UnmappedError for unknown shapes.
    """
    found: list[tuple[int, Box]] = []
    for place, arg in enumerate(call.args):
        if not isinstance(arg.ty, relax.TensorType):
            continue
        part = _operand(call, place, prims.shape(arg.ty), box, prims.shape(call.ty))
        if part is None:
            return None
        found.append((place, part))
    return found


def _operand(
    call: relax.Call, place: int, shape: Sequence[Size], box: Box, sizes: Sequence[Size]
) -> Box | None:
    if call.op.name in REDUCTIONS:
        return _unreduced(call, shape, box)
    if call.op.name == "relax.nn.layer_norm" and place > 0:
        return whole(shape)
    product = call.op.name == "relax.matmul"
    lead = len(shape) - (1 + place if product else 0)  # what follows is read as a whole
    part = list(whole(shape))
    for axis, size in enumerate(shape[:lead]):
        own = axis + len(sizes) - len(shape)
        if size == sizes[own]:
            part[axis] = box[own]
        elif size != 1:
            return None
    return tuple(part)


def _unreduced(call: relax.Call, shape: Sequence[Size], box: Box) -> Box:
    axes = call.attrs.axis
    every = range(len(shape))
    reduced = set(every if axes is None else (int(axis) % len(shape) for axis in axes))
    kept = [axis for axis in every if call.attrs.keepdims or axis not in reduced]
    own = dict(zip(kept, box, strict=True))
    return tuple((0, size) if k in reduced else own[k] for k, size in enumerate(shape))
