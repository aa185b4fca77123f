"""Exponentials of a softmax, whose arguments are known not to be positive.

    m[i] = max over k of v(i, k);   exp(v(i, j) - m[i])   ->   exp(min(v(i, j) - m[i], 0))

which `math` computes in two thirds of the instructions, since one factor 2^n does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var

from ..kernel.analysis import constant, substitute, variables
from ..kernel.stages import Point, Stage


def with_bounds(found: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages, with what is known about arguments of exponentials written there."""
    maxima = {
        stage.writes[0].buffer: stage
        for stage in found
        if len(stage.writes) == 1 and stage.writes[0].op == "max" and stage.epilogue is None
    }
    return tuple(_bounded(stage, maxima) for stage in found) if maxima else tuple(found)


def _bounded(stage: Stage, maxima: dict[Var, Stage]) -> Stage:
    def bound(call: Call) -> Expr:
        if getattr(call.op, "name", "") != "tirx.exp" or not isinstance(call.args[0], tirx.Sub):
            return call
        value, top = call.args[0].a, call.args[0].b
        if not (isinstance(top, TensorLoad) and top.source in maxima):
            return call
        if not _among(value, top, stage, maxima[top.source]):
            return call
        return tirx.exp(tirx.min(call.args[0], tirx.const(0, value.ty.dtype)))

    def new(expr: Expr) -> Expr:
        return tvm_ffi.structural_map(expr, (Call, bound))

    binds = tuple((var, new(value)) for var, value in stage.point.binds)
    return replace(stage, point=Point(binds, tuple(map(new, stage.point.values))))


def _among(value: Expr, top: TensorLoad, stage: Stage, maximum: Stage) -> bool:
    """Whether `value`, in `stage`, is one of those that `maximum` goes over for element `top`."""
    fixed = set().union(*map(variables, top.indices)) if top.indices else set()
    free = [axis for axis in stage.axes if axis.var not in fixed]
    if len(free) != len(maximum.reduce) or maximum.limits:
        return False
    same = tvm_ffi.structural_equal
    if not all(same(a.extent, b.extent) for a, b in zip(free, maximum.reduce)):
        return False
    places: dict[Var, Expr] = {b.var: a.var for a, b in zip(free, maximum.reduce)}
    for own, index in zip(maximum.writes[0].indices, top.indices):
        if isinstance(own, Var):
            places[own] = index
        elif constant(own) != constant(index):
            return False
    return same(substitute(_whole(maximum, maximum.point.values[0]), places), _whole(stage, value))


def _whole(stage: Stage, value: Expr) -> Expr:
    """`value` in terms of what is loaded."""
    for var, bound in reversed(stage.point.binds):
        value = substitute(value, {var: bound})
    return value
