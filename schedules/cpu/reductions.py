"""Reductions inside a row, in one of three ways.

lanes     the last reduction axis is contiguous: partial results in the lanes of a vector, joined
          by halves at the end (LLVM does not reassociate floats, so this is spelled out)
columns   another axis is contiguous: one result per lane, the reduction loops inside
scalar    neither: the loops as they stand, the result in a register
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import BufferStore, ForKind, Stmt

from ..analysis import Axis, constant, substitute
from . import loops
from .axes import Group, fused, merged, tiles
from .inside import COMBINE, Inside
from .loops import int64, sequence


def emit_scalar(inside: Inside) -> Stmt:
    """Serial loops, the results of one element in registers."""
    groups = [Group((axis,), axis.extent) for axis in inside.stage.reduce]

    def at(values: dict[Var, Expr]) -> Stmt:
        accs = inside.accumulators(1)
        zero = int64(0)
        steps = _reduction(inside, groups, values, lambda ks: inside.step(accs, zero, values | ks))
        done = inside.finish([acc[zero] for acc in accs], values)
        return sequence([inside.start(accs, zero), steps, done])

    return _over(inside.inner, inside.kind, at)


def emit_columns(inside: Inside) -> Stmt:
    """The last inner axis in vectors, the reduction loops inside."""
    *outer, last = inside.inner
    groups = merged(inside.stage, list(inside.stage.reduce))
    width = inside.plan.lanes * inside.plan.unroll

    def tile(values: dict[Var, Expr], base: Expr, width: int) -> Stmt:
        accs = inside.accumulators(width)

        def sweep(body: Callable[[Expr, dict[Var, Expr]], Stmt]) -> Stmt:
            return loops.vector(width, lambda lane: body(lane, values | {last.var: base + lane}))

        start = sweep(lambda lane, _: inside.start(accs, lane))
        steps = _reduction(
            inside,
            groups,
            values,
            lambda ks: sweep(lambda lane, at: inside.step(accs, lane, at | ks)),
        )
        done = sweep(lambda lane, at: inside.finish([acc[lane] for acc in accs], at))
        return sequence([start, steps, done])

    kind = ForKind.SERIAL if outer else inside.kind
    return _over(
        outer,
        inside.kind,
        lambda values: tiles(
            last.extent, width, inside.plan.lanes, lambda b, w: tile(values, b, w), kind
        ),
    )


def emit_lanes(inside: Inside) -> Stmt:
    """The last reduction axis in vectors of partial results."""
    *outer, last = merged(inside.stage, list(inside.stage.reduce))
    width = inside.plan.lanes * inside.plan.unroll

    def at(values: dict[Var, Expr]) -> Stmt:
        accs = inside.accumulators(width)

        def steps(ks: dict[Var, Expr]) -> Stmt:
            def vector(base: Expr, width: int) -> Stmt:
                return loops.vector(
                    width,
                    lambda lane: inside.step(accs, lane, values | ks | last.at(base + lane)),
                )

            return tiles(last.extent, width, inside.plan.lanes, vector)

        start = loops.vector(width, lambda lane: inside.start(accs, lane))
        all_steps = _reduction(inside, outer, values, steps)
        done = inside.finish([acc[int64(0)] for acc in accs], values)
        return sequence([start, all_steps, *_halves(inside, accs, width), done])

    return _over(inside.inner, inside.kind, at)


def _halves(inside: Inside, accs: Sequence[Var], width: int) -> list[Stmt]:
    """The upper half of the partial results joins the lower one until a single one is left."""
    joins = []
    while width > 1:
        width //= 2
        for acc, write in zip(accs, inside.stage.writes):

            def join(
                lane: Expr, acc: Var = acc, op: str = write.op or "", half: int = width
            ) -> Stmt:
                return BufferStore(acc, COMBINE[op](acc[lane], acc[lane + half]), [lane])

            joins.append(loops.vector(width, join))
    return joins


def _reduction(
    inside: Inside,
    groups: Sequence[Group],
    values: dict[Var, Expr],
    body: Callable[[dict[Var, Expr]], Stmt],
) -> Stmt:
    """Serial loops over groups of reduction axes, within the stage's limits."""
    ranges = [_range(inside, group, values) for group in groups]

    def at(indices: Sequence[Expr]) -> Stmt:
        ks: dict[Var, Expr] = {}
        for group, index, (low, _) in zip(groups, indices, ranges):
            ks |= group.at(index if constant(low) == 0 else index + low)
        return body(ks)

    return loops.nest([h if constant(low) == 0 else h - low for low, h in ranges], at)


def _range(inside: Inside, group: Group, values: dict[Var, Expr]) -> tuple[Expr, Expr]:
    """Where the loop over a group starts and ends."""
    low, high = int64(0), group.extent
    for var, side, limit in inside.stage.limits:
        if var.same_as(group.axes[-1].var):
            limit = substitute(limit, inside.rows | values)
            low = tirx.max(low, limit) if side == "low" else low
            high = tirx.min(high, limit) if side == "high" else high
    return low, high


def _over(axes: Sequence[Axis], kind: ForKind, body: Callable[[dict[Var, Expr]], Stmt]) -> Stmt:
    """Loops over spatial axes: one for all if it is to be spread over the cores."""

    def at(indices: Sequence[Expr]) -> Stmt:
        return body({axis.var: index for axis, index in zip(axes, indices)})

    extents = [axis.extent for axis in axes]
    if axes and kind == ForKind.PARALLEL:
        return fused(extents, at, kind)
    return loops.nest(extents, at)
