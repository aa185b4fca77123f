"""What depthwise convolutions, attention and the light kernels may decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from tvmext.arch import CpuArch, dtype_bits

from ..cost.terms import Terms, machine
from ..kernel.access import accesses
from ..kernel.analysis import called_ops
from ..kernel.stages import COSTLY, Stage, Stages
from ..levels import UNKNOWN_COLS, UNKNOWN_ROWS, UNKNOWN_SIDE
from . import attention, depthwise, depthwise_ahead
from .choices_gemm import FAR, MOST_TILES, epilogue, tile_columns
from .decision import NestPlan, StagePlan
from .plan import UNKNOWN_DIM, cost_ns, plan

MODES = ("map", "transpose", "interleave", "lanes", "columns", "scalar")


class DepthwiseChoices:
    """Candidates of `Depthwise`: the register tile, vectors that pass down together, blocks."""

    def candidates(self, workload: depthwise.Workload, arch: CpuArch) -> list[depthwise.Decision]:
        picked = depthwise.decide(workload, arch)
        found = [picked, *self._variants(workload, picked)]
        priced = sorted(depthwise.tiles(workload, arch), key=lambda one: one[1])[:MOST_TILES]
        found += [
            depthwise.placed(workload, shape, arch)
            for shape, price in priced
            if price <= FAR * priced[0][1]
        ]
        return list(dict.fromkeys(found))

    def terms(
        self, workload: depthwise.Workload, decisions: Sequence[depthwise.Decision], arch: CpuArch
    ) -> Terms:
        height, width = workload.height or UNKNOWN_SIDE, workload.width or UNKNOWN_SIDE
        lines, taps = workload.lines or 3, workload.taps or 3
        images, channels = workload.images or 1, workload.channels
        item = dtype_bits(workload.dtype) // 8
        sizes = (workload.images, workload.height, workload.width, workload.lines, workload.taps)
        prices = {d.tile: depthwise.cycles(workload, d.tile, arch) for d in decisions}
        return Terms.of(
            **tile_columns([d.tile for d in decisions]),
            **machine(arch),
            family=3,
            batch=images,
            lines=height,
            rows=width,
            cols=channels,
            depth=lines * taps,
            taps=taps,
            stride=workload.stride,
            pitch=item * workload.stride * channels,
            row_bytes=item * width * workload.stride * channels,
            item=item,
            rhs=0 if workload.weight_arg is not None else 1,
            epilogue=epilogue(workload.contraction),
            free=sum(size is None for size in sizes),
            block=[d.block_rows for d in decisions],
            unroll=[d.group for d in decisions],
            ahead=[images * height * width > d.near_pixels for d in decisions],
            parallel=[d.parallel for d in decisions],
            cycles=[images * height * prices[d.tile] for d in decisions],
        )

    def _variants(
        self, workload: depthwise.Workload, decision: depthwise.Decision
    ) -> Iterator[depthwise.Decision]:
        panels = -(-workload.channels // decision.tile.cols)
        for group in {1, -(-decision.group // 2), 2 * decision.group}:
            if min(group, panels) != min(decision.group, panels):
                yield replace(decision, group=group)
        height = workload.height or UNKNOWN_SIDE
        if not decision.parallel:
            for rows in {4, 16, height} - {decision.block_rows}:
                if rows <= height:
                    yield replace(decision, block_rows=rows)
        pixels = (workload.images or 1) * height * (workload.width or UNKNOWN_SIDE)
        if pixels > decision.near_pixels:
            yield replace(decision, near_pixels=depthwise_ahead.EVERY)
        elif pixels > decision.near_pixels // 4:
            yield replace(decision, near_pixels=0)


class AttentionChoices:
    """Candidates of `FusedAttention`: both register tiles, keys per block."""

    def candidates(self, workload: attention.Workload, arch: CpuArch) -> list[attention.Decision]:
        picked = attention.decide(workload, arch)
        priced = attention.prices(workload, arch)
        pairs = sorted(priced, key=lambda pair: priced[pair])[:MOST_TILES]
        found = [picked, *self._variants(workload, picked, arch)]
        found += [
            attention.placed(workload, *pair, arch)
            for pair in pairs
            if priced[pair] <= FAR * priced[pairs[0]]
        ]
        return list(dict.fromkeys(found))

    def terms(
        self, workload: attention.Workload, decisions: Sequence[attention.Decision], arch: CpuArch
    ) -> Terms:
        rows = UNKNOWN_ROWS if workload.rows is None else workload.rows
        keys = UNKNOWN_COLS if workload.keys is None else workload.keys
        priced = attention.prices(workload, arch)
        return Terms.of(
            **tile_columns([d.scores for d in decisions]),
            **machine(arch),
            family=4,
            batch=workload.batch or 1,
            rows=rows,
            cols=keys,
            depth=workload.depth,
            values=workload.width,
            pitch=4 * workload.depth,
            costly=1,
            masked=workload.masked,
            free=sum(size is None for size in (workload.batch, workload.rows, workload.keys)),
            packs=1,
            block=[d.block_keys for d in decisions],
            values_vectors=[d.values.vectors for d in decisions],
            values_lanes=[d.values.lanes for d in decisions],
            parts=[d.parts for d in decisions],
            parallel=[d.parallel for d in decisions],
            cycles=[(workload.batch or 1) * priced[d.scores, d.values] for d in decisions],
        )

    def _variants(
        self, workload: attention.Workload, decision: attention.Decision, arch: CpuArch
    ) -> Iterator[attention.Decision]:
        width = decision.scores.cols
        room = max(arch.l1_bytes // (4 * decision.scores.rows) // width * width, width)
        for keys in {0, room // 2 // width * width, room, 2 * room}:
            longest = workload.keys or 2 * room + 1
            whole = workload.keys and 4 * longest * decision.scores.rows <= arch.l2_bytes // 2
            if keys != decision.block_keys and keys < longest and (keys or whole):
                yield replace(decision, block_keys=keys)


class StagedChoices:
    """Candidates of the rules for light kernels: vectors per step, rows at a time."""

    def candidates(self, workload: Stages, arch: CpuArch) -> list[tuple[NestPlan, ...]]:
        picked = plan(workload.stages, arch)
        found = [picked]
        for number, nest in enumerate(picked):
            before, after = picked[:number], picked[number + 1 :]
            found += [(*before, other, *after) for other in _nests(workload, nest)]
        return list(dict.fromkeys(found))

    def terms(
        self, workload: Stages, decisions: Sequence[tuple[NestPlan, ...]], arch: CpuArch
    ) -> Terms:
        heaviest = max(workload.stages, key=cost_ns)
        number = workload.stages.index(heaviest)
        points = _points(heaviest)
        plans = [_own(decision, number) for decision in decisions]
        rows = [
            prod(_size(heaviest, p) for p in nest.rows[nest.stages.index(number)])
            for nest, _ in plans
        ]
        reduce = prod(axis.size or UNKNOWN_DIM for axis in heaviest.reduce)
        reduces = any(stage.is_reduction for stage in workload.stages)
        share = [_points(stage) / max(points, 1) for stage in workload.stages]
        costly = [_costly(stage) for stage in workload.stages]
        touched = [len(accesses(stage)) for stage in workload.stages]
        price = arch.ghz * sum(cost_ns(stage) for stage in workload.stages)
        return Terms.of(
            **machine(arch),
            family=5 if reduces else 6,
            rows=rows,
            cols=[max(1, points // max(1, r * reduce)) for r in rows],
            depth=reduce,
            accesses=sum(n * s for n, s in zip(touched, share)),
            costly=sum(n * s for n, s in zip(costly, share)),
            stages=len(workload.stages),
            free=sum(a.size is None for stage in workload.stages for a in stage.axes),
            lanes=[min(how.lanes for how in _plans(decision)) for decision in decisions],
            map_lanes=[_map_lanes(decision) for decision in decisions],
            unroll=[max(how.unroll for how in _plans(decision)) for decision in decisions],
            block=[nest.block for nest, _ in plans],
            mode=[MODES.index(how.mode) for _, how in plans],
            parallel=[nest.parallel != "no" for nest, _ in plans],
            cycles=max(1.0, price),
        )


def _nests(workload: Stages, nest: NestPlan) -> Iterator[NestPlan]:
    """The same nest with other vectors or other numbers of rows at a time."""
    for unroll in (1, 2, 4, 8):
        yield _with(nest, lambda how, n=unroll: replace(how, unroll=n))
    if any(how.mode in ("map", "columns") and how.lanes >= 8 for how in nest.plans):
        yield _with(nest, lambda how: replace(how, lanes=how.lanes // 2), ("map", "columns"))
    if len(nest.stages) == 1 or not nest.rows[0]:
        return
    first = workload.stages[nest.stages[0]]
    rows = [_size(first, p) for p in nest.rows[0]]
    known = all(first.spatial[p].size is not None for p in nest.rows[0])
    if all(how.mode == "lanes" or how.mode == "map" for how in nest.plans):
        for count in (1, 2, 4, 8):
            if count == 1 or (known and prod(rows) % count == 0):
                yield replace(nest, block=count)


def _with(
    nest: NestPlan, change: object, modes: tuple[str, ...] = ("lanes", "columns")
) -> NestPlan:
    assert callable(change)
    plans = tuple(change(how) if how.mode in modes else how for how in nest.plans)
    return replace(nest, plans=plans)


def _own(decision: tuple[NestPlan, ...], number: int) -> tuple[NestPlan, StagePlan]:
    """The nest of stage `number`, and how that stage runs in it."""
    nest = next(nest for nest in decision if number in nest.stages)
    return nest, nest.plans[nest.stages.index(number)]


def _plans(decision: tuple[NestPlan, ...]) -> list[StagePlan]:
    return [how for nest in decision for how in nest.plans]


def _map_lanes(decision: tuple[NestPlan, ...]) -> int:
    """Of the widest vectors of stages that add up nothing."""
    return max((how.lanes for how in _plans(decision) if how.mode == "map"), default=0)


def _size(stage: Stage, position: int) -> int:
    return stage.spatial[position].size or UNKNOWN_DIM


def _points(stage: Stage) -> int:
    return prod(UNKNOWN_DIM if axis.size is None else axis.size for axis in stage.axes)


def _costly(stage: Stage) -> int:
    return sum(len(called_ops(expr) & COSTLY) for expr in stage.point.exprs())
