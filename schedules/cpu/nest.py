"""Stages that share outer loops: rows outside, what happens in a row inside.

for row in rows:           parallel where it pays
    stage 1 of the row     its result stays in a row buffer
    ...
    stage n of the row
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch import dtype_bits

from ..kernel import loops
from ..kernel.access import Homes, flattened, loads, relocated, renamed, stores, with_reciprocals
from ..kernel.analysis import constant
from ..kernel.axes import joined, product, spread, unfused
from ..kernel.loops import int64, local, scope, sequence
from ..kernel.stages import Stage, Write
from .decision import NestPlan
from .inside import Inside
from .maps import emit_interleave, emit_map, emit_transpose
from .reductions import emit_columns, emit_lanes, emit_scalar

EMIT = {
    "map": emit_map,
    "interleave": emit_interleave,
    "transpose": emit_transpose,
    "lanes": emit_lanes,
    "columns": emit_columns,
    "scalar": emit_scalar,
}


def emit(func: tirx.PrimFunc, found: Sequence[Stage], plans: Sequence[NestPlan]) -> tirx.PrimFunc:
    """The function that computes `found` as the plans say."""
    found = _in_place(found, plans, set(func.params))
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


STACK_BYTES = 1024
"""From this size on TVM takes a buffer from a pool, each time, and not from the stack."""


def _in_place(found: Sequence[Stage], plans: Sequence[NestPlan], params: set[Var]) -> list[Stage]:
    """The stages, with results kept in an output where the output's stage alone replaces them.

        e[i] = exp(...);  s = sum of e;  y[i] = e[i] / s      e lives in y: no buffer, no copy

    Every element of the output is then read just where it is written next, after all other reads.
    A row that fits on the stack is faster there.
    """
    found = list(found)
    rows = {s: own for plan in plans for s, own in zip(plan.stages, plan.rows)}
    blocks = {s: plan.block for plan in plans for s in plan.stages}
    for last, stage in enumerate(found):
        if stage.is_reduction or len(stage.writes) != 1 or stage.writes[0].buffer not in params:
            continue
        inner = product(a.extent for p, a in enumerate(stage.spatial) if p not in rows[last])
        width = blocks[last] * dtype_bits(str(stage.writes[0].buffer.ty.dtype)) // 8
        if (constant(inner) or STACK_BYTES) * width < STACK_BYTES:
            continue
        write = stage.writes[0]
        if sum(w.buffer.same_as(write.buffer) for other in found for w in stores(other)) != 1:
            continue
        for load in stage.point.loads():
            source = load.source
            if source in params or not _same_elements(load, write):
                continue
            users = [n for n, s in enumerate(found) if _reads(s, source)]
            if users[-1] == last and all(
                _same_elements(m, write) for m in stage.point.loads() if m.source.same_as(source)
            ):
                found = [renamed(other, source, write.buffer) for other in found]
                break
    return found


def _reads(stage: Stage, buffer: Var) -> bool:
    return any(load.source.same_as(buffer) for load in loads(stage))


def _same_elements(load: TensorLoad, write: Write) -> bool:
    """The load reads the element that the store writes, from a buffer of the same kind."""
    source, target = load.source, write.buffer
    return (
        str(source.ty.dtype) == str(target.ty.dtype)
        and len(source.shape) == len(target.shape)
        and all(map(tvm_ffi.structural_equal, source.shape, target.shape))
        and all(map(tvm_ffi.structural_equal, load.indices, write.indices))
    )


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


def _nest(stages: Sequence[Stage], plan: NestPlan, outside: set[Var]) -> Stmt:
    """One nest; if its size is not known, parallel or not as it turns out when it runs."""
    spread_out = _loops(stages, plan, outside, plan.parallel)
    if not plan.least_points:
        return spread_out
    largest = max(stages, key=lambda stage: len(stage.axes))
    points = product(axis.extent for axis in largest.axes)
    enough = points >= int64(plan.least_points)
    return tirx.IfThenElse(enough, spread_out, _loops(stages, plan, outside, "no"))


def _loops(stages: Sequence[Stage], plan: NestPlan, outside: set[Var], parallel: str) -> Stmt:
    """The loops over rows around the stages, one loop parallel or none."""
    inner = ForKind.PARALLEL if parallel == "inner" else ForKind.SERIAL
    kind = ForKind.PARALLEL if parallel == "rows" else ForKind.SERIAL
    count, body = _rows(stages, plan, outside, inner)
    if constant(sym.Analyzer().simplify(tirx.floormod(count, int64(plan.block)))) == 0:
        blocks = tirx.floordiv(count, int64(plan.block))
        return loops.loop(blocks, lambda b: body(b * plan.block, plan.block), kind, "row")

    def some(b: Expr) -> Stmt:
        first = b * plan.block
        return body(first, tirx.min(count - first, int64(plan.block)))

    blocks = tirx.floordiv(count + (plan.block - 1), int64(plan.block))
    return loops.loop(blocks, some, kind, "row")


def _rows(
    stages: Sequence[Stage], plan: NestPlan, outside: set[Var], inner: ForKind
) -> tuple[Expr, Callable[[Expr, Expr | int], Stmt]]:
    """How many rows there are, and the code of some of a block from one on, stage by stage."""
    number = loops.index_var("number")  # of a row in its block
    homes = _row_buffers(stages, plan, outside, plan.block)
    scalars = {home for home, dims in homes.values() if not dims}
    row = number if plan.block > 1 else None
    code = [with_reciprocals(flattened(relocated(stage, homes, row)), scalars) for stage in stages]
    rows = [[stage.spatial[p] for p in own] for stage, own in zip(code, plan.rows)]
    groups = joined(code, rows)
    extents = [product(rows[0][p].extent for p in group) for group in groups]

    def stage_at(position: int, row: Expr, values: dict[Var, Expr], buffers: list[Var]) -> Stmt:
        stage = code[position]
        at = unfused(extents, row) if groups else ()
        values = values | spread(rows[position], groups, at)
        rest = [axis for axis in stage.spatial if axis.var not in values]
        inside = Inside(stage, plan.plans[position], values, rest, inner)
        body = EMIT[inside.plan.mode](inside)
        buffers += inside.buffers
        return body

    def some(first: Expr, many: Expr | int) -> Stmt:
        buffers = [home for home, _ in homes.values()]
        parts = []
        for position in range(len(code)):

            def each(n: Expr, position: int = position) -> Stmt:
                return stage_at(position, first + n, {number: n}, buffers)

            parts.append(loops.loop(many, each))
        return scope(sequence(parts), buffers, "row")

    return product(extents), some


def _row_buffers(stages: Sequence[Stage], plan: NestPlan, outside: set[Var], block: int) -> Homes:
    """Buffers of a block of rows for what the stages hand to each other."""
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
            homes[write.buffer] = _stand_in(write.buffer, dims, block), dims
    return homes


def _stand_in(buffer: Var, dims: Sequence[int], times: int = 1) -> Var:
    """A flat buffer for some dims of another, `times` over."""
    count = product(buffer.shape[dim] for dim in dims) * times
    return local((count,), buffer.ty.dtype, buffer.name)
