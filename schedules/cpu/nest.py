"""Stages that share outer loops: rows outside, what happens in a row inside.

for row in rows:           parallel where it pays
    stage 1 of the row     its result stays in a row buffer
    ...
    stage n of the row
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import ForKind, Stmt

from ..analysis import constant
from . import loops
from .access import Homes, flattened, relocated, with_reciprocals
from .axes import fused, joined, product, spread
from .decision import NestPlan
from .inside import Inside
from .loops import local, scope, sequence
from .maps import emit_map, emit_transpose
from .reductions import emit_columns, emit_lanes, emit_scalar
from .stages import Stage, Write

EMIT = {
    "map": emit_map,
    "transpose": emit_transpose,
    "lanes": emit_lanes,
    "columns": emit_columns,
    "scalar": emit_scalar,
}


def emit(func: tirx.PrimFunc, found: Sequence[Stage], plans: Sequence[NestPlan]) -> tirx.PrimFunc:
    """The function that computes `found` as the plans say."""
    shared = _shared(found, plans) - set(func.params)
    homes: dict[Var, tuple[Var, tuple[int, ...]]] = {}
    for buffer in sorted(shared, key=lambda buffer: buffer.name):
        dims = tuple(range(len(buffer.shape)))
        homes[buffer] = _stand_in(buffer, dims), dims
    buffers = [home for home, _ in homes.values()]
    found = [relocated(stage, homes) for stage in found]
    outside = {*func.params, *buffers}
    body = sequence([_nest([found[s] for s in p.stages], p, outside) for p in plans])
    return loops.function(func, body, buffers)


def _shared(found: Sequence[Stage], plans: Sequence[NestPlan]) -> set[Var]:
    """Buffers that one nest writes and another reads."""
    home = {
        write.buffer: number
        for number, plan in enumerate(plans)
        for s in plan.stages
        for write in stores(found[s])
    }
    return {
        load.source
        for number, plan in enumerate(plans)
        for s in plan.stages
        for load in loads(found[s])
        if home.get(load.source, number) != number
    }


def stores(stage: Stage) -> tuple[Write, ...]:
    """What a stage leaves in memory: the epilogue's stores if it has one."""
    return stage.epilogue.writes if stage.epilogue else stage.writes


def loads(stage: Stage) -> list[TensorLoad]:
    """Every load of a stage, its epilogue's loads of the reduction itself left out."""
    found = stage.point.loads()
    if stage.epilogue:
        own = {write.buffer for write in stage.writes}
        found += [load for load in stage.epilogue.point.loads() if load.source not in own]
    return found


def _nest(stages: Sequence[Stage], plan: NestPlan, outside: set[Var]) -> Stmt:
    """The loops over rows around the stages of one nest."""
    homes = _row_buffers(stages, plan, outside)
    scalars = {home for home, dims in homes.values() if not dims}
    code = [with_reciprocals(flattened(relocated(stage, homes)), scalars) for stage in stages]
    rows = [[stage.spatial[p] for p in own] for stage, own in zip(code, plan.rows)]
    groups = joined(code, rows)
    inner = ForKind.PARALLEL if plan.parallel == "inner" else ForKind.SERIAL

    def row(at: tuple[Expr, ...]) -> Stmt:
        parts = []
        buffers = [home for home, _ in homes.values()]
        for stage, how, own in zip(code, plan.plans, rows):
            values = spread(own, groups, at)
            rest = [axis for axis in stage.spatial if axis.var not in values]
            inside = Inside(stage, how, values, rest, inner)
            parts.append(EMIT[how.mode](inside))
            buffers += inside.buffers
        return scope(sequence(parts), buffers, "row")

    if not groups:
        return row(())
    extents = [product(rows[0][p].extent for p in group) for group in groups]
    return fused(extents, row, ForKind.PARALLEL if plan.parallel == "rows" else ForKind.SERIAL)


def _row_buffers(stages: Sequence[Stage], plan: NestPlan, outside: set[Var]) -> Homes:
    """Buffers of one row for what the stages hand to each other."""
    homes = {}
    for stage, positions in zip(stages, plan.rows):
        rows = {stage.spatial[p].var for p in positions}
        for write in stores(stage):
            if write.buffer in outside:
                continue
            dims = tuple(
                d
                for d, index in enumerate(write.indices)
                if not (isinstance(index, Var) and index in rows)
                and constant(write.buffer.shape[d]) != 1
            )
            homes[write.buffer] = _stand_in(write.buffer, dims), dims
    return homes


def _stand_in(buffer: Var, dims: Sequence[int]) -> Var:
    """A flat buffer for some dims of another."""
    count = product(buffer.shape[dim] for dim in dims)
    return local((count,), buffer.ty.dtype, buffer.name)
