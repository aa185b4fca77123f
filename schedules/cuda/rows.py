"""Kernels with reductions: the threads of a block share a row and what is computed of it.

    for row in blocks:                       several rows in a block if they are short
        stage 1 of the row                   results stay in registers or shared memory
        ...
        stage n of the row

    reduction:  every thread adds up its share, the shares are joined by shuffles inside a warp and
                through shared memory between warps; all threads get the result

Two ways to lay threads over rows: *along* the reduction, where that is contiguous in memory, or
*across* rows, neighbours in a warp having neighbouring rows (pooling, sums over leading axes).

Where rows are long and too few for the machine, reductions are cut into parts (cut.py), and stages
are launches of their own. If only the run knows the length, it chooses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tvm import sym, tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from tvmext.arch import CudaArch, dtype_bits
from tvmext.arch.cuda import STATIC_SHARED, WARP

from ..kernel.access import Homes, flattened, loads, relocated, stores
from ..kernel.analysis import Axis, constant
from ..kernel.axes import joined, merged, product, spread
from ..kernel.emit import allocate, bind, block, ceildiv, index, known, loop
from ..kernel.rows import shared_rows
from ..kernel.stages import Stage, Stages
from ..rule import Declined, Kernel, Scheduled
from . import elementwise
from .cut import contiguous, pieces, plan_cuts
from .launch import Block, Share, at_outer, element, launch, sync, unraveled
from .reduce import joining, reduced
from .staged import as_stages, function, handed_over
from .wide import in_runs, widest

MOST_THREADS = 512
"""Threads for one row: more would wait for each other longer than they compute."""
BLOCK_THREADS = 256
PER_THREAD = 8
"""Elements that a thread has of a row at least, before a row gets more threads."""
ALONE = 64
"""Reductions up to this long are done by one thread, where there are rows enough."""
UNKNOWN = 1024
"""What a row, or their number, is taken for where it is known at run time only."""


@dataclass(frozen=True)
class RowsPlan:
    """Stages, by number, under one launch; ``rows[s]`` are the axes of stage s that are rows.

    `threads` work on a row, `per_block` rows make a block. `along` says which of the two
    neighbouring threads are: "along" the row or "across" rows. Of the latter a thread may have
    `lanes` neighbours, which it reads and writes at once. Of the former it takes ``widths[s]``
    neighbours along the row at once. `parts`: the one stage finds that many parts of a reduction,
    which the next one joins.
    """

    stages: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    threads: int
    per_block: int
    along: bool
    lanes: int = 1
    parts: int = 1
    widths: tuple[int, ...] = ()


Plan = RowsPlan | elementwise.StagePlan


@dataclass(frozen=True)
class ByLength:
    """Two ways, told apart when they are launched: `cut` takes rows of `length` and more."""

    length: int
    whole: tuple[Plan, ...]
    cut: tuple[Plan, ...]


class Rows:
    """Reductions, and what is computed of them."""

    name = "rows"

    def match(self, kernel: Kernel) -> Stages | Declined:
        workload = as_stages(kernel)
        if isinstance(workload, Stages) and not any(s.is_reduction for s in workload.stages):
            return Declined("it holds no reduction")
        return workload

    def choose(self, workload: Stages, arch: CudaArch) -> tuple[Plan, ...] | ByLength:
        found = workload.stages
        groups = _groups(found)
        whole = tuple(_plan(found, numbers, rows, arch) for numbers, rows in groups)
        cuts = [
            plan_cuts([found[s] for s in plan.stages], _row_axes(found, plan), plan, arch)
            if isinstance(plan, RowsPlan)
            else None
            for plan in whole
        ]
        if not any(cuts):
            return whole
        apart: list[Plan] = []
        place = 0
        for (numbers, _), plan, cuts_of in zip(groups, whole, cuts):
            if cuts_of is None:
                apart.append(_moved(plan, place))
                place += len(numbers)
                continue
            for s, parts in zip(numbers, cuts_of.parts):
                for piece, count in pieces(found[s], parts):
                    apart.append(_moved(_plan([piece], (0,), [()], arch), place, count))
                    place += 1
        least = max((one.length for one in cuts if one and one.length), default=0)
        return ByLength(least, whole, tuple(apart)) if least else tuple(apart)

    def apply(
        self,
        kernel: Kernel,
        workload: Stages,
        decision: tuple[Plan, ...] | ByLength,
        arch: CudaArch,
    ) -> Scheduled:
        func, found = kernel.func, workload.stages
        if not isinstance(decision, ByLength):
            return Scheduled(_launches(func, found, decision))
        whole, cut = (_launches(func, found, one).body for one in (decision.whole, decision.cut))
        number = next(
            plan.stages[0] for plan in decision.cut if isinstance(plan, RowsPlan) and plan.parts > 1
        )
        long = product(a.extent for a in found[number].reduce) >= index(decision.length)
        body = tirx.IfThenElse(long, cut, whole)
        return Scheduled(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))


def _launches(
    func: tirx.PrimFunc, uncut: Sequence[Stage], plans: tuple[Plan, ...]
) -> tirx.PrimFunc:
    """The function with the launches of some plans."""
    at = {plan.stages[0]: plan.parts for plan in plans if isinstance(plan, RowsPlan)}
    found: list[Stage] = []
    for stage in uncut:
        found += [piece for piece, _ in pieces(stage, at.get(len(found), 1))]
    params = set(func.params)
    private = [
        _private([found[s] for s in plan.stages], plan, found, params)
        for plan in plans
        if isinstance(plan, RowsPlan)
    ]
    homes = handed_over(func, found, (buffer for own in private for buffer in own))
    parts: list[Stmt] = []
    number = 0
    for plan in plans:
        if isinstance(plan, RowsPlan):
            stages = [found[s] for s in plan.stages]
            parts.append(_Group(stages, plan, private.pop(0), homes).stmt())
            number = plan.stages[-1] + 1
        else:
            parts.append(elementwise.emit(relocated(found[number], homes), plan))
            number += 1
    return function(func, homes, parts)


def reduction(stage: Stage, arch: CudaArch) -> Stmt:
    """The launch of one reduction, as it is done with rows of this number and length."""
    plan = _plan([stage], (0,), [()], arch)
    assert isinstance(plan, RowsPlan), "a reduction has rows"
    return _Group([stage], plan, {}, {}).stmt()


def _moved(plan: Plan, place: int, parts: int = 1) -> Plan:
    """The plan for stages from `place` on."""
    if not isinstance(plan, RowsPlan):
        return plan
    return replace(plan, stages=tuple(range(place, place + len(plan.stages))), parts=parts)


Positions = list[tuple[int, ...]]


def _groups(found: Sequence[Stage]) -> list[tuple[tuple[int, ...], Positions]]:
    """Runs of stages that share rows, as long as possible from the first stage on."""
    groups: list[tuple[tuple[int, ...], Positions]] = []
    current: tuple[int, ...] = ()
    rows: Positions = []
    for number in range(len(found)):
        longer = (*current, number)
        joint = shared_rows([found[s] for s in longer])
        if current and not joint[0]:
            groups.append((current, rows))
            longer, joint = (number,), shared_rows([found[number]])
        current, rows = longer, joint
    groups.append((current, rows))
    return groups


def _plan(
    found: Sequence[Stage], numbers: tuple[int, ...], rows: Positions, arch: CudaArch
) -> Plan:
    stages = [found[s] for s in numbers]
    if len(stages) == 1:
        if not stages[0].is_reduction:
            return elementwise.stage_plan(stages[0])
        rows = [tuple(range(len(stages[0].spatial)))]
    count = _size(stages[0].spatial[p] for p in rows[0])
    length = max(_size(_inside(stage, own)) for stage, own in zip(stages, rows))
    reductions = [stage for stage in stages if stage.is_reduction]
    if any(joining(stage) is None for stage in reductions):
        return RowsPlan(numbers, tuple(rows), 1, WARP, False)
    along = any(map(contiguous, reductions)) and length >= WARP // 2
    if along:
        threads = min(MOST_THREADS, max(WARP, _power(length // PER_THREAD)))
        several = 1 if _hands_over(stages, rows) else max(1, BLOCK_THREADS // threads)
        widths = tuple(_width(stage, own, threads) for stage, own in zip(stages, rows))
        return RowsPlan(numbers, tuple(rows), threads, several, True, widths=widths)
    # Enough threads for the machine, and no more on a row than it has work for.
    wanted = arch.sms * arch.threads_per_sm // max(count, 1)
    threads = 1 if length <= ALONE else _power(max(1, min(wanted, length // PER_THREAD)))
    threads = min(threads, BLOCK_THREADS // WARP)
    alone = len(stages) == 1 and len(stages[0].writes) == 1 and threads == 1
    lanes = _lanes(stages[0], count, arch) if alone else 1
    return RowsPlan(numbers, tuple(rows), threads, BLOCK_THREADS // threads, False, lanes)


def _width(stage: Stage, rows: Sequence[int], threads: int) -> int:
    """How many neighbours along the row a thread takes at once: what the others leave it."""
    axes = list(stage.reduce) if stage.is_reduction else _inside(stage, rows)
    each = max(1, -(-_size(axes) // threads))
    return widest(stage, merged(stage, axes), _power(2 * each - 1))


def _lanes(stage: Stage, count: int, arch: CudaArch) -> int:
    """How many neighbouring rows a thread of a reduction has: channels, over which windows move.

    No more than leave a block to every multiprocessor.
    """
    groups = merged(stage, stage.spatial)
    if not groups or groups[-1].axes[-1].size is None:
        return 1
    lanes = elementwise.vector_lanes(stage, groups)
    while lanes > 1 and (
        groups[-1].axes[-1].size % lanes or count // lanes < arch.sms * BLOCK_THREADS
    ):
        lanes //= 2
    return lanes


def _hands_over(stages: Sequence[Stage], rows: Positions) -> bool:
    """Whether a stage leaves more than one number per row to another."""
    read = {load.source for stage in stages for load in loads(stage)}
    return any(
        len(own) < len(stage.spatial) and any(w.buffer in read for w in stores(stage))
        for stage, own in zip(stages, rows)
    )


def _row_axes(found: Sequence[Stage], plan: RowsPlan) -> list[Axis]:
    """The rows of a group, as the first stage has them."""
    return [found[plan.stages[0]].spatial[p] for p in plan.rows[0]]


def _inside(stage: Stage, rows: Sequence[int]) -> list[Axis]:
    return [a for p, a in enumerate(stage.spatial) if p not in rows] + list(stage.reduce)


def _size(axes: Iterable[Axis]) -> int:
    return math.prod(UNKNOWN if axis.size is None else axis.size for axis in axes)


def _power(count: int) -> int:
    """The largest power of two that is not larger."""
    return 1 << max(0, count.bit_length() - 1)


def _private(
    stages: Sequence[Stage], plan: RowsPlan, found: Sequence[Stage], params: set[Var]
) -> Homes:
    """Registers for one number per row, shared memory for several, if there is room."""
    outside = params | {load.source for s in found if s not in stages for load in loads(s)}
    homes: dict[Var, tuple[Var, tuple[int, ...]]] = {}
    room = STATIC_SHARED // 2 if plan.per_block == 1 else 0
    for stage, positions in zip(stages, plan.rows):
        rows = {stage.spatial[p].var for p in positions}
        for write in stores(stage):
            if write.buffer in outside:
                continue
            shape = write.buffer.shape
            dims = tuple(
                d
                for d, at in enumerate(write.indices)
                if not (isinstance(at, Var) and at in rows) and constant(shape[d]) != 1
            )
            dtype, name = str(write.buffer.ty.dtype), write.buffer.name
            size = constant(product(shape[d] for d in dims)) or 0
            space = size * dtype_bits(dtype) // 8
            if not dims:
                homes[write.buffer] = allocate([1], dtype, name, "local"), dims
            elif 0 < space <= room:
                room -= space
                homes[write.buffer] = allocate([size], dtype, name, "shared"), dims
    return homes


class _Group:
    """One launch under construction; `private` are the buffers that stay on the chip."""

    def __init__(
        self, stages: Sequence[Stage], plan: RowsPlan, private: Homes, homes: Homes
    ) -> None:
        self.plan = plan
        self.private = [home for home, _ in private.values()]
        self.stages = [flattened(relocated(stage, {**homes, **private})) for stage in stages]
        self.rows = [[stage.spatial[p] for p in own] for stage, own in zip(self.stages, plan.rows)]

    def stmt(self) -> Stmt:
        """The launch: a block has `per_block` rows, all of them or those that are left."""
        groups = joined(self.stages, self.rows)
        extents = [product(self.rows[0][p].extent for p in group) for group in groups]
        plan = self.plan
        if plan.lanes > 1:
            extents[-1] = sym.Analyzer().simplify(tirx.floordiv(extents[-1], plan.lanes))
        count = known(product(extents))
        shape = (plan.threads, plan.per_block) if plan.along else (plan.per_block, plan.threads)

        def body(number: Expr, x: Expr, y: Expr) -> Stmt:
            lane, slot = (x, y) if plan.along else (y, x)

            def row(flat: Expr) -> Stmt:
                at = unraveled(flat, extents)
                share = Share(
                    lane, slot, plan.threads, plan.per_block, plan.along, flat < index(count)
                )
                if plan.lanes > 1:
                    (stage,), (own,) = self.stages, self.rows

                    def place(lane: Expr) -> dict[Var, Expr]:
                        return spread(own, groups, [*at[:-1], at[-1] * plan.lanes + lane])

                    return reduced(stage, place, share, plan.lanes)
                widths = plan.widths or (1,) * len(self.stages)
                parts = [
                    self._stage(stage, spread(own, groups, at), share, width)
                    for stage, own, width in zip(self.stages, self.rows, widths)
                ]
                return block(*map(tirx.AllocBuffer, self.private), *parts)

            return bind(number * plan.per_block + slot, row, "row")

        return launch(ceildiv(count, plan.per_block), Block(*shape), body)

    def _stage(self, stage: Stage, at: dict[Var, Expr], share: Share, width: int) -> Stmt:
        """One stage of the row `at`; what it leaves is seen by all threads of the row."""
        inner = merged(stage, [axis for axis in stage.spatial if axis.var not in at])
        total = known(product(group.extent for group in inner))
        shared = any(w.buffer in self._waited_for() for w in stores(stage))
        if stage.is_reduction:
            parts = loop(
                total,
                lambda i: reduced(stage, lambda _: at | at_outer(inner, i), share, width=width),
                name="e",
            )
        elif width > 1:
            parts = in_runs(stage, inner, width, share, at, lambda s, i: element(s, at | i))
        else:
            parts = share.each(total, lambda i: element(stage, at | at_outer(inner, i)))
        return block(parts, sync() if shared else None)

    def _waited_for(self) -> set[Var]:
        """Buffers in memory that one thread writes and another reads."""
        own = {home for home in self.private if home.scope() == "local"}
        return {load.source for stage in self.stages for load in loads(stage)} - own
