"""Kernels without a reduction: 16 bytes per thread and access, transposes through shared memory.

t = block * threads + thread                       one thread per `lanes` neighbours
y[t * lanes + (0 .. lanes)] = f(x[...], ...)

tile[i, j] = f(x[..., j0 + j, ..., i0 + i])        read along the axis that is contiguous there
y[..., i0 + i, ..., j0 + j] = tile[i, j]           written along the output's own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch import CudaArch, dtype_bits

from ..kernel.access import accesses, flattened, relocated, strides, vectorizable
from ..kernel.analysis import analyzer, buffer_of, constant, counted, flat_index, substitute
from ..kernel.axes import Group, merged, product
from ..kernel.emit import Size, allocate, block, ceildiv, index, known, loop
from ..kernel.stages import Stage, Stages
from ..rule import Declined, Kernel, Scheduled
from .launch import Block, at_outer, code, element, launch, split, store, sync, when
from .staged import as_stages, function, handed_over
from .vectors import calls_take_vectors, is_bool, neighbours

THREADS = 256
"""Threads of a block of light work: eight warps, several blocks on each multiprocessor."""
ACCESS_BYTES = 16
"""The widest access of one thread (CUDA C++ Programming Guide, Device Memory Accesses)."""
SIDE, TILE_ROWS = 32, 8
"""A transposed tile, and how many of its rows are moved at a time."""
PER_THREAD = 4
"""Elements of a thread where vectors cannot be had, a block apart from each other."""


@dataclass(frozen=True)
class StagePlan:
    """How one stage is spread over threads.

    `mode` is "vectors" (`lanes` neighbours per thread), "strided" (`lanes` elements per thread, a
    block apart), "transpose" (through tiles read along the joined axis `across`), or "single" where
    there is one element.
    """

    mode: str
    lanes: int = 1
    across: int = -1


class Elementwise:
    """Spatial stages only."""

    name = "elementwise"

    def match(self, kernel: Kernel) -> Stages | Declined:
        workload = as_stages(kernel)
        if isinstance(workload, Stages) and any(s.is_reduction for s in workload.stages):
            return Declined("it holds a reduction")
        return workload

    def choose(self, workload: Stages, arch: CudaArch) -> tuple[StagePlan, ...]:
        return tuple(map(stage_plan, workload.stages))

    def apply(
        self, kernel: Kernel, workload: Stages, decision: tuple[StagePlan, ...], arch: CudaArch
    ) -> Scheduled:
        homes = handed_over(kernel.func, workload.stages)
        moved = [relocated(stage, homes) for stage in workload.stages]
        parts = [emit(stage, plan) for stage, plan in zip(moved, decision)]
        return Scheduled(function(kernel.func, homes, parts))


def stage_plan(stage: Stage) -> StagePlan:
    """The widest accesses that every load and store of the stage takes."""
    groups = merged(stage, stage.spatial)
    if not groups:
        return StagePlan("single")
    across = _across(stage, groups)
    if across >= 0:
        return StagePlan("transpose", across=across)
    width = vector_lanes(stage, groups)
    return StagePlan("vectors", width) if width > 1 else StagePlan("strided", PER_THREAD)


def emit(stage: Stage, plan: StagePlan) -> Stmt:
    """The kernel of one stage."""
    groups = merged(stage, stage.spatial)
    stage = flattened(stage)
    if plan.mode == "single":
        return launch(1, Block(1), lambda *_: element(stage, {}))
    if plan.mode == "transpose":
        return _transpose(stage, groups, plan.across)
    *outer, last = groups
    chunk = plan.lanes if plan.mode == "vectors" else 1
    per_row = ceildiv(known(last.extent), chunk)
    total = known(product(group.extent for group in outer) * per_row)
    each = 1 if plan.mode == "vectors" else plan.lanes

    def at(flat: Expr) -> Stmt:
        rows, column = split(flat, per_row) if outer else (flat, flat)
        return _chunk(stage, at_outer(outer, rows), last, column, chunk)

    def thread(number: Expr, x: Expr, _y: Expr) -> Stmt:
        def one(u: Expr) -> Stmt:
            flat = (number * each + u) * THREADS + x
            return when(flat < index(total), at(flat))

        return loop(each, one, ForKind.UNROLLED, "u")

    return launch(ceildiv(total, THREADS * each), Block(THREADS), thread)


def _chunk(stage: Stage, at: dict[Var, Expr], last: Group, number: Expr, lanes: int) -> Stmt:
    """`lanes` neighbours; those past the end of the row one by one."""

    def point(i: Expr) -> Stmt:
        return element(stage, at | last.at(number * lanes + i))

    if lanes == 1:
        return point(index(0))
    whole = neighbours(lanes, point, "lane")
    extent = known(last.extent)
    if isinstance(extent, int) and extent % lanes == 0:
        return whole
    rest = loop(extent - number * lanes, point, name="rest")
    return when(number * lanes + lanes <= index(extent), whole, rest)


def vector_lanes(stage: Stage, groups: Sequence[Group]) -> int:
    """Elements per vector: all accesses contiguous or constant along the last axis, and aligned."""
    last = groups[-1]
    bits = max(dtype_bits(str(buffer_of(a).ty.dtype)) for a in accesses(stage))
    steps = [None if s is None else constant(s) for s in strides(stage, last.axes[-1])]
    if any(step not in (0, 1) for step in steps) or not calls_take_vectors(stage):
        return 1
    if any(step == 1 and is_bool(access) for step, access in zip(steps, accesses(stage))):
        return 1
    if not vectorizable(stage, last.axes[-1], lambda expr: [expr]):
        return 1
    lanes = ACCESS_BYTES * 8 // bits
    while lanes > 1 and not _aligned(stage, groups, lanes):
        lanes //= 2
    return lanes


def _aligned(stage: Stage, groups: Sequence[Group], lanes: int) -> bool:
    """Every access that moves along the last axis starts at a multiple of `lanes` there."""
    last = groups[-1].axes[-1]
    step = Var("chunk", last.var.ty)
    ana = analyzer([axis for axis in stage.spatial if axis is not last])
    ana.bind(step, counted(last.extent))
    for access, stride in zip(accesses(stage), strides(stage, last)):
        if constant(stride) != 1:
            continue
        start = substitute(flat_index(access), {last.var: step * lanes})
        if len(groups) == 1:
            # The axes before the last of a group are folded into it.
            start = substitute(start, {a.var: index(0) for a in groups[0].axes[:-1]})
        if constant(ana.simplify(tirx.floormod(start, index(lanes)))) != 0:
            return False
    return True


def _across(stage: Stage, groups: Sequence[Group]) -> int:
    """The joined axis that a load is contiguous along where the store is not; else -1."""
    if len(stage.writes) != 1 or len(groups) < 2:
        return -1
    count = len(stage.point.loads())
    last = [None if s is None else constant(s) for s in strides(stage, groups[-1].axes[-1])]
    if last[-1] != 1 or any(step == 1 for step in last[:count]):
        return -1
    for position in reversed(range(len(groups) - 1)):
        steps = strides(stage, groups[position].axes[-1])[:count]
        if any(s is not None and constant(s) == 1 for s in steps):
            return position
    return -1


def _transpose(stage: Stage, groups: Sequence[Group], across: int) -> Stmt:
    """Tiles of `SIDE` x `SIDE`, through shared memory that is one column wider: no bank twice."""
    along, last = groups[across], groups[-1]
    outer = [group for group in groups[:-1] if group is not along]
    dtype = str(stage.writes[0].buffer.ty.dtype)
    counts: list[Size] = [ceildiv(known(group.extent), SIDE) for group in (along, last)]
    grid = known(product(group.extent for group in outer) * counts[0] * counts[1])

    def body(number: Expr, x: Expr, y: Expr) -> Stmt:
        tile = allocate([SIDE * (SIDE + 1)], dtype, "tile", "shared")
        rest, column = split(number, counts[1])
        rest, row = split(rest, counts[0])
        at = at_outer(outer, rest)

        def inside(a: Expr, b: Expr) -> Expr:
            return tirx.And(a < along.extent, b < last.extent)

        def read(u: Expr) -> Stmt:
            i, j = row * SIDE + x, column * SIDE + u * TILE_ROWS + y
            values = at | along.at(i) | last.at(j)
            binds, (value,) = code(stage.point, values)
            put = tirx.BufferStore(tile, value, [x * (SIDE + 1) + u * TILE_ROWS + y])
            return when(inside(i, j), block(*binds, put))

        def write(u: Expr) -> Stmt:
            i, j = row * SIDE + u * TILE_ROWS + y, column * SIDE + x
            values = at | along.at(i) | last.at(j)
            value = tile[(u * TILE_ROWS + y) * (SIDE + 1) + x]
            return when(inside(i, j), store(stage.writes[0], value, values))

        steps = SIDE // TILE_ROWS
        return block(
            tirx.AllocBuffer(tile),
            loop(steps, read, ForKind.UNROLLED, "u"),
            sync(),
            loop(steps, write, ForKind.UNROLLED, "u"),
        )

    return launch(grid, Block(SIDE, TILE_ROWS), body)
