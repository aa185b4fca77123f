"""Conditions out of the inner loop: an axis is cut where a condition along it changes.

concat, pad    y[i] = a[i] if i < n else b[i - n]     two stages, i < n and i >= n
padded window  y[i] = max over k of (x[i + k] if 0 <= i + k < n else -inf)
               k runs from max(0, -i) to min(K, n - i), without a condition
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Call, Expr, Var

from ..kernel.analysis import (
    SPATIAL,
    Axis,
    analyzer,
    collect,
    constant,
    substitute,
    variables,
)
from ..kernel.stages import Point, Stage

MOST_SEGMENTS = 64
"""Stages that one stage may be cut into; each is code of its own."""


def cut(stage: Stage) -> list[Stage]:
    """The stage in pieces such that conditions along single axes are decided in each.

    The pieces cover the axes' ranges without overlap, so that their order does not matter.
    """
    if stage.is_reduction:
        return [_limited(stage)]
    pieces: list[Stage] = [stage]
    done: list[Stage] = []
    while pieces:
        piece = pieces.pop()
        found = (
            place(piece.point.exprs(), piece.axes)
            if len(pieces) + len(done) < MOST_SEGMENTS
            else None
        )
        if found is None:
            done.append(piece)
        else:
            pieces += _halves(piece, *found)
    return done


def place(exprs: Iterable[Expr], axes: Sequence[Axis]) -> tuple[Axis, Expr] | None:
    """A spatial axis and where to cut it: the first condition that changes along it, inside."""
    ana = analyzer(axes)
    own = {axis.var for axis in axes}
    for atom in (a for c in _conditions(exprs) for a in _atoms(c)):
        for axis in (axis for axis in axes if axis.kind == SPATIAL):
            for at in _changes(atom, axis.var, ana):
                inside = tirx.And(at > 0, at < axis.extent)
                if not variables(at) & own and ana.can_prove(inside):
                    return axis, at
    return None


def _halves(stage: Stage, axis: Axis, at: Expr) -> list[Stage]:
    simplify = sym.Analyzer().simplify
    pieces = []
    for start, extent in ((tirx.const(0, "int64"), at), (at, simplify(axis.extent - at))):
        var = Var(axis.var.name, axis.var.ty)
        own = replace(axis, var=var, extent=extent)
        values = {axis.var: var + start}
        spatial = tuple(own if a is axis else a for a in stage.spatial)
        ana = analyzer((*spatial, *stage.reduce))
        point = stage.point.at(values)
        writes = tuple(
            replace(w, indices=tuple(ana.simplify(substitute(i, values)) for i in w.indices))
            for w in stage.writes
        )
        pieces.append(replace(stage, spatial=spatial, writes=writes, point=_decided(point, ana)))
    return pieces


def _decided(point: Point, ana: sym.Analyzer) -> Point:
    """The code without the conditions that the axes' ranges decide, indices simplified."""

    def visit(call: Call) -> Expr:
        if getattr(call.op, "name", "") != "prim.if_then_else":
            return call
        known = constant(ana.simplify(call.args[0]))
        return call if known is None else call.args[1 if known else 2]

    def code(expr: Expr) -> Expr:
        return tvm_ffi.structural_map(expr, (Call, visit))

    return Point(tuple((v, code(e)) for v, e in point.binds), tuple(map(code, point.values)))


def _conditions(exprs: Iterable[Expr]) -> list[Expr]:
    return [
        call.args[0]
        for expr in exprs
        for call in collect(expr, Call)
        if getattr(call.op, "name", "") == "prim.if_then_else"
    ]


def _atoms(condition: Expr) -> list[Expr]:
    """The comparisons that a condition is made of."""
    if isinstance(condition, tirx.And | tirx.Or):
        return _atoms(condition.a) + _atoms(condition.b)
    return [condition]


def _changes(atom: Expr, var: Var, ana: sym.Analyzer) -> list[Expr]:
    """Where `atom` may change along `var`."""
    if isinstance(atom, tirx.EQ | tirx.NE):
        if var not in variables(atom) or "int" not in str(atom.a.ty.dtype):
            return []
        # 1 <= i has become i == 1 where i < 2.
        limits = [_limit(atom.a >= atom.b, var, ana), _limit(atom.a > atom.b, var, ana)]
    else:
        limits = [_limit(atom, var, ana)]
    return [limit[1] for limit in limits if limit is not None]


def _limit(atom: Expr, var: Var, ana: sym.Analyzer) -> tuple[str, Expr] | None:
    """("low", e) if `atom` says ``var >= e``, ("high", e) if it says ``var < e``, else None."""
    sides = {tirx.LE: (0, 1), tirx.LT: (0, 1), tirx.GE: (1, 0), tirx.GT: (1, 0)}.get(type(atom))
    if sides is None:
        return None
    less, more = ((atom.a, atom.b)[side] for side in sides)
    gap = less - more + (1 if isinstance(atom, tirx.LT | tirx.GT) else 0)  # atom: gap <= 0
    if "int" not in str(gap.ty.dtype):
        return None
    step = constant(ana.simplify(substitute(gap, {var: var + 1}) - gap))
    rest = substitute(gap, {var: tirx.const(0, var.ty.dtype)})
    if step == 1:  # var + rest <= 0
        return "high", ana.simplify(1 - rest)
    if step == -1:  # rest - var <= 0
        return "low", ana.simplify(rest)
    return None


def _limited(stage: Stage) -> Stage:
    """A reduction whose guards become limits of its own loops, where they add nothing outside."""
    if len(stage.writes) != 1 or not stage.writes[0].op:
        return stage
    value = dict(stage.point.binds).get(stage.point.values[0], stage.point.values[0])
    init = stage.writes[0].init
    if getattr(getattr(value, "op", None), "name", "") != "prim.if_then_else":
        return stage
    condition, inside, outside = value.args
    if not tvm_ffi.structural_equal(outside, init):
        return stage
    if len(stage.point.binds) > 1 or collect(condition, tirx.Or):
        return stage
    ana = analyzer(stage.axes)
    limits = []
    for atom in _atoms(condition):
        own = [axis for axis in stage.reduce if axis.var in variables(atom)]
        limit = _limit(atom, own[0].var, ana) if len(own) == 1 else None
        if limit is None:
            return stage
        limits.append((own[0].var, *limit))
    return replace(stage, point=Point((), (inside,)), limits=tuple(limits))
