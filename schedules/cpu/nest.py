"""Stages that share outer loops: rows outside, what happens in a row inside.

    for row in rows:           parallel where it pays
        stage 1 of the row     its result stays in a row buffer
        ...
        stage n of the row

Inside a row each stage is emitted in one of three ways: an elementwise stage as vector loops; a
reduction along the contiguous axis with partial results in the lanes of a vector ("lanes": LLVM
does not reassociate floats, so this is spelled out); any other reduction with the contiguous axis
in the lanes and the reduction loops inside ("columns").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import BufferStore, ForKind, Stmt

from ..analysis import Axis, constant, substitute
from . import loops
from .access import flattened, mergeable, relocated, with_reciprocals
from .loops import int64, local, scope, sequence, strip
from .math import approximate
from .stages import Point, Stage, Write

COMBINE = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "max": tirx.max,
    "min": tirx.min,
}


@dataclass(frozen=True)
class StagePlan:
    """How one stage of a nest is emitted; `lanes` per vector step, `unroll` steps at a time."""

    mode: str
    lanes: int
    unroll: int


@dataclass(frozen=True)
class NestPlan:
    """Stages (by number) under shared row loops: `rows` is how many leading row axes there are.

    `parallel` is "no", "rows" or "inner": which loop is spread over the cores.
    """

    stages: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    parallel: str
    plans: tuple[StagePlan, ...]
    """`rows[s]` lists, for stage `s`, the positions among its spatial axes that are the rows."""


def emit(func: tirx.PrimFunc, found: Sequence[Stage], plans: Sequence[NestPlan]) -> tirx.PrimFunc:
    """The function that computes `found` as the plans say."""
    params = set(func.params)
    home = {
        write.buffer: number
        for number, plan in enumerate(plans)
        for s in plan.stages
        for write in stores(found[s])
    }
    shared = {
        load.source
        for number, plan in enumerate(plans)
        for s in plan.stages
        for load in loads(found[s])
        if home.get(load.source, number) != number
    }
    homes = {}
    for buffer in sorted(shared - params, key=lambda b: b.name):
        dims = tuple(range(len(buffer.shape)))
        homes[buffer] = _stand_in(buffer, dims), dims
    found = [relocated(stage, homes) for stage in found]
    buffers = [home for home, _ in homes.values()]
    body = sequence([_Nest(found, plan, params | set(buffers)).emit() for plan in plans])
    return loops.function(func, body, buffers)


def _stand_in(buffer: Var, dims: Sequence[int]) -> Var:
    """A flat buffer for some dims of another."""
    count = product(buffer.shape[dim] for dim in dims)
    return local((count,), buffer.ty.dtype, buffer.name)


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


class _Nest:
    """Emits one nest."""

    def __init__(self, found: Sequence[Stage], plan: NestPlan, outside: set[Var]) -> None:
        self.plan = plan
        self.stages = [found[s] for s in plan.stages]
        self.outside = outside

    def emit(self) -> Stmt:
        homes = self._row_buffers()
        scalars = {home for home, dims in homes.values() if not dims}
        code = [
            with_reciprocals(flattened(relocated(stage, homes)), scalars) for stage in self.stages
        ]
        rows = [
            [stage.spatial[p] for p in positions] for stage, positions in zip(code, self.plan.rows)
        ]
        groups = joined(code, rows)
        kind = ForKind.PARALLEL if self.plan.parallel == "rows" else ForKind.SERIAL

        def row(at: tuple[Expr, ...]) -> Stmt:
            parts = []
            buffers = [home for home, _ in homes.values()]
            for stage, plan, own in zip(code, self.plan.plans, rows):
                values = spread(own, groups, at)
                inner = [axis for axis in stage.spatial if axis.var not in values]
                emitter = _Emitter(stage, plan, values, inner, self.plan.parallel == "inner")
                parts.append(emitter.emit())
                buffers += emitter.buffers
            return scope(sequence(parts), buffers, "row")

        extents = [product(rows[0][p].extent for p in group) for group in groups]
        return fused(extents, row, kind) if extents else row(())

    def _row_buffers(self) -> dict[Var, tuple[Var, tuple[int, ...]]]:
        """{buffer: (row buffer, dims of the first that it keeps)}."""
        homes = {}
        for stage, positions in zip(self.stages, self.plan.rows):
            rows = {stage.spatial[p].var for p in positions}
            for write in stores(stage):
                if write.buffer in self.outside:
                    continue
                dims = tuple(
                    d
                    for d, index in enumerate(write.indices)
                    if not (isinstance(index, Var) and index in rows)
                    and constant(write.buffer.shape[d]) != 1
                )
                homes[write.buffer] = _stand_in(write.buffer, dims), dims
        return homes


def fused(extents: Sequence[Expr], body, kind: ForKind) -> Stmt:
    """One loop over the product of `extents`; `body` takes the index along each."""
    total = product(extents)

    def at(row: Expr) -> Stmt:
        indices, rest = [], row
        for extent in reversed(extents[1:]):
            indices.append(tirx.floormod(rest, extent))
            rest = tirx.floordiv(rest, extent)
        return body((rest, *reversed(indices)))

    return loops.loop(total, at, kind, "row")


class _Emitter:
    """Emits one stage inside a row."""

    def __init__(self, stage, plan, rows, inner, parallel) -> None:
        self.stage, self.plan, self.rows = stage, plan, rows
        self.inner: list[Axis] = inner
        self.kind = ForKind.PARALLEL if parallel else ForKind.SERIAL
        self.buffers: list[Var] = []

    def emit(self) -> Stmt:
        return {
            "map": self._map,
            "lanes": self._lanes,
            "columns": self._columns,
            "scalar": self._scalar,
        }[self.plan.mode]()

    # -------------------------------------------------------------- pieces

    def _code(self, point: Point, values: dict[Var, Expr]) -> tuple[list[Stmt], list[Expr]]:
        """Statements that bind, and the values, of a point at an index."""
        point = point.at(self.rows | values)
        binds: list[Stmt] = []

        def code(value: Expr) -> Expr:
            before, value = approximate(value)
            binds.extend(tirx.Bind(var, part) for var, part in before)
            return value

        for var, value in point.binds:
            value = code(value)
            binds.append(tirx.Bind(var, value))
        return binds, [code(value) for value in point.values]

    def _store(self, write: Write, value: Expr, values: dict[Var, Expr]) -> Stmt:
        indices = [substitute(index, self.rows | values) for index in write.indices]
        return BufferStore(write.buffer, value, indices)

    def _finish(self, results: Sequence[Expr], values: dict[Var, Expr]) -> Stmt:
        """Stores what a reduction found, through its epilogue if it has one."""
        stage = self.stage
        if stage.epilogue is None:
            return sequence([self._store(w, r, values) for w, r in zip(stage.writes, results)])
        own = {w.buffer: r for w, r in zip(stage.writes, results)}

        def visit(load: TensorLoad) -> Expr:
            return own.get(load.source, load)

        binds, outs = self._code(stage.epilogue.point, values)
        binds = [
            tirx.Bind(b.var, tvm_ffi.structural_map(b.value, (TensorLoad, visit))) for b in binds
        ]
        outs = [tvm_ffi.structural_map(out, (TensorLoad, visit)) for out in outs]
        return sequence(
            [*binds, *(self._store(w, o, values) for w, o in zip(stage.epilogue.writes, outs))]
        )

    def _bindings(self, axes: Sequence[Axis], indices: Sequence[Expr]) -> dict[Var, Expr]:
        return {axis.var: index for axis, index in zip(axes, indices)}

    # -------------------------------------------------------------- elementwise

    def _map(self) -> Stmt:
        def at(values: dict[Var, Expr]) -> Stmt:
            binds, results = self._code(self.stage.point, values)
            stores_ = [self._store(w, r, values) for w, r in zip(self.stage.writes, results)]
            return sequence([*binds, *stores_])

        groups = merged(self.stage, self.inner)
        return self._spread(groups, at)

    def _spread(self, groups, at) -> Stmt:
        """Loops over groups of axes, the last group in vectors."""
        if not groups:
            return at({})
        outer, last = groups[:-1], groups[-1]
        kind = self.kind if not outer else ForKind.SERIAL

        def body(indices: tuple[Expr, ...]) -> Stmt:
            values: dict[Var, Expr] = {}
            for group, index in zip(outer, indices):
                values |= group.at(index)
            return strip(last.extent, self.plan.lanes, lambda i: at(values | last.at(i)), kind)

        if outer and self.kind == ForKind.PARALLEL:
            return fused([group.extent for group in outer], body, ForKind.PARALLEL)
        return loops.nest([group.extent for group in outer], body)

    # -------------------------------------------------------------- reductions

    def _scalar(self) -> Stmt:
        """Any reduction as it stands: serial loops, results in registers."""
        stage = self.stage

        def at(values: dict[Var, Expr]) -> Stmt:
            accs = [local((1,), w.buffer.ty.dtype, w.buffer.name) for w in stage.writes]
            self.buffers += accs
            inits = [BufferStore(acc, w.init, [int64(0)]) for acc, w in zip(accs, stage.writes)]
            groups = [Group((axis,), axis.extent) for axis in stage.reduce]
            steps = self._reduction(
                groups,
                values,
                lambda ks: self._step(accs, [int64(0)], values | self._bindings(stage.reduce, ks)),
            )
            return sequence([*inits, steps, self._finish([acc[0] for acc in accs], values)])

        return loops.nest(
            [axis.extent for axis in self.inner],
            lambda indices: at(self._bindings(self.inner, indices)),
        )

    def _step(self, accs: Sequence[Var], where: list[Expr], values: dict[Var, Expr]) -> Stmt:
        """Combine one more element into the accumulators at `where`."""
        binds, results = self._code(self.stage.point, values)
        own = {w.buffer: acc for w, acc in zip(self.stage.writes, accs)}

        def visit(load: TensorLoad) -> Expr:
            return own[load.source][tuple(where)] if load.source in own else load

        stmts: list[Stmt] = list(binds)
        news = []
        for write, acc, value in zip(self.stage.writes, accs, results):
            if write.op:
                value = COMBINE[write.op](acc[tuple(where)], value)
            else:
                value = tvm_ffi.structural_map(value, (TensorLoad, visit))
            if len(accs) > 1:
                var = Var(write.buffer.name, value.ty)
                stmts.append(tirx.Bind(var, value))
                value = var
            news.append(BufferStore(acc, value, where))
        return sequence([*stmts, *news])

    def _reduction(
        self,
        groups: Sequence[Group],
        values: dict[Var, Expr],
        body: Callable[[tuple[Expr, ...]], Stmt],
    ) -> Stmt:
        """Serial loops over groups of reduction axes, within the stage's limits."""
        ranges = []
        for group in groups:
            low, high = int64(0), group.extent
            for var, side, limit in self.stage.limits:
                if var.same_as(group.axes[-1].var):
                    limit = substitute(limit, self.rows | values)
                    if side == "low":
                        low = tirx.max(low, limit)
                    else:
                        high = tirx.min(high, limit)
            ranges.append((low, high))
        return loops.nest(
            [high - low if constant(low) != 0 else high for low, high in ranges],
            lambda ks: body(tuple(k + low for k, (low, _) in zip(ks, ranges))),
        )

    def _columns(self) -> Stmt:
        """The last inner axis in vectors, the reduction loops inside."""
        stage, lanes = self.stage, self.plan.lanes
        *outer, last = self.inner
        groups = merged(stage, list(stage.reduce))

        def tile(values: dict[Var, Expr], base: Expr, width: int) -> Stmt:
            accs = [local((width,), w.buffer.ty.dtype, w.buffer.name) for w in stage.writes]
            self.buffers += accs

            inits = [
                loops.vector(width, lambda l, a=acc, w=w: BufferStore(a, w.init, [l]))
                for acc, w in zip(accs, stage.writes)
            ]

            def inside(ks: tuple[Expr, ...]) -> Stmt:
                at = dict(values)
                for group, k in zip(groups, ks):
                    at |= group.at(k)
                return loops.vector(
                    width, lambda l: self._step(accs, [l], at | {last.var: base + l})
                )

            ends = loops.vector(
                width,
                lambda l: self._finish([acc[l] for acc in accs], values | {last.var: base + l}),
            )
            steps = self._reduction(groups, values, inside)
            return sequence([*inits, steps, ends])

        def body(indices: tuple[Expr, ...]) -> Stmt:
            values = self._bindings(outer, indices)
            return tiles(
                last.extent,
                lanes * self.plan.unroll,
                lanes,
                lambda b, w: tile(values, b, w),
                self.kind if not outer else ForKind.SERIAL,
            )

        if outer and self.kind == ForKind.PARALLEL:
            return fused([axis.extent for axis in outer], body, ForKind.PARALLEL)
        return loops.nest([axis.extent for axis in outer], body)

    def _lanes(self) -> Stmt:
        """The last reduction axis in vectors of partial results, combined by halves at the end."""
        stage = self.stage
        groups = merged(stage, list(stage.reduce))
        *outer, last = groups
        width = self.plan.lanes * self.plan.unroll

        def at(values: dict[Var, Expr]) -> Stmt:
            accs = [local((width,), w.buffer.ty.dtype, w.buffer.name) for w in stage.writes]
            self.buffers += accs
            inits = [
                loops.vector(width, lambda l, a=acc, w=w: BufferStore(a, w.init, [l]))
                for acc, w in zip(accs, stage.writes)
            ]

            def inside(ks: tuple[Expr, ...]) -> Stmt:
                fixed = dict(values)
                for group, k in zip(outer, ks):
                    fixed |= group.at(k)
                return tiles(
                    last.extent,
                    width,
                    self.plan.lanes,
                    lambda base, w: loops.vector(
                        w, lambda l: self._step(accs, [l], fixed | last.at(base + l))
                    ),
                )

            halves = []
            half = width // 2
            while half:
                halves += [
                    loops.vector(
                        half,
                        lambda l, h=half, a=acc, w=w: BufferStore(
                            a, COMBINE[w.op](a[l], a[l + h]), [l]
                        ),
                    )
                    for acc, w in zip(accs, stage.writes)
                ]
                half //= 2
            steps = self._reduction(outer, values, inside)
            done = self._finish([acc[0] for acc in accs], values)
            return sequence([*inits, steps, *halves, done])

        return loops.nest(
            [axis.extent for axis in self.inner],
            lambda indices: at(self._bindings(self.inner, indices)),
        )


