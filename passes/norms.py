"""Lowerings of norms over single rows, in two passes over the row.

    mean = sum(x) / n;  variance = sum((x - mean)^2) / n
    y = (x - mean) / sqrt(variance + epsilon) * scale[channel] + offset[channel]

TVM's instance_norm and group_norm take the variance as the mean of x^2 less mean^2: nothing but
rounding where the mean is large, and a loop with two results, of which no rule makes vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tvm import relax, te, tirx, topi
from tvm.ir import Expr

from .virtual.emit import view


def instance_norm(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A row is an instance's channel."""
    rank = len(call.args[0].ty.shape)
    axes = [int(axis) % rank for axis in call.attrs.axes]
    return _normalized(builder, call, call.args[0], axes, [int(call.attrs.channel_axis) % rank])


def group_norm(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A row is an instance's group of channels: the channel axis becomes two, which is a view."""
    shape = list(call.args[0].ty.shape)
    axis, groups = int(call.attrs.channel_axis) % len(shape), int(call.attrs.num_groups)
    split = [*shape[:axis], groups, tirx.floordiv(shape[axis], groups), *shape[axis + 1 :]]
    axes = [int(a) % len(shape) for a in call.attrs.axes]
    axes = sorted([axis + 1, *(a + (a > axis) for a in axes)])
    grouped = builder.emit(view(builder, call.args[0], split))
    result = builder.emit(_normalized(builder, call, grouped, axes, [axis, axis + 1]))
    return view(builder, result, shape)


def _normalized(
    builder: relax.BlockBuilder,
    call: relax.Call,
    data: relax.Expr,
    axes: Sequence[int],
    channel: Sequence[int],
) -> relax.Expr:
    """`data` normalized over `axes`; scale and offset are indexed by the axes `channel` as one."""
    dtype, epsilon = str(call.ty.dtype), float(call.attrs.epsilon)
    center = bool(getattr(call.attrs, "center", True))
    scaled = bool(getattr(call.attrs, "scale", True))

    def compute(x: te.Tensor, scale: te.Tensor, offset: te.Tensor) -> te.Tensor:
        rows = [axis for axis in range(len(x.shape)) if axis not in axes]
        count = tirx.Cast("float32", prod(x.shape[axis] for axis in axes))
        wide = topi.cast(x, "float32") if dtype != "float32" else x

        def mean(value: Any, name: str) -> te.Tensor:
            ks = {axis: te.reduce_axis((0, x.shape[axis]), f"k{axis}") for axis in axes}

            def total(*row: Expr) -> Expr:
                at = {**dict(zip(rows, row)), **ks}
                index = [at[axis] for axis in range(len(x.shape))]
                return te.sum(value(index, row), axis=list(ks.values()))

            sums = te.compute([x.shape[axis] for axis in rows], total, name=f"{name}_sum")
            return te.compute(sums.shape, lambda *row: sums(*row) / count, name=name)

        means = mean(lambda at, _: wide(*at), "mean")
        variance = mean(
            lambda at, row: (wide(*at) - means(*row)) * (wide(*at) - means(*row)), "variance"
        )

        def element(*at: Expr) -> Expr:
            row = [at[axis] for axis in rows]
            number: Expr = tirx.const(0, "int64")
            for axis in channel:
                number = number * x.shape[axis] + at[axis]
            deviation = tirx.rsqrt(variance(*row) + tirx.const(epsilon, "float32"))
            value = ((wide(*at) - means(*row)) * deviation).astype(dtype)
            value = value * scale(number) if scaled else value
            return value + offset(number) if center else value

        return te.compute(x.shape, element, name="normalized")

    return builder.call_te(compute, data, *call.args[1:3], primfunc_name_hint="norm")


LOWERINGS = {"relax.nn.instance_norm": instance_norm, "relax.nn.group_norm": group_norm}
