"""Which stages share row loops, which loop is spread over the cores, how each stage is emitted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

from tvm.ir import TensorLoad

from tvmext.arch import CpuArch

from ..kernel.access import accesses, crossing, divides, loads, stores, strides, vectorizable
from ..kernel.analysis import Axis, buffer_of, called_ops, collect, constant, variables
from ..kernel.axes import merged
from ..kernel.rows import Rows, shared_rows
from ..kernel.stages import COSTLY, Stage
from .decision import NestPlan, StagePlan
from .math import vector_code
from .quotients import MOST

LAUNCH_NS = 3000.0
"""What it costs to start a parallel loop, in nanoseconds (measured: 2.9 us)."""
UNKNOWN_DIM = 64
"""The size that a symbolic dim is taken for when work is estimated."""


def plan(found: Sequence[Stage], arch: CpuArch) -> tuple[NestPlan, ...]:
    """Plans that cover all stages in order."""
    return tuple(_nest_plan(found, numbers, rows, arch) for numbers, rows in _groups(found, arch))


# ------------------------------------------------------------------ rows


def _groups(found: Sequence[Stage], arch: CpuArch) -> list[tuple[tuple[int, ...], Rows]]:
    """Runs of stages that share rows, as long as possible from the first stage on."""
    groups: list[tuple[tuple[int, ...], Rows]] = []
    current: tuple[int, ...] = ()
    rows: Rows = []
    for number in range(len(found)):
        longer = (*current, number)
        joint = shared_rows([found[s] for s in longer])
        if current and not _worth(found, longer, joint, arch):
            groups.append((current, rows))
            longer = (number,)
            joint = shared_rows([found[number]])
        current, rows = longer, joint
    if current:
        groups.append((current, rows))
    return groups


def _worth(found: Sequence[Stage], numbers: tuple[int, ...], rows: Rows, arch: CpuArch) -> bool:
    """Sharing rows pays if there are enough of them for the cores, or little to do anyway.

    A transpose walks squares across the rows: it has a nest of its own if it needs no other stage.
    """
    if not rows or not rows[0]:
        return False
    stages = [found[s] for s in numbers]
    made = {write.buffer for stage in stages for write in stores(stage)}
    apart = not any(load.source in made for stage in stages for load in loads(stage))
    if apart and any(stage_plan(stage, (), arch).mode == "transpose" for stage in stages):
        return False
    count = _size(found[numbers[0]].spatial[p] for p in rows[0])
    work = sum(cost_ns(found[s]) for s in numbers)
    return arch.cores == 1 or count >= 2 * arch.cores or work < 4 * LAUNCH_NS


# ------------------------------------------------------------------ one nest


def _nest_plan(
    found: Sequence[Stage], numbers: tuple[int, ...], rows: Rows, arch: CpuArch
) -> NestPlan:
    stages = [found[s] for s in numbers]
    if len(stages) == 1:
        rows = [tuple(range(len(stages[0].spatial)))]
    if rows[0] and not _reduces_contiguously(stages, arch):
        rows = _without_last(stages, rows)
    single_map = len(stages) == 1 and not stages[0].is_reduction
    if single_map:
        rows = [()]
    plans = tuple(stage_plan(stage, positions, arch) for stage, positions in zip(stages, rows))
    parallel, least = _parallel(stages, rows, plans, arch)
    return NestPlan(numbers, tuple(rows), parallel, plans, least, _block(stages, rows, plans))


OVERLAPPING = (5, 24)
"""Vectors of rows that gain from others beside them: a shorter one stays in registers, a longer one
hides the time that its partial results take to join (measured: 6 to 13 gain, 3 and 32 lose)."""


def _block(stages: Sequence[Stage], rows: Rows, plans: Sequence[StagePlan]) -> int:
    """Rows that each stage takes before the next one: their short chains of steps then overlap."""
    if len(stages) == 1 or not rows[0] or all(how.mode != "lanes" for how in plans):
        return 1
    inner = max(
        _size(a for p, a in enumerate(stage.axes) if p not in own) / how.lanes
        for stage, own, how in zip(stages, rows, plans)
    )
    if not OVERLAPPING[0] <= inner <= OVERLAPPING[1]:
        return 1
    sizes = [axis.size for axis in (stages[0].spatial[p] for p in rows[0]) if axis.size]
    if len(sizes) < len(rows[0]):
        return 4
    return next((n for n in (4, 3, 2) if math.prod(sizes) % n == 0), 1)


def _parallel(
    stages: Sequence[Stage], rows: Rows, plans: Sequence[StagePlan], arch: CpuArch
) -> tuple[str, int]:
    """Which loop is spread over the cores, and from how many points on if that is decided late."""
    if rows[0] and _size(stages[0].spatial[p] for p in rows[0]) > 1:
        kind = "rows"
    elif (
        len(stages) == 1
        and stages[0].spatial
        and plans[0].mode in ("map", "interleave", "transpose", "columns")
    ):
        kind = "inner"
    else:
        return "no", 0
    work = sum(cost_ns(stage) for stage in stages)
    pays = 4 * LAUNCH_NS
    if arch.cores == 1 or not work:
        return "no", 0
    if any(axis.size is None for stage in stages for axis in stage.axes):
        points = max(_size(stage.axes) for stage in stages)
        return kind, math.ceil(points * pays / work)
    return (kind, 0) if work > pays else ("no", 0)


def _reduces_contiguously(stages: Sequence[Stage], arch: CpuArch) -> bool:
    """Some reduction walks memory along its last axis far enough to fill a vector."""
    return any(stage.is_reduction and _contiguous_reduction(stage, arch) for stage in stages)


def _contiguous_reduction(stage: Stage, arch: CpuArch) -> bool:
    last = stage.reduce[-1] if stage.reduce else None
    if last is None or stage.limits or any(write.op in (None, "") for write in stage.writes):
        return False
    steps = [constant(s) if s is not None else None for s in strides(stage, last)]
    moving = [s for s in steps if s != 0]
    if not moving or any(s != 1 for s in moving) or not vectorizable(stage, last, vector_code):
        return False
    return _size(stage.reduce) >= arch.vector_lanes("float32")


def _without_last(stages: Sequence[Stage], rows: Rows) -> Rows:
    """Keep the axis along which the last stage stores contiguously inside the rows."""
    last = stages[-1]
    position = len(last.spatial) - 1
    if position not in rows[-1]:
        return rows
    at = rows[-1].index(position)
    return [tuple(p for i, p in enumerate(r) if i != at) for r in rows]


@lru_cache(maxsize=1024)
def stage_plan(stage: Stage, rows: tuple[int, ...], arch: CpuArch) -> StagePlan:
    """How a stage is emitted, some of its spatial axes being rows around it."""
    inner = [a for p, a in enumerate(stage.spatial) if p not in rows]
    bits = max(_bits(stage, inner))
    lanes = max(1, arch.vector_bits // bits)
    if not stage.is_reduction:
        if not inner or not vectorizable(stage, inner[-1], vector_code):
            return StagePlan("map", 1)
        if divides(stage, inner[-1]) and not _costly(stage):
            return StagePlan("map", 1)
        if _interleaves(stage, inner):
            return StagePlan("interleave", _whole(inner[-2].size, min(lanes, 16)))
        across = _transposes(stage, inner, min(lanes, 16))
        return (
            StagePlan("map", lanes)
            if across < 0
            else StagePlan("transpose", min(lanes, 16), across=across)
        )
    if _contiguous_reduction(stage, arch):
        steps = _size(stage.reduce) // lanes
        return StagePlan("lanes", lanes, max(1, min(4, 1 << int(math.log2(max(1, steps))))))
    limited = {var for _, _, limit in stage.limits for var in variables(limit)}
    if inner and inner[-1].var not in limited and vectorizable(stage, inner[-1], vector_code):
        steps = _size([inner[-1]]) // lanes
        return StagePlan("columns", lanes, max(1, min(4, steps)))
    return StagePlan("scalar", 1)


def _transposes(stage: Stage, inner: Sequence[Axis], side: int) -> int:
    """Which joined axis some load is contiguous along that is not along the last one; else -1.

    Only where whole squares fit.
    """
    contiguous = all(constant(step) in (0, 1) for step in strides(stage, inner[-1]))
    if len(stage.writes) != 1 or contiguous or side < 4:
        return -1
    groups = merged(stage, inner)
    if len(groups) < 2:
        return -1
    *others, last = groups
    for position, group in reversed(list(enumerate(others))):
        if not crossing(stage, group.axes[-1], last.axes[-1]):
            continue
        sizes = [constant(extent) for extent in (group.extent, last.extent)]
        fits = all(size is None or size >= side for size in sizes)
        return position if fits and vectorizable(stage, group.axes[-1], vector_code) else -1
    return -1


def _interleaves(stage: Stage, axes: Sequence[Axis]) -> bool:
    """Elements along the last of some axes come from as many runs, or from one again and again:
    ``y[.., i, r] = x[.., r, i]`` or ``x[.., i]``."""
    if len(axes) < 2 or len(stage.writes) != 1 or not 1 < (axes[-1].size or 0) <= MOST:
        return False
    *_, store = (constant(step) for step in strides(stage, axes[-1]))
    *before, pitch = (constant(step) for step in strides(stage, axes[-2]))
    return (
        store == 1
        and pitch == axes[-1].size
        and 1 in before
        and all(step in (0, 1) for step in before)
        and vectorizable(stage, axes[-2], vector_code)
    )


def _whole(size: int | None, lanes: int) -> int:
    """Lanes of vectors that leave nothing over, if they need not be much narrower."""
    halves = (lanes, lanes // 2, lanes // 4)
    return next((n for n in halves if n > 1 and (size or 0) % n == 0), lanes)


def _bits(stage: Stage, inner: Sequence[Axis]) -> list[int]:
    """Widths of what the stage loads and stores as data, not to know where a row lies."""
    from tvmext.arch import dtype_bits

    found = accesses(stage)
    ends = {axes[-1].var for axes in (inner, stage.reduce) if axes}
    indices = [index for access in found for index in access.indices]
    places = [load for index in indices for load in collect(index, TensorLoad)]
    fixed = [load for load in places if not variables(load) & ends]
    data = [a for a in found if not any(a is load or load.same_as(a) for load in fixed)]
    return [dtype_bits(str(buffer_of(access).ty.dtype)) for access in data]


# ------------------------------------------------------------------ prices


@lru_cache(maxsize=1024)
def cost_ns(stage: Stage) -> float:
    """A rough price of a stage on one core, in nanoseconds; symbolic dims count as 64."""
    points = _size(stage.axes)
    return points * (0.05 * len(accesses(stage)) + 0.3 * _costly(stage) + 0.05)


def _costly(stage: Stage) -> int:
    """How many functions a stage computes for an element."""
    return sum(len(called_ops(expr) & COSTLY) for expr in stage.point.exprs())


def _size(axes: Iterable[Axis]) -> int:
    return math.prod(UNKNOWN_DIM if axis.size is None else axis.size for axis in axes)
