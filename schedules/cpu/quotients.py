"""Divisions out of the inner loop: an axis whose elements are repeated is split in two.

    y[.., i] = x[.., i // s]    becomes    y[.., s o + r] = x[.., o]

Nearest neighbours and repeats are of this kind. Vectors along `r` then repeat one element, where
vectors along `i` would gather theirs one by one.
"""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm_ffi import structural_map

from ..kernel.analysis import SPATIAL, Axis, analyzer, collect, constant, substitute, variables
from ..kernel.stages import Point, Stage

MOST = 8
"""The largest divisor: what repeats more often is better stored in whole vectors."""


def split(stage: Stage) -> Stage:
    """The stage with its last axis split, if all loads that move along it divide it by one size."""
    if stage.is_reduction or not stage.spatial:
        return stage
    axis = stage.spatial[-1]
    size = _divisor(stage, axis)
    if size is None:
        return stage
    outer, inner = Var(f"{axis.var.name}_o", axis.var.ty), Var(f"{axis.var.name}_r", axis.var.ty)
    count = analyzer(stage.axes).simplify(axis.extent // size)
    axes = (
        *stage.spatial[:-1],
        Axis(outer, count, SPATIAL),
        Axis(inner, tirx.const(size, "int64"), SPATIAL),
    )
    ana = analyzer(axes)
    values = {axis.var: outer * size + inner}

    def simplified(load: TensorLoad) -> Expr:
        return tirx.BufferLoad(load.source, [ana.simplify(i) for i in load.indices])

    point = stage.point.at(values)
    binds = tuple((v, structural_map(e, (TensorLoad, simplified))) for v, e in point.binds)
    results = tuple(structural_map(e, (TensorLoad, simplified)) for e in point.values)
    writes = tuple(
        replace(w, indices=tuple(substitute(i, values) for i in w.indices)) for w in stage.writes
    )
    return replace(stage, spatial=axes, writes=writes, point=Point(binds, results))


def _divisor(stage: Stage, axis: Axis) -> int | None:
    """`s` if every load that moves along the axis has only ``axis // s`` of it, and it fits."""

    def divides(node: tirx.FloorDiv) -> bool:
        return bool(node.a.same_as(axis.var)) and constant(node.b) is not None

    found: set[int] = set()
    for at in (list(load.indices) for load in stage.point.loads()):
        found |= {int(node.b.value) for node in collect(at, tirx.FloorDiv) if divides(node)}
        rest = structural_map(at, (tirx.FloorDiv, lambda q: q.b if divides(q) else q))
        if axis.var in variables(rest):
            return None
    if len(found) != 1:
        return None
    (size,) = found
    fits = 1 < size <= MOST and analyzer(stage.axes).can_prove_equal(axis.extent % size, 0)
    return size if fits else None