def tiles(extent: Expr, width: int, lanes: int, body, kind: ForKind = ForKind.SERIAL) -> Stmt:
    """``body(base, width)`` over 0 .. extent-1 in tiles of `width`, then narrower ones, exactly."""
    size = constant(extent)
    if size is not None:
        parts, base = [], 0
        for step in (width, lanes):
            count = (size - base) // step
            if count:
                start = base
                parts.append(loops.loop(count, lambda o, s=start, t=step: body(o * t + s, t), kind))
                base += count * step
        if size > base:
            parts.append(body(int64(base), size - base))
        return sequence(parts)
    parts = []
    start: Expr = int64(0)
    for step in dict.fromkeys((width, lanes, 1)):
        count = tirx.floordiv(extent - start, int64(step))
        parts.append(
            loops.loop(
                count,
                lambda o, s=start, t=step: body(o * t + s, t),
                kind if step == width else ForKind.SERIAL,
            )
        )
        start = tirx.floordiv(extent, int64(step)) * step
    return sequence(parts)


def product(extents: Iterable[Expr]) -> Expr:
    """The product of some extents, simplified."""
    total: Expr = int64(1)
    for extent in extents:
        total = total * extent
    return sym.Analyzer().simplify(total)


def joined(stages: Sequence[Stage], axes: Sequence[Sequence[Axis]]) -> list[list[int]]:
    """Positions of axes (one list of axes per stage), those together that all stages may join."""
    groups: list[list[int]] = []
    for position in range(len(axes[0])):
        before = groups[-1][-1] if groups else None
        if before is not None and all(
            mergeable(stage, own[before], own[position]) for stage, own in zip(stages, axes)
        ):
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def spread(
    axes: Sequence[Axis], groups: Sequence[Sequence[int]], indices: Sequence[Expr]
) -> dict[Var, Expr]:
    """What each axis is at an index per group.

    The last axis of a group runs on past its extent, which every access takes: it is linear.
    """
    values = {axis.var: int64(0) for axis in axes}
    return values | {axes[group[-1]].var: index for group, index in zip(groups, indices)}


@dataclass(frozen=True, eq=False)
class Group:
    """Adjacent axes walked as one, and their joint extent."""

    axes: tuple[Axis, ...]
    extent: Expr

    def at(self, index: Expr) -> dict[Var, Expr]:
        return spread(self.axes, [range(len(self.axes))], [index])


def merged(stage: Stage, axes: Sequence[Axis]) -> list[Group]:
    """Axes of a stage, joined wherever every access moves as if they were one."""
    groups = ([axes[p] for p in group] for group in joined([stage], [axes]))
    return [Group(tuple(g), product(axis.extent for axis in g)) for g in groups]
