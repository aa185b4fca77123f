"""Reductions inside a row, in one of three ways.

lanes     the last reduction axis is contiguous: partial results in the lanes of a vector, joined
          at the end by halves (LLVM does not reassociate floats, so this is spelled out), products
          of integers one by one, which LLVM puts in order itself
columns   another axis is contiguous: one result per lane, the reduction loops inside
scalar    neither: the loops as they stand, the result in a register
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import BufferStore, ForKind, Stmt

from ..kernel import loops
from ..kernel.analysis import Axis, collect, constant, substitute
from ..kernel.axes import Group, fused, merged, tiles
from ..kernel.loops import int64, sequence
from ..kernel.stages import COMBINE
from .inside import Inside


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
    """The last reduction axis in vectors of partial results.

    What is left over at its end has narrower vectors of their own, one for each bit of its length:
    they join the others where those are as narrow.
    """
    *outer, last = merged(inside.stage, list(inside.stage.reduce))
    width = inside.plan.lanes * inside.plan.unroll
    size = constant(last.extent)
    rests = [w for w in _below(width) if size is None or size & w]

    def at(values: dict[Var, Expr]) -> Stmt:
        accs = {w: inside.accumulators(w) for w in (width, *rests)}

        def steps(ks: dict[Var, Expr]) -> Stmt:
            def vector(base: Expr, width: int) -> Stmt:
                return loops.vector(
                    width,
                    lambda lane: inside.step(accs[width], lane, values | ks | last.at(base + lane)),
                )

            def rest(w: int) -> Stmt:
                step = vector(last.extent // (2 * w) * (2 * w), w)
                there = tirx.floormod(last.extent // w, int64(2)).equal(1)
                return step if size is not None else tirx.IfThenElse(there, step, None)

            parts = [rest(w) for w in rests]
            if size is None or size >= width:
                whole = loops.loop(last.extent // width, lambda o: vector(o * width, width))
                parts.insert(0, whole)
            return sequence(parts)

        def start(w: int) -> Stmt:
            return loops.vector(w, lambda lane: inside.start(accs[w], lane))

        all_steps = _reduction(inside, outer, values, steps)
        done = inside.finish([acc[int64(0)] for acc in accs[width]], values)
        return sequence([*map(start, accs), all_steps, *_joined(inside, accs, width), done])

    return _over(inside.inner, inside.kind, at)


def _below(width: int) -> list[int]:
    """The powers of two below a power of two, largest first."""
    return [1 << bit for bit in reversed(range(width.bit_length() - 1))]


def _joined(inside: Inside, accs: dict[int, list[Var]], width: int) -> list[Stmt]:
    """The partial results become one.

    Not by halves where they are products of integers: LLVM 22 takes the first half of such a sum of
    products of bytes for the whole of it (its vpdpbusd).
    """
    joins = []

    def join(w: int, others: Sequence[Var], start: int) -> None:
        for acc, other, write in zip(accs[width], others, inside.stage.writes):
            combine = COMBINE[write.op or ""]

            def lane(
                i: Expr, acc: Var = acc, other: Var = other, combine: Callable = combine
            ) -> Stmt:
                return BufferStore(acc, combine(acc[i], other[i + start]), [i])

            joins.append(loops.vector(w, lane))

    if _multiplies_integers(inside, accs[width]):
        for w, others in accs.items():
            for i in range(int(w == width), w):
                join(1, others, i)
        return joins
    for w in _below(width):
        join(w, accs[width], w)
        if w in accs:
            join(w, accs[w], 0)
    return joins


def _multiplies_integers(inside: Inside, accs: Sequence[Var]) -> bool:
    """Whether what is added up holds products of integers; indices of loads do not count."""
    if not all(str(acc.dtype).startswith(("int", "uint")) for acc in accs):
        return False
    values = inside.stage.point.map(lambda load: Var("loaded", load.ty))
    return any(collect(expr, tirx.Mul) for expr in values.exprs())


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
