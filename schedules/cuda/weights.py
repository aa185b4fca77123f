"""Weights turned at compile time, so that neighbours in memory are neighbours along chosen axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from ..kernel.analysis import Axis, constant, replace_loads
from ..kernel.contraction import Contraction
from ..rule import Kernel, Layout


@dataclass(frozen=True, eq=False)
class Turned:
    """Parameter `position` as `buffer`, of the new layout, and the right operand read from it."""

    position: int
    buffer: Var
    layout: Layout
    value: Expr


def turned(kernel: Kernel, found: Contraction, last: Sequence[Axis]) -> Turned | None:
    """The right operand with the axes `last` innermost, if it is a weight that is read in place."""
    position = found.constant_rhs(kernel)
    if position is None or found.rhs.load is None:
        return None
    load = found.rhs.load
    shape = [constant(n) for n in load.source.shape]
    dims: dict[Var, int] = {}
    for dim, at in enumerate(load.indices):
        if isinstance(at, Var):
            dims[at] = dim
        elif shape[dim] != 1:
            return None
    inner = [dims[axis.var] for axis in last if axis.var in dims]
    if len(inner) != len(last) or None in shape:
        return None
    order = [dim for dim in range(len(shape)) if dim not in inner] + inner
    sizes = tuple(shape[dim] or 0 for dim in order)
    old = load.source
    extents = [tirx.const(n, "int64") for n in sizes]
    buffer = tirx.decl_buffer(extents, str(old.ty.dtype), old.name)
    turn = tirx.IndexMap.from_func(
        lambda *at: [at[dim] for dim in order], ndim=len(order), index_dtype="int64"
    )
    value = replace_loads(
        found.rhs.value, old, lambda at: tirx.BufferLoad(buffer, [at[dim] for dim in order])
    )
    return Turned(position, buffer, Layout(turn, sizes), value)


def with_weight(func: tirx.PrimFunc, weight: Turned | None) -> tuple[list[Var], dict[int, Layout]]:
    """The parameters of `func` with a turned weight among them, and the layouts to ask for."""
    params = list(func.params)
    if weight is None:
        return params, {}
    params[weight.position] = weight.buffer
    return params, {weight.position: weight.layout}
